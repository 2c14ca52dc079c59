"""One coordinate on one ladder: its values, what lies beyond its edges, and how a user's value is read.

A grid edge is extended geometrically by the ratio of the grid's own last two values, because a step of a learning
rate is a factor. Betas (`complement`) take the same step in 1 - beta, their averaging rate. A value that means "off",
or that stands on a declared bound, is an end and not an edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tuneopt import checked
from tuneopt.spec import InputError, Value, canonical, nearest

EXTENSIONS = ("geometric", "complement", "none")
"""How a grid goes on beyond its edge: by a factor, by a factor in 1 - value, or not at all."""

MAX_EXTENSIONS = 8
"""Values a grid may gain at each end, so that a loss that falls for ever cannot keep a sweep running for ever."""

LARGEST_GRID = 1000
"""Values that a grid may hold: each is a trial of every star."""

_PLAIN_RATIO = 2.0
"""The factor where a grid offers none of its own (a lone positive value next to zero)."""


def is_number(value: object) -> bool:
    """True for int and float, false for switches and words."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Axis:
    """The values of one coordinate on one ladder.

    ``values`` holds the grid and the start, numbers ascending, words as declared; a single value is pinned and never
    varied. ``low`` and ``high`` are inclusive bounds. ``whole`` keeps extensions in whole numbers.
    """

    name: str
    values: tuple[Value, ...]
    start: Value
    low: float | None = None
    high: float | None = None
    extend: str = "none"
    off: Value | None = None
    whole: bool = False

    @classmethod
    def of(cls, name: str, grid: Sequence[Value], start: Value, **rest: Any) -> Axis:
        """An axis over ``grid`` and ``start``, canonical and ordered."""
        values = list(dict.fromkeys(canonical(value) for value in (*grid, start)))
        if all(is_number(value) for value in values):
            values.sort(key=float)
        return cls(name, tuple(values), canonical(start), **rest)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Axis:
        """Rebuild an axis from plain data; raises `InputError`, or what a wrong shape raises, for anything else."""
        axis = cls(**{**plain, "values": tuple(canonical(value) for value in plain["values"])})
        checked.text("a coordinate's name", axis.name, empty=False)
        checked.switch(f"whether {axis.name} is whole", axis.whole)
        if axis.extend not in EXTENSIONS:
            raise InputError(f"{axis.name} has an unknown extension {checked.shown(axis.extend)}")
        kinds = {is_number(value) for value in (*axis.values, axis.start)}
        if len(kinds) != 1 or not 1 <= len(axis.values) <= LARGEST_GRID or axis.start not in axis.values:
            raise InputError(f"the grid of {axis.name} must hold its start and up to {LARGEST_GRID} values of one kind")
        for number in (*axis.values, axis.low, axis.high):
            if number is not None and is_number(number) != axis.numeric:
                raise InputError(f"{axis.name} cannot have the bound {checked.shown(number)}")
            if is_number(number) and not checked.is_usual(number):
                raise InputError(f"{axis.name} cannot stand at {checked.shown(number)}, which is beyond anything tuned")
        return axis

    @property
    def pinned(self) -> bool:
        """Whether there is nothing to vary."""
        return len(self.values) == 1

    @property
    def numeric(self) -> bool:
        """Whether the values have an order, and therefore edges."""
        return is_number(self.values[0])

    @cached_property
    def above(self) -> tuple[Value, ...]:
        """The values beyond the upper edge, nearest first."""
        return self._beyond(self.values[-1], self.values[-2]) if len(self.values) > 1 else ()

    @cached_property
    def below(self) -> tuple[Value, ...]:
        """The values beyond the lower edge, nearest first."""
        return self._beyond(self.values[0], self.values[1]) if len(self.values) > 1 else ()

    @cached_property
    def order(self) -> tuple[Value, ...]:
        """Every value that the coordinate can ever take, extensions at both ends included, in order."""
        return (*reversed(self.below), *self.values, *self.above)

    def neighbours(self, value: Value) -> tuple[Value, ...]:
        """The values next to ``value``, beyond an edge of the grid too; of a word, every other."""
        line = self.line(value)
        if not self.numeric:
            return line
        place = self.order.index(value) if value in self.order else -2
        next_to = (*self.order[max(place - 1, 0) : max(place, 0)], *self.order[place + 1 : place + 2])
        return tuple(each for each in next_to if each in line)

    def line(self, value: Value) -> tuple[Value, ...]:
        """Every other value to be tried while the coordinate stands at ``value``.

        That is the grid, what extensions lead up to ``value``, and one more extension when ``value`` is the edge.
        """
        if self.pinned:
            return ()
        lower, upper = (_reached(chain, value) for chain in self._ends)
        return tuple(each for each in (*reversed(lower), *self.values, *upper) if each != value)

    def edge(self, value: Value) -> str:
        """How ``value`` stands to the ends of the grid.

        ``""``: inside, pinned, off, or on a bound. ``"extended"``: on an edge whose extension is on the `line`.
        ``"limit"``: on an edge after `MAX_EXTENSIONS` values. ``"closed"``: on an edge that may not be extended.
        """
        if self.pinned or not self.numeric or value in (self.off, self.low, self.high):
            return ""
        for chain in self._ends:
            if value in chain[:-1]:
                return "extended"
            if value == chain[-1] and self.extend == "none":
                return "closed"
            if value == chain[-1] and len(chain) > MAX_EXTENSIONS:
                return "limit"
        return ""

    def extension(self, value: Value) -> Value | None:
        """The one value beyond the edge at which ``value`` stands, if there is one."""
        for chain in self._ends:
            if value in chain[:-1]:
                return chain[chain.index(value) + 1]
        return None

    def read(self, given: Value) -> Value:
        """The value that a user gave, as a number, word or switch of this axis.

        Raises `InputError` when it is of another kind or out of bounds.
        """
        if not self.numeric:
            return _read_word(self.name, given, self.values)
        value = read_number(self.name, given, self.start)
        if self.whole and not isinstance(value, int):
            raise InputError(f"{self.name} must be a whole number, not {given}; try {self.name}={self.start}")
        number = float(value)
        if (self.low is not None and number < self.low) or (self.high is not None and number > self.high):
            raise InputError(f"{self.name} must lie between {_text(self.low)} and {_text(self.high)}, not {given}")
        return value

    def regrid(self, grid: Sequence[Value]) -> Axis:
        """The axis over another grid; it starts at the old start, or at the new value nearest to it."""
        values = list(dict.fromkeys(self.read(value) for value in grid))
        if not values:
            raise InputError(f"the grid of {self.name} is empty; give at least one value, such as {self.start}")
        if len(values) > LARGEST_GRID:
            raise InputError(f"the grid of {self.name} holds {len(values)} values; give up to {LARGEST_GRID}")
        start = self.start if self.start in values else values[0]
        if start != self.start and self.numeric:
            start = min(values, key=lambda value: abs(self._scale(value) - self._scale(self.start)))
        return self.over(values, start)

    def over(self, grid: Sequence[Value], start: Value) -> Axis:
        """The same coordinate over ``grid`` and ``start``."""
        kept = {key: value for key, value in asdict(self).items() if key not in ("name", "values", "start")}
        return Axis.of(self.name, grid, start, **kept)

    @property
    def _ends(self) -> tuple[tuple[Value, ...], ...]:
        """Both edges of the grid, each followed by what lies beyond it."""
        return (self.values[0], *self.below), (self.values[-1], *self.above)

    def _scale(self, value: Value) -> float:
        """Where a number lies on the scale in which the grid is even; zero lies far below every other value."""
        number = 1 - float(value) if self.extend == "complement" else float(value)
        return math.log(max(number, 1e-300))  # 0 has no logarithm: it is farther than anything

    def _beyond(self, edge: Value, inner: Value) -> tuple[Value, ...]:
        if not self.numeric or self.extend == "none" or edge == self.off:
            return ()
        # The numbers that are stepped: value, or 1 - value. Bounds, whole numbers and rounding act on values, so the
        # next step starts from the value that was really added, and a grid goes on as if it had been declared longer.
        up = float(edge) > float(inner)
        complement = self.extend == "complement"
        here, before = (1 - float(edge), 1 - float(inner)) if complement else (float(edge), float(inner))
        if here <= 0:
            return ()
        grows = up != complement
        ratio = here / before if before > 0 else (_PLAIN_RATIO if grows else 1 / _PLAIN_RATIO)
        found: list[Value] = []
        last = edge
        while len(found) < MAX_EXTENSIONS:
            here *= ratio
            following = self._tidy(1 - float(f"{here:.6g}") if complement else here)
            if (float(following) > float(last)) != up or following == last:
                break  # a bound was reached
            found.append(following)
            last = following
            here = 1 - float(last) if complement else float(last)
        return tuple(found)

    def _tidy(self, number: float) -> Value:
        """Within the bounds, whole where the axis is whole, and free of digits that arithmetic left behind."""
        if self.low is not None:
            number = max(number, self.low)
        if self.high is not None:
            number = min(number, self.high)
        return math.floor(number + 0.5) if self.whole else canonical(float(f"{number:.6g}"))


def _reached(chain: tuple[Value, ...], value: Value) -> tuple[Value, ...]:
    """What lies beyond the edge that starts ``chain``, up to one step after ``value``; nothing if it is inside."""
    return chain[1 : chain.index(value) + 2] if value in chain else ()


def read_number(name: str, given: Value, example: Value) -> Value:
    """A finite number from a number or its text; raises `InputError` with an example otherwise."""
    try:
        if isinstance(given, bool):
            raise ValueError
        return canonical(given if isinstance(given, int) else float(given))
    except (ValueError, OverflowError):
        raise InputError(f"{name} must be a finite number, not {given!r}; try {name}={_text(example)}") from None


def read_switch(name: str, given: Value) -> bool:
    """True or false from a switch or its text; raises `InputError` otherwise."""
    text = str(given).lower()
    if text not in ("true", "false"):
        raise InputError(f"{name} must be true or false, not {given!r}")
    return text == "true"


def _read_word(name: str, given: Value, known: tuple[Value, ...]) -> Value:
    by_text = {str(value).lower(): value for value in known}
    if str(given).lower() not in by_text:
        raise InputError(f"{name} cannot be {given!r}; {nearest(str(given), by_text)}")
    return by_text[str(given).lower()]


def _text(value: Value | None) -> str:
    return "any value" if value is None else f"{value:g}" if is_number(value) else str(value)
