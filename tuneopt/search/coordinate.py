"""One hyperparameter that is searched: what it means, and its grid, start and bounds on each ladder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuneopt.search.axis import EXTENSIONS, Axis
from tuneopt.spec import InputError, Value, nearest

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
    an end that is no edge. A grid written in whole numbers stays in whole numbers. One grid value: held on that ladder.
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
