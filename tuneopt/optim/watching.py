"""What an update check watches: parameters by their kind, each followed in float64, or only seen to move.

Kinds and routes are read off names and shapes here, apart from `tuneopt.optim.routing`, whose result they check.

What follows from all parameters together (`tuneopt.optim.reference.Joint`) is a sum over every entry of the model, so
the check keeps its state for every entry while it lasts: for Prodigy the first weights and a sum of gradients, 8 bytes
a parameter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.optim.info import BUILT_IN
from tuneopt.optim.reference import Joint, Reference, State, references, rule_of
from tuneopt.optim.routing import ParameterRole

VISIBLE = 0.1
"""A step counts when rounding of the parameter is at most this part of it, in norm; it is taken off the error."""

GENERIC = "a generic proof: the class gives no reference, so this cannot show which rule ran"


@dataclass(frozen=True, slots=True)
class Check:
    """One measured claim. ``measured`` is the worst value seen, None when nothing could be measured."""

    name: str
    passed: bool
    measured: float | None
    expected: str
    detail: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Where one parameter belongs: its rule, kind of shape and decay, and the logical matrices that it holds."""

    name: str
    rule: str
    kind: str
    decays: bool
    pieces: int = 1
    transposed: bool = False
    by_input: bool = False
    """Whether the pieces are cut along the input features."""


@dataclass(slots=True)
class Follower:
    """A watched matrix or vector, followed in float64."""

    watch: Watch
    piece: int
    reference: Reference
    state: dict[str, Any] | None = None
    step: int = 0
    """Steps that it took with a gradient."""
    errors: dict[int, float] = field(default_factory=dict)
    """Relative error of each measured step, rounding taken off."""
    bound: float = math.nan
    stuck: list[int] = field(default_factory=list)
    """Steps in which it moved by its decay alone, or not at all, though its gradient asked for more."""
    undetermined: int = 0
    """Steps of which the rule determines nothing that rounding could not change."""
    diverged: bool = False
    """Whether gradient or parameter were no numbers before a step; nothing is measured from there on."""
    pending: tuple[Tensor, Tensor, dict[str, Any]] | None = None
    """Before a step: the parameter, where the rule puts it, and the state."""

    def before(
        self, parameter: Tensor, gradient: Tensor, h: dict[str, Any], held: Callable[[], Mapping[str, Any]] = dict
    ) -> None:
        """Take one step of the reference; both tensors have the shape of the parameter.

        ``held`` gives the optimizer's state of it, which a rule that leaves something open has to look at.
        """
        shape = tuple(self._logical(parameter).shape)
        h = {**h, "name": self.watch.name, "piece": self.piece, "shape": shape}
        p, g = (self._part(tensor, h) for tensor in (parameter, gradient))
        if not bool(g.isfinite().all() & p.isfinite().all()):
            self.diverged = True
        if self.diverged:
            return
        with torch.device(p.device):
            state = self.reference.init(tuple(p.shape), h) if self.state is None else self.state
            if self.reference.adopt and self.step:
                state = self.reference.adopt(state, held, h)
            self.step += 1
            self.bound = self.reference.bound(h)
            g, prepared = self.reference.prepare(g, state, h) if self.reference.prepare else (g, state)
            g = g / h["clip"] if self.reference.clipped(h) else g
            after, self.state = self.reference.update(p, g, prepared, self.step, h)
        self.pending = p, after, state

    def after(self, parameter: Tensor, h: dict[str, Any]) -> None:
        """Compare with where the parameter went."""
        if self.pending is None:
            return
        (before, goal, state), self.pending = self.pending, None
        now = self._part(parameter, h)
        decayed = before * (1 - h["learning_rate"] * h["weight_decay"])
        wrong, due, moved = (self.reference.determined(x, state) for x in (now - goal, goal - before, now - decayed))
        if not due.numel():
            self.undetermined += 1
            return
        size = float(due.norm())
        # Storing the parameter rounds it. What `determined` leaves out takes its share of the rounding along.
        noise = torch.finfo(parameter.dtype).eps * float(before.norm()) * math.sqrt(due.numel() / before.numel())
        if h["learning_rate"] == 0 or size == 0:
            if bool((now != before).any()):
                self.errors[self.step] = math.inf
        elif not bool(now.isfinite().all()):
            self.errors[self.step] = math.inf
        elif noise <= VISIBLE * size:
            self.errors[self.step] = max(0.0, float(wrong.norm()) - noise) / size
            stays = float(moved.norm()) <= noise or bool((now == before).all())
            if stays and self.errors[self.step] > self.bound:
                self.stuck.append(self.step)

    def average_hessian(self, estimate: Tensor, h: dict[str, Any]) -> None:
        """Take in an estimate of the Hessian's diagonal, shaped as the parameter, after a step."""
        if self.reference.hessian and self.state is not None:
            self.state = self.reference.hessian(self._part(estimate, h), self.state, h)

    def measured(self) -> dict[str, Any]:
        """What was found, as plain values."""
        return {key: getattr(self, key) for key in ("errors", "bound", "stuck", "undetermined", "diverged")}

    def _part(self, tensor: Tensor, h: Mapping[str, Any]) -> Tensor:
        """What is followed of a parameter-shaped tensor, in float64."""
        return self.reference.part(self._logical(tensor), h).to(torch.float64, copy=True)

    def _logical(self, tensor: Tensor) -> Tensor:
        """The logical matrix or vector, as (out, in), of a parameter-shaped tensor."""
        tensor = tensor.detach().mT if self.watch.transposed else tensor.detach()
        if tensor.ndim not in (1, 2):  # a scalar as a vector of one, more dimensions as a matrix
            tensor = tensor.reshape(len(tensor), -1) if tensor.ndim else tensor.reshape(1)
        if self.watch.pieces > 1:
            tensor = tensor.chunk(self.watch.pieces, dim=int(self.watch.by_input))[self.piece]
        return tensor


@dataclass(slots=True)
class Mover:
    """A watched parameter of an optimizer that gives no reference: what every optimizer does."""

    watch: Watch
    pending: tuple[Tensor, bool] | None = None
    moved: list[float] = field(default_factory=list)
    """Largest change of an entry in each step with a learning rate and a gradient."""
    at_rest: list[float] = field(default_factory=list)
    """The same in steps at learning rate 0."""
    infinite: int = 0
    state_bytes: int = 0

    def before(
        self, parameter: Tensor, gradient: Tensor, h: dict[str, Any], held: Callable[[], Mapping[str, Any]] = dict
    ) -> None:
        """Keep the parameter."""
        self.pending = parameter.detach().clone(), bool(gradient.any())

    def after(self, parameter: Tensor, h: dict[str, Any], state: Mapping[str, Any]) -> None:
        """Look at the change, and at the optimizer's ``state`` of the parameter."""
        if self.pending is None:
            return
        (before, has_gradient), self.pending = self.pending, None
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        self.state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        looked_at = [parameter.detach(), *(tensor for tensor in tensors if tensor.is_floating_point())]
        self.infinite += sum(int((~tensor.isfinite()).sum()) for tensor in looked_at)
        change = float((parameter.detach().double() - before.double()).abs().max())
        if h["learning_rate"] == 0:
            self.at_rest.append(change)
        elif has_gradient:
            self.moved.append(change)

    def measured(self) -> dict[str, Any]:
        """What was found, as plain values."""
        return {key: getattr(self, key) for key in ("moved", "at_rest", "infinite", "state_bytes")}


def generic_claims(rule: str, movers: Sequence[Mover]) -> Iterator[Check]:
    """What holds for every optimizer: parameters move by a rate above 0 and by no other, and all stays finite."""
    seen = [mover for mover in movers if mover.moved]
    smallest = min((max(mover.moved) for mover in seen), default=0.0)
    rest = [change for mover in movers for change in mover.at_rest]
    bad, holders = sum(mover.infinite for mover in movers), sum(mover.state_bytes > 0 for mover in movers)
    watched = f"{len(seen)} watched parameters; {GENERIC}"
    if rest:
        expected = "generic: largest change of an entry at learning rate 0 is 0"
        yield Check(f"{rule}.rate", max(rest) == 0, max(rest), expected, f"{len(rest)} measurements; {GENERIC}")
    expected = "generic: smallest of the largest changes of an entry is above 0"
    measured = smallest if math.isfinite(smallest) else None
    yield Check(f"{rule}.moved", bool(seen) and smallest > 0, measured, expected, watched)
    yield Check(f"{rule}.finite", bool(seen) and bad == 0, float(bad), "generic: no NaN or infinity", watched)
    expected = "generic: state for every watched parameter, or for none"
    held = f"{sum(mover.state_bytes for mover in movers)} bytes of state for {watched}"
    yield Check(f"{rule}.state", bool(seen) and holders in (0, len(movers)), float(holders), expected, held)


def references_of(optimizer: Optimizer, name: str) -> dict[str, Reference]:
    """By rule, the main one first: a built-in optimizer's, or what a class from outside gives as ``reference``."""
    kind = type(optimizer)
    if not name and kind.__module__.startswith("tuneopt.optim."):
        homes = {entry.implementation: entry.reference or entry.name for entry in BUILT_IN}
        name = homes.get(f"{kind.__module__}:{kind.__name__}", "")
    if name:
        return references(name)
    given = getattr(kind, "reference", None) or getattr(getattr(kind, "kind", None), "reference", None)
    if isinstance(given, Reference):
        return {optimizer.main.name: given}
    return dict(given or {})


def kind_of(name: str, shape: Sequence[int], module: str = "") -> str:
    """What a parameter is, by its name and shape: vector, head, embedding, tensor, or a square, tall or wide matrix."""
    if len(shape) < 2 or min(shape) < 2:
        return "vector"
    if re.search(r"(^|[._])(lm_head|embed_out|unembed|head|output|score|classifier)\.weight$", name):
        return "head"
    if module == "Embedding" or re.search(r"(^|[._])(\w*embed\w*|wte|wpe|(tok|pos)\w*_emb)([._]|$)", name):
        return "embedding"
    if len(shape) > 2:
        return "tensor"
    return "square" if shape[0] == shape[1] else "tall" if shape[0] > shape[1] else "wide"


def default_routes(
    model: nn.Module,
    optimizer: str,
    roles: Mapping[str, ParameterRole] | None = None,
    matrices: str = "hidden",
    head_width: int = 0,
) -> dict[str, Watch]:
    """Where a built-in optimizer's parameters belong: matrices, the head and the rest, by names and shapes alone.

    Decay acts on matrices and the head, not on vectors and embeddings. ``roles`` says what the parameters of a model of
    a user's own are, whose names tell nothing; ``matrices`` is the switch of that name. Projections of attention are
    cut into heads of ``head_width`` where that is not 0.
    """
    routes: dict[str, Watch] = {}
    known: set[int] = set()
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            # A tied head is the embedding, under which name torch lists it: once, where it comes first.
            if parameter.requires_grad and id(parameter) not in known:
                known.add(id(parameter))
                shape = getattr(parameter, "ds_shape", parameter.shape)  # stage 3 of ZeRO empties its parameters
                if roles is not None:
                    routes[name] = _watch_of(name, shape, type(module).__name__, optimizer, roles[name], matrices)
                    continue
                kind = kind_of(name, shape, type(module).__name__)
                rule, decays = rule_of(optimizer, name, kind, matrices), kind not in ("vector", "embedding")
                watch = Watch(name, rule, kind, decays)
                routes[name] = _cut(watch, shape, head_width) if head_width else watch
    return routes


def _cut(watch: Watch, shape: Sequence[int], head_width: int) -> Watch:
    """The watch of a projection of attention as a matrix for each head, under a kind of its own; any other as it is."""
    found = re.search(r"(^|\.)([qkvo])_proj\.weight$", watch.name)
    if not found:
        return watch
    kind = {"q": "query", "k": "key", "v": "value", "o": "output"}[found[2]]
    by_input = kind == "output"
    return replace(watch, kind=kind, pieces=shape[int(by_input)] // head_width, by_input=by_input)


def _watch_of(
    name: str, shape: Sequence[int], module: str, optimizer: str, role: ParameterRole, matrices: str
) -> Watch:
    """The watch of a parameter whose role is known; transformers' Conv1D stores matrices transposed."""
    transposed = module == "Conv1D" and len(shape) == 2
    rows, columns = (shape[::-1] if transposed else shape) if len(shape) == 2 else (0, 0)
    size = "square" if rows == columns else "tall" if rows > columns else "wide"
    kind = size if role.kind == "matrix" else role.kind
    decays = role.kind not in ("vector", "embedding")
    return Watch(name, rule_of(optimizer, name, kind, matrices), kind, decays, role.pieces, transposed)


def declared_routes(optimizer: Optimizer) -> dict[str, Watch]:
    """The routing table of an optimizer: what whoever built it asked for."""
    return {
        entry.parameter: Watch(
            entry.parameter,
            entry.rule,
            kind_of(entry.parameter, entry.shape[::-1] if entry.transposed else entry.shape),
            entry.decay,
            entry.pieces,
            entry.transposed,
            entry.by_input,
        )
        for entry in optimizer.routing
        if entry.rule != "frozen"
    }


LARGE = 2**22
"""Elements above which a state is kept in fp32, not in float64."""

CHANGES = 3
"""How often the number must have changed before enough of it was seen."""


class JointFollower:
    """Follows the number of one optimizer; ``references`` are its rules, of which one may have such a number."""

    def __init__(self, references: Mapping[str, Reference]) -> None:
        found = [reference.joint for reference in references.values() if reference.joint]
        self._joint: Joint | None = found[0] if found else None
        self._carried: State | None = None
        self._states: dict[str, State] = {}
        self._changes = 0

    @property
    def seen(self) -> bool:
        """Whether it changed often enough to be shown, or there is none."""
        return self._joint is None or self._changes >= CHANGES

    def number(self, h: Mapping[str, Any]) -> dict[str, float]:
        """The number of this step, as ``joint``; nothing where the optimizer has none."""
        if self._joint is None:
            return {}
        self._carried = self._joint.init(h) if self._carried is None else self._carried
        return {"joint": float(self._carried["joint"])}

    def advance(
        self, pieces: Iterable[tuple[str, Tensor, Tensor]], h: Mapping[str, Any], summed: Callable[[float], float]
    ) -> None:
        """Take the step that the optimizer is about to take, from (name, parameter, gradient) of every piece here.

        Gradients are divided by ``h["clip"]``; ``summed`` adds a number up over all ranks.
        """
        if self._joint is None or self._carried is None:
            return
        totals = [0.0] * self._joint.count
        for name, parameter, gradient in pieces:
            state = {key: value.double() for key, value in self._states.get(name, {}).items()}
            p, g = parameter.detach().double(), gradient.detach().double() / h["clip"]
            state, terms = self._joint.terms(p, g, state, h)
            self._states[name] = {key: _kept(value) for key, value in state.items()}
            totals = [total + term for total, term in zip(totals, terms, strict=True)]
        before = self._carried["joint"]
        self._carried = self._joint.value(self._carried, [summed(total) for total in totals], h)
        self._changes += self._carried["joint"] != before


def _kept(value: Tensor) -> Tensor:
    return value.to(torch.float32 if value.numel() > LARGE else torch.float64, copy=True)
