"""One hyperparameter that is searched: what it means, and its grid, start and bounds on each ladder.

`Coordinate` is the declaration; `Coordinate.axis` is what a sweep on one ladder walks. The functions below declare the
coordinates that many search spaces have in common: meaning, unit and bounds stand here once, and a space gives its own
grids and starts by ladder. Where a grid or start is the usual one, the space leaves that ladder out.

Bounds are no advice. They keep a grid that is extended again and again (`Axis.above`, `Axis.below`) from values that
are never tuned to, such as a learning rate of 100, and a user's typing error from starting a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tuneopt.search.axis import EXTENSIONS, Axis, read_number, read_switch
from tuneopt.spec import InputError, Value, nearest

STUDY = "Wen, Hall, Ma, Liang, arXiv 2509.02046"
"""The study whose published figures the built-in search spaces hold."""

STUDY_TABLES = f"paper ladder and published points: {STUDY}, appendix tables; start: its 130m, ratio 1"
"""What a built-in search space names as its source."""

KINDS = ("scale-free", "steps", "fraction", "categorical")
"""What a coordinate counts: a pure number, optimizer steps, a fraction of the steps, or a choice."""

Values = Mapping[str, Value]
"""Hyperparameters by name, or one hyperparameter by ladder."""

Grids = Mapping[str, tuple[Value, ...]]
"""Values to try, by ladder."""

Bound = float | None | Mapping[str, float]
"""A bound that holds on every ladder, none, or one by ladder."""


@dataclass(frozen=True)
class Coordinate:
    """One hyperparameter that is searched: what it means, and its grid, start and bounds on each ladder.

    ``extend`` says how a grid goes on beyond its edge (`EXTENSIONS`); ``off`` is the value that switches the thing off,
    an end that is no edge. A grid written in whole numbers stays in whole numbers. One grid value: pinned there.
    Raises `InputError` for a declaration that contradicts itself.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    grids: Grids
    starts: Values
    low: Bound = None
    high: Bound = None
    extend: str = "geometric"
    off: Value | None = None

    def __post_init__(self) -> None:
        for word, known in ((self.kind, KINDS), (self.extend, EXTENSIONS)):
            if word not in known:
                raise InputError(f"coordinate {self.name} says {word!r}; {nearest(word, known)}")
        if set(self.grids) != set(self.starts):
            raise InputError(f"coordinate {self.name} needs a grid and a start for the same ladders")
        for ladder in self.grids:
            axis = self.axis(ladder)
            for value in axis.values:
                axis.read(value)

    def bounds(self, ladder: str) -> tuple[float | None, float | None]:
        """The inclusive bounds on one ladder; None is unbounded."""
        low, high = (bound.get(ladder) if isinstance(bound, Mapping) else bound for bound in (self.low, self.high))
        return low, high

    def axis(self, ladder: str) -> Axis:
        """This coordinate on one ladder."""
        grid = self.grids[ladder]
        if not grid:
            raise InputError(f"coordinate {self.name} has an empty grid for the ladder {ladder!r}; give it a value")
        low, high = self.bounds(ladder)
        return Axis.of(
            self.name,
            grid,
            self.starts[ladder],
            low=low,
            high=high,
            extend="none" if self.kind == "categorical" else self.extend,
            off=self.off,
            whole=all(isinstance(value, int) and not isinstance(value, bool) for value in grid),
        )


@dataclass(frozen=True)
class TunedPoint:
    """A published optimum: the complete configuration and its loss in nats per token."""

    scale: str
    ratio: float
    loss: float
    config: Values


def tuned(base: Values, rows: Iterable[tuple[str, float, float, Values]]) -> tuple[TunedPoint, ...]:
    """Tuned points from rows of (scale, ratio, loss, what differs from ``base``)."""
    return tuple(TunedPoint(scale, ratio, loss, {**base, **changed}) for scale, ratio, loss, changed in rows)


class FurtherRun(NamedTuple):
    """A published run beyond the tuned regimes: its loss (nats per token) alone.

    Its hyperparameters were predicted from the tuned points, so that they say nothing about where optima lie.
    """

    scale: str
    ratio: float
    loss: float


def further(*rows: tuple[str, float, float]) -> tuple[FurtherRun, ...]:
    """Published runs beyond the tuned regimes, from rows of (scale, ratio, loss)."""
    return tuple(FurtherRun(*row) for row in rows)


def changed(coordinates: Iterable[Coordinate], *others: Coordinate) -> tuple[Coordinate, ...]:
    """The coordinates, in their order, with ``others`` in the place of those of the same name, or at the end."""
    by_name = {other.name: other for other in others}
    kept = tuple(by_name.pop(each.name, each) for each in coordinates)
    return (*kept, *by_name.values())


@dataclass(frozen=True, slots=True)
class Switch:
    """A hyperparameter that a configuration names only where it is on, so that trials without it keep their ids.

    ``off`` is its value where it is not named; None where nothing stands for that. ``words`` are what a word may be.
    """

    name: str
    off: Value | None
    meaning: str
    words: tuple[str, ...] = ()
    below: float = math.inf

    def read(self, given: Value) -> Value:
        """What a user gave, as text or as it is; raises `InputError` for another kind of value."""
        if isinstance(self.off, bool):
            return read_switch(self.name, given)
        if self.words:
            if given not in self.words:
                raise InputError(f"{self.name} cannot be {given!r}; {nearest(str(given), self.words)}")
            return given
        value = read_number(self.name, given, 0.1)
        if not 0 <= float(value) < self.below:
            most = f" and below {self.below:g}" if math.isfinite(self.below) else ""
            raise InputError(f"{self.name} must be at least 0{most}, not {given}; try {self.name}=0.1")
        return value


DECAY_FOLLOWS_LR = Switch(
    "decay_follows_lr", False, "the decay of matrices is multiplied by the rate's share of its peak"
)

APPLY_SWITCHES = (
    Switch("hyperball", False, "matrices keep the norm that they began with, and updates are measured by it"),
    Switch("cautious_decay", False, "matrices decay only where update and weight agree in sign"),
    DECAY_FOLLOWS_LR,
)
"""What any rule for whole matrices can take (docs/optimizers.md, "Switches")."""

FALLBACK_SWITCHES = (
    Switch("matrices", "hidden", "what the matrix rule takes: hidden matrices, or embedding and head too",
           ("hidden", "all")),
    Switch("fallback_weight_decay", None, "weight decay of the fallback rule, in place of the common one"),
    Switch("fallback_learning_rate", None, "peak learning rate of the fallback rule, in place of a share of the other"),
)  # fmt: skip
"""What any optimizer of a matrix rule and a fallback can take."""

ORTHOGONAL_SWITCHES = (
    Switch("scale", "spectral", "what an orthogonal update is multiplied with: sqrt(max(1, out/in)), or 0.2 "
           "sqrt(max(out, in))", ("spectral", "match_rms")),
    Switch("row_normalize", 0, "decay of a second moment for each row, which evens the rows of an update; 0 is off",
           below=1.0),
    Switch("split_heads", False, "projections of attention are one matrix for each head"),
    *APPLY_SWITCHES,
    *FALLBACK_SWITCHES,
)  # fmt: skip
"""What Muon and Scion can take."""


def learning_rate(grids: Grids, starts: Values, meaning: str = "peak of the schedule") -> Coordinate:
    """The peak learning rate."""
    return Coordinate(
        "learning_rate", "scale-free", "weight per unit update", meaning, grids, starts, low=1e-6, high=10.0
    )


def weight_decay(grids: Grids | None = None, starts: Values | None = None) -> Coordinate:
    """Decoupled weight decay; usually 0, 0.1 or 0.2. At 0 it is off: an end of the grid and no edge."""
    return Coordinate(
        "weight_decay",
        "scale-free",
        "per unit learning rate",
        "decoupled decay, multiplied by the learning rate; norms and embeddings are spared",
        {"paper": (0, 0.1, 0.2), "nano": (0, 0.1, 0.2), **(grids or {})},
        {"paper": 0.1, "nano": 0.1, **(starts or {})},
        low=0,
        high=10.0,
        off=0,
    )


def average(name: str, meaning: str, grids: Grids, starts: Values) -> Coordinate:
    """The decay of an exponential average, such as a beta or a momentum; its grid goes on in 1 - value.

    1 - value is the averaging rate: from 0.98 a step of the same kind as from 0.9 leads to 0.996, never to 1.
    """
    return Coordinate(name, "scale-free", "1", meaning, grids, starts, low=0, high=0.9999, extend="complement", off=0)


def beta1(
    grids: Grids | None = None, starts: Values | None = None, meaning: str = "decay of the average gradient"
) -> Coordinate:
    """The decay of the first moment."""
    usual: Grids = {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)}
    return average("beta1", meaning, grids or usual, starts or {"paper": 0.95, "nano": 0.9})


def beta2(
    grids: Grids | None = None, starts: Values | None = None, meaning: str = "decay of the average squared gradient"
) -> Coordinate:
    """The decay of the second moment."""
    usual: Grids = {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)}
    return average("beta2", meaning, grids or usual, starts or {"paper": 0.95, "nano": 0.95})


def momentum(meaning: str) -> Coordinate:
    """The decay of the momentum that is orthogonalized (Muon, Scion)."""
    grids: Grids = {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)}
    return average("momentum", meaning, grids, {"paper": 0.98, "nano": 0.95})


def rate_share(name: str, meaning: str, grids: Grids, starts: Values) -> Coordinate:
    """The learning rate of a fallback rule over that of the matrices."""
    return Coordinate(name, "scale-free", "1", meaning, grids, starts, low=1e-3, high=100.0)


EPSILON_HIGH: Mapping[str, float] = {"paper": 1e-5, "nano": 1e-8}
"""Upper bounds of AdamW's epsilon and its relatives. The nano start stands on it: a bound is an end and no edge."""


def epsilon(
    grids: Grids | None = None,
    starts: Values | None = None,
    meaning: str = "added to the root of the second moment; 1e-25 vanishes beside any gradient in fp32",
    low: Bound = 1e-25,
    high: Bound = 1e-5,
) -> Coordinate:
    """A small number in a denominator, in units of the gradient."""
    usual: Grids = {"paper": (1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-8)}
    starts = starts or {"paper": 1e-20, "nano": 1e-8}
    return Coordinate("epsilon", "scale-free", "gradient", meaning, grids or usual, starts, low=low, high=high)


def frobenius_epsilon(name: str, paper: tuple[float, ...]) -> Coordinate:
    """What keeps the momentum's norm from 0 before orthogonalization; ``paper`` is its grid on the paper ladder."""
    return Coordinate(
        name,
        "scale-free",
        "momentum norm",
        "added to the Frobenius norm before orthogonalization",
        {"paper": paper, "nano": (1e-5,)},
        {"paper": 1e-15, "nano": 1e-5},
        low=1e-25,
        high=1e-5,
    )


def max_grad_norm(
    meaning: str = "global norm that gradients are clipped to; 0 is no clipping",
    grids: Grids | None = None,
    starts: Values | None = None,
) -> Coordinate:
    """Where gradients are clipped; usually not at all (0 is off), or to a norm of 1 or 2."""
    return Coordinate(
        "max_grad_norm",
        "scale-free",
        "gradient norm",
        meaning,
        {"paper": (0, 1.0, 2.0), "nano": (0, 1.0, 2.0), **(grids or {})},
        {"paper": 1.0, "nano": 1.0, **(starts or {})},
        low=0,
        high=1000.0,
        off=0,
    )


def train_batch_size(grids: Grids | None = None, starts: Values | None = None) -> Coordinate:
    """Sequences per optimizer step; usually 128 to 1024 on the paper ladder, 8 to 32 on the nano ladder.

    The lower bound is 8 on the nano ladder: below it a CPU step is overhead, and AdamW lost 0.07 nats at 4. It is the
    same for every optimizer.
    """
    return Coordinate(
        "train_batch_size",
        "scale-free",
        "sequences",
        "sequences per optimizer step; the token budget stays, so twice the batch is half the steps",
        {"paper": (128, 256, 512, 1024), "nano": (8, 16, 32), **(grids or {})},
        {"paper": 128, "nano": 8, **(starts or {})},
        low={"paper": 16, "nano": 8},
        high={"paper": 8192, "nano": 512},
    )


def warmup(grids: Grids | None = None, starts: Values | None = None) -> Coordinate:
    """Steps in which the learning rate rises; below 1 a fraction of all steps, as on the nano ladder.

    The paper ladder counts steps, as published. Fractions keep the shape of the schedule when the batch changes, and
    half of the run is the most that a rise may take there.
    """
    return Coordinate(
        "warmup",
        "steps",
        "steps; below 1 a fraction of all steps",
        "linear rise of the learning rate to its peak; 0 is none",
        {"paper": (500, 1000, 2000, 4000), "nano": (0.05, 0.1, 0.2), **(grids or {})},
        {"paper": 2000, "nano": 0.1, **(starts or {})},
        low=0,
        high={"paper": 32000, "nano": 0.5},
        off=0,
    )


def block_size(grids: Grids, starts: Values) -> Coordinate:
    """The largest side of a block that has factors of its own."""
    return Coordinate(
        "block_size",
        "scale-free",
        "rows or columns",
        "largest side of a block with factors of its own; on the nano ladder 128 is the largest model width",
        grids,
        starts,
        low=8,
        high={"paper": 8192, "nano": 128},
    )
