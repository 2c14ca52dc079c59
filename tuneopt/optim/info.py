"""What optimizers there are, without importing torch: the table behind `tuneopt optimizers` and the factory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tuneopt import outside
from tuneopt.spec import Value


@dataclass(frozen=True, slots=True)
class Workspace:
    """What the fullest step computes with beside weights, gradients and state, in fp32 copies (counted).

    On a device (`tuneopt.optim.portions`): of a portion of lists, of a stack of equal matrices, of a slice of it and of
    the products of a slice's matrices (a, b) with themselves, (a, a). ``whole`` are copies of the embedding where it is
    stepped whole. On a CPU slices and portions are small, and ``host`` copies of the largest stack are all (measured).
    """

    portion: float = 0.0
    stack: float = 0.0
    slice: float = 0.0
    gram: float = 0.0
    whole: float = 0.0
    host: float = 0.0
    upright: bool = False
    """Whether tall and wide matrices are stacks of their own, because rows count."""


@dataclass(frozen=True, slots=True)
class OptimizerInfo:
    """One optimizer in words and figures.

    ``state_bytes_per_parameter`` counts optimizer state for a parameter of a transformer matrix with fp32 state, at
    d = 1024, f = 4096 and the defaults of the class; fallback parameters (embeddings, head, norms) cost AdamW's 8.
    `Optimizer.predicted_state_bytes` gives the exact figure of a concrete model from its shapes.
    """

    name: str
    family: str | None
    """``scalar`` (elementwise rules) or ``matrix`` (rules that need whole matrices); None where it is not known."""
    fallback: str | None
    """The rule of embeddings, head, norms and other vectors; None where one rule moves everything."""
    source: str
    state_bytes_per_parameter: float | None
    implementation: str
    """``module:Class``, imported when the optimizer is created."""
    origin: str = "built in"
    """The installed package that brings it, with its version."""
    workspace: Workspace = Workspace()
    """What a step computes with; nothing for rules that work in place."""
    needs_all_gradients: bool = False
    """Whether a step must see the gradients of all tensors at once, because it clips something made of them."""
    curvature: bool = False
    """Whether training owes it Hessian-vector products."""
    preset: Mapping[str, Value] = field(default_factory=dict)
    """Of an optimizer that is another one with switches on: the switches, by which it is named."""
    switches: tuple[str, ...] = ()
    """Hyperparameters that are off by default, and absent from a trial while they are (docs/optimizers.md)."""
    reference: str = ""
    """The optimizer whose rules in `tuneopt.optim.reference` are its own too, where they are not under its name."""
    needs_weights: bool = False
    """Whether its update of a matrix depends on the weights, which then travel to the owner rank under ZeRO."""
    anytime: bool = False
    """Whether its weights at any step are as good as those that a run of that length ends with."""


MEMORY_FACTS = ("workspace", "needs_all_gradients", "curvature", "needs_weights", "reference")
"""Fields that training reads, and that listings leave out."""

FALLBACK_SWITCHES = ("matrices", "fallback_weight_decay", "fallback_learning_rate")
APPLY_SWITCHES = ("hyperball", "cautious_decay", "decay_follows_lr", *FALLBACK_SWITCHES)
ORTHOGONAL_SWITCHES = ("scale", "row_normalize", "split_heads", *APPLY_SWITCHES)

GROUP = "tuneopt.optimizers"
"""The entry points by which an installed package offers optimizers: name -> class."""

BUILT_IN: tuple[OptimizerInfo, ...] = (
    OptimizerInfo(
        name="adamw",
        family="scalar",
        fallback=None,
        source="Loshchilov and Hutter, arXiv 1711.05101",
        state_bytes_per_parameter=8.0,  # two moments
        implementation="tuneopt.optim.adamw:AdamW",
    ),
    OptimizerInfo(
        name="nadamw",
        family="scalar",
        fallback=None,
        source="Dozat 2016, openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ; as in arXiv 2509.02046",
        state_bytes_per_parameter=8.0,  # two moments
        implementation="tuneopt.optim.nadamw:NAdamW",
        workspace=Workspace(portion=1),
    ),
    OptimizerInfo(
        name="mars",
        family="scalar",
        fallback=None,
        source="Yuan et al., arXiv 2411.10438 (approximate MARS-AdamW); as in arXiv 2509.02046",
        state_bytes_per_parameter=12.0,  # two moments and the gradient of the step before
        implementation="tuneopt.optim.mars:MARS",
        needs_all_gradients=True,
    ),
    OptimizerInfo(
        name="cautious",
        family="scalar",
        fallback=None,
        source="Liang et al., arXiv 2411.16085; as in arXiv 2509.02046",
        state_bytes_per_parameter=8.0,  # two moments
        implementation="tuneopt.optim.cautious:Cautious",
        workspace=Workspace(portion=3),
    ),
    OptimizerInfo(
        name="lion",
        family="scalar",
        fallback=None,
        source="Chen et al., arXiv 2302.06675; as in arXiv 2509.02046",
        state_bytes_per_parameter=4.0,  # one momentum
        implementation="tuneopt.optim.lion:Lion",
        workspace=Workspace(portion=2),
    ),
    OptimizerInfo(
        name="adam_mini",
        family="scalar",
        fallback="adamw at the same learning rate (norms and other vectors)",
        source="Zhang et al., arXiv 2406.16793; as in arXiv 2509.02046",
        state_bytes_per_parameter=4.0 + 4.0 * 13_312 / 2**24,  # one moment, and one number per row: 13,312 of a layer
        implementation="tuneopt.optim.adam_mini:AdamMini",
        workspace=Workspace(portion=1),
    ),
    OptimizerInfo(
        name="sophia",
        family="scalar",
        fallback=None,
        source="Liu et al., arXiv 2305.14342 (Sophia-H); as in arXiv 2509.02046",
        state_bytes_per_parameter=8.0,  # one momentum, one average of the Hessian's diagonal
        implementation="tuneopt.optim.sophia:Sophia",
        curvature=True,
        workspace=Workspace(portion=2),
    ),
    OptimizerInfo(
        name="ademamix",
        family="scalar",
        fallback=None,
        source="Pagliardini et al., arXiv 2409.03137",
        state_bytes_per_parameter=12.0,  # two first moments and a second one
        implementation="tuneopt.optim.ademamix:AdEMAMix",
        workspace=Workspace(portion=3),
    ),
    OptimizerInfo(
        name="adopt",
        family="scalar",
        fallback=None,
        source="Taniguchi et al., arXiv 2411.02853",
        state_bytes_per_parameter=8.0,  # two moments
        implementation="tuneopt.optim.adopt:ADOPT",
        workspace=Workspace(portion=3),
    ),
    OptimizerInfo(
        name="prodigy",
        family="scalar",
        fallback=None,
        source="Mishchenko and Defazio, arXiv 2306.06101",
        state_bytes_per_parameter=16.0 + 12.0 * 7 / 2**24,  # two moments, a sum of gradients, first weights; 3 numbers
        implementation="tuneopt.optim.prodigy:Prodigy",
        workspace=Workspace(portion=3),
        needs_weights=True,
    ),
    OptimizerInfo(
        name="schedule_free",
        family="scalar",
        fallback=None,
        source="Defazio et al., arXiv 2405.15682",
        state_bytes_per_parameter=8.0 + 4.0 * 7 / 2**24,  # fast weights and a second moment; 1 number
        implementation="tuneopt.optim.schedule_free:ScheduleFree",
        workspace=Workspace(portion=3),
        needs_weights=True,
        anytime=True,
    ),
    OptimizerInfo(
        name="muon",
        family="matrix",
        fallback="adamw at muon_to_adam_lr times the learning rate",
        source="Jordan et al. 2024, kellerjordan.github.io/posts/muon; as in arXiv 2509.02046",
        state_bytes_per_parameter=4.0,  # one momentum
        implementation="tuneopt.optim.muon:Muon",
        workspace=Workspace(stack=1, slice=3, gram=2, host=3.0),
        switches=ORTHOGONAL_SWITCHES,
    ),
    OptimizerInfo(
        name="sf_muon",
        family="matrix",
        fallback="schedule_free at muon_to_adam_lr times the learning rate",
        source="Apte et al., arXiv 2605.23061",
        state_bytes_per_parameter=8.0 + 4.0 * 7 / 2**24,  # a momentum and fast weights; 1 number for each matrix
        implementation="tuneopt.optim.sf_muon:SFMuon",
        workspace=Workspace(portion=3, stack=1, slice=3, gram=2, host=3.0),
        switches=("scale", "row_normalize", "split_heads", *FALLBACK_SWITCHES),
        needs_weights=True,
        anytime=True,
    ),
    OptimizerInfo(
        name="dion",
        family="matrix",
        fallback="adamw at dion_to_adam_lr times the learning rate",
        source="Ahn et al., arXiv 2512.16928 (Dion2)",
        state_bytes_per_parameter=4.0,  # one momentum
        implementation="tuneopt.optim.dion:Dion",
        workspace=Workspace(stack=1, slice=1.5, host=3.0),  # a quarter of the rows, by default
        switches=("scale", "split_heads", *APPLY_SWITCHES),
    ),
    OptimizerInfo(
        name="scion",
        family="matrix",
        fallback="sign of the averaged gradient at scion_to_signum_lr times the learning rate",
        source="Pethick et al., arXiv 2502.07529; as in arXiv 2509.02046",
        state_bytes_per_parameter=4.0,  # one momentum
        implementation="tuneopt.optim.scion:Scion",
        workspace=Workspace(portion=2, stack=1, slice=2, gram=2, host=3.0),
        switches=ORTHOGONAL_SWITCHES,
    ),
    OptimizerInfo(
        name="kron",
        family="matrix",
        fallback="the same rule with diagonal factors, at the same learning rate",
        source="Li, arXiv 1512.04202 and 2211.04422 (PSGD, Kronecker-factored); as in arXiv 2509.02046",
        state_bytes_per_parameter=12.0,  # one momentum, and per square block two factors of its size
        implementation="tuneopt.optim.kron:Kron",
        workspace=Workspace(stack=2, slice=9, whole=5, host=5.5),
        switches=APPLY_SWITCHES,
    ),
    OptimizerInfo(
        name="soap",
        family="matrix",
        fallback="adamw at the same learning rate",
        source="Vyas et al., arXiv 2409.11321; as in arXiv 2509.02046",
        state_bytes_per_parameter=24.0,  # two moments, and per square block two factors and two bases of its size
        implementation="tuneopt.optim.soap:SOAP",
        workspace=Workspace(stack=2, slice=11, host=3.0),
        switches=("factors", "orthogonalize", "decay_follows_lr", *FALLBACK_SWITCHES),
    ),
    OptimizerInfo(
        name="shampoo",
        family="matrix",
        fallback="adamw at the same learning rate",
        source="Shi et al., arXiv 2309.06497 (Distributed Shampoo); Anil et al., arXiv 2002.09018",
        state_bytes_per_parameter=24.0,  # two moments, and per square block two factors and two roots of its size
        implementation="tuneopt.optim.shampoo:Shampoo",
        workspace=Workspace(stack=2, slice=6, host=3.0),
        switches=("exponent", "decay_follows_lr", *FALLBACK_SWITCHES),
    ),
)


def _preset(base: str, name: str, source: str, switches: Mapping[str, Value], **others: Any) -> OptimizerInfo:
    """The entry of an optimizer that is ``base`` with ``switches`` on; ``others`` are what they change of its facts."""
    (entry,) = [entry for entry in BUILT_IN if entry.name == base]
    return replace(entry, name=name, source=source, preset=switches, reference=base, **others)


_ADAMH = OptimizerInfo(
    name="adamh",
    family="matrix",
    fallback="adamw at the same learning rate",
    source="Wen et al., arXiv 2606.16899 (hyperball)",
    state_bytes_per_parameter=8.0,  # two moments; a radius for each matrix is nothing beside them
    implementation="tuneopt.optim.adamw:MatrixAdamW",
    workspace=Workspace(stack=3, host=3.0),
    preset={"hyperball": True},
    switches=APPLY_SWITCHES,
    needs_weights=True,
)

BUILT_IN += (
    _preset("muon", "muonh", "Wen et al., arXiv 2606.16899 (hyperball)", {"hyperball": True}, needs_weights=True),
    _preset(
        "muon",
        "normuon",
        "Li et al., arXiv 2510.05491",
        {"row_normalize": 0.95},
        state_bytes_per_parameter=4.0 + 4.0 * 13_312 / 2**24,  # one momentum, and one number per row
        workspace=Workspace(stack=1, slice=3, gram=2, host=3.0, upright=True),
    ),
    _preset("muon", "muonc", "Defazio, arXiv 2506.02285 (corrected decay), on Muon", {"decay_follows_lr": True}),
    _preset("muon", "moonlight", "Liu et al., arXiv 2502.16982", {"scale": "match_rms"}),
    _preset(
        "soap",
        "kl_soap",
        "Lin et al., arXiv 2509.03378",
        {"factors": "kl"},
        state_bytes_per_parameter=24.0 + 4.0 * 2 / 256,  # and per block of 256 x 256 one number per row and column
    ),
    _preset("soap", "soap_muon", "Vyas et al., nikhilvyas.github.io/SOAP_Muon.pdf", {"orthogonalize": "match_rms"}),
    _ADAMH,
    replace(
        _ADAMH,
        name="adamc",
        source="Defazio, arXiv 2506.02285",
        preset={"decay_follows_lr": True},
        reference="adamh",
        needs_weights=False,
    ),
)


def info() -> tuple[OptimizerInfo, ...]:
    """Every optimizer that a name stands for: the built-in ones, scalar family first, then those of packages.

    A package's optimizer is listed without importing it, so only its name and origin are known;
    `tuneopt.optim.describe` reads the rest from its class. Raises `InputError` for a name claimed twice.
    """
    ours = {entry.name for entry in BUILT_IN}
    found = []
    for name in outside.installed(GROUP):
        point = outside.claimed(GROUP, name, "optimizer", name in ours)
        if point is not None:
            found.append(OptimizerInfo(name, None, None, "", None, point.value, outside.origin(point)))
    return (*BUILT_IN, *found)


def entry_of(name: str) -> OptimizerInfo:
    """The entry of a built-in optimizer; one that says nothing for others, whose class alone can say what it is."""
    unknown = OptimizerInfo(name, None, None, "", None, "")
    return next((entry for entry in BUILT_IN if entry.name == name), unknown)


def names() -> tuple[str, ...]:
    """The names that `info` lists, also where one is claimed twice."""
    return tuple(dict.fromkeys((*(entry.name for entry in BUILT_IN), *outside.installed(GROUP))))
