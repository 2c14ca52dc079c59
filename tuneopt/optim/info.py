"""What optimizers there are, without importing torch: the table behind `tuneopt optimizers` and the factory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OptimizerInfo:
    """One optimizer in words and figures.

    ``state_bytes_per_parameter`` counts optimizer state for a parameter of a transformer matrix with fp32 state, at
    d = 1024, f = 4096 and the defaults of the class; fallback parameters (embeddings, head, norms) cost AdamW's 8.
    `Optimizer.predicted_state_bytes` gives the exact figure of a concrete model from its shapes.
    """

    name: str
    family: str
    """``scalar`` (elementwise rules) or ``matrix`` (rules that need whole matrices)."""
    fallback: str | None
    """The rule of embeddings, head, norms and other vectors; None where one rule moves everything."""
    source: str
    state_bytes_per_parameter: float
    implementation: str
    """``module:Class``, imported when the optimizer is created."""


_TABLE = (
    OptimizerInfo(
        name="adamw",
        family="scalar",
        fallback=None,
        source="Loshchilov and Hutter, arXiv 1711.05101",
        state_bytes_per_parameter=8.0,  # two moments
        implementation="tuneopt.optim.adamw:AdamW",
    ),
    OptimizerInfo(
        name="muon",
        family="matrix",
        fallback="adamw at muon_to_adam_lr times the learning rate",
        source="Jordan et al. 2024, kellerjordan.github.io/posts/muon; as in arXiv 2509.02046",
        state_bytes_per_parameter=4.0,  # one momentum
        implementation="tuneopt.optim.muon:Muon",
    ),
    OptimizerInfo(
        name="soap",
        family="matrix",
        fallback="adamw at the same learning rate",
        source="Vyas et al., arXiv 2409.11321; as in arXiv 2509.02046",
        state_bytes_per_parameter=24.0,  # two moments, and per square block two factors and two bases of its size
        implementation="tuneopt.optim.soap:SOAP",
    ),
)


def info() -> tuple[OptimizerInfo, ...]:
    """Every built-in optimizer, scalar family first."""
    return _TABLE
