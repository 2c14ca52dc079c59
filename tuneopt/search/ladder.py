"""A search space on one ladder: what a sweep varies, what it holds, and where it starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from tuneopt.search.axis import Axis, is_number
from tuneopt.spec import InputError, TrialSpec, Value, nearest

Config = tuple[tuple[str, Value], ...]
"""A complete configuration: every coordinate and every fixed hyperparameter, as `TrialSpec.freeze` orders them."""


@dataclass(frozen=True)
class LadderSpace:
    """The axes of one optimizer on one ladder, in declared order, and its fixed hyperparameters.

    The declared order breaks ties and orders a star; nothing else depends on it.
    """

    optimizer: str
    ladder: str
    axes: tuple[Axis, ...]
    fixed: Config

    @cached_property
    def start(self) -> Config:
        """The configuration that a sweep starts from."""
        return TrialSpec.freeze({axis.name: axis.start for axis in self.axes} | dict(self.fixed))

    @cached_property
    def by_name(self) -> Mapping[str, Axis]:
        """The axes by coordinate."""
        return {axis.name: axis for axis in self.axes}

    @cached_property
    def _place(self) -> Mapping[str, int]:
        return {name: place for place, (name, _) in enumerate(self.start)}

    def value(self, config: Config, name: str) -> Value:
        """The value of one hyperparameter of ``config``."""
        return config[self._place[name]][1]

    def change(self, config: Config, name: str, value: Value) -> Config:
        """``config`` with one value replaced."""
        place = self._place[name]
        return (*config[:place], (name, value), *config[place + 1 :])

    def line(self, config: Config, axis: Axis) -> tuple[tuple[str, Value, Config], ...]:
        """Every change of one coordinate of ``config``, as (coordinate, value, configuration)."""
        values = axis.line(self.value(config, axis.name))
        return tuple((axis.name, value, self.change(config, axis.name, value)) for value in values)

    def star(self, config: Config) -> tuple[tuple[str, Value, Config], ...]:
        """Every one-coordinate change of ``config``, coordinates in declared order, values ascending."""
        return tuple(change for axis in self.axes for change in self.line(config, axis))

    def begin_at(self, values: Mapping[str, Value]) -> LadderSpace:
        """The same space with another start; a value that the grid lacks joins it.

        Raises `InputError` for an unknown coordinate or a value out of bounds.
        """
        unknown = [name for name in values if name not in self.by_name]
        if unknown:
            hint = nearest(unknown[0], self.by_name)
            raise InputError(f"unknown coordinate {unknown[0]!r} of {self.optimizer}; {hint}")
        return replace(self, axes=tuple(_begin(axis, values) for axis in self.axes))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is its inverse."""
        return {
            "optimizer": self.optimizer,
            "ladder": self.ladder,
            "axes": [{key: value for key, value in asdict(axis).items() if value is not None} for axis in self.axes],
            "fixed": dict(self.fixed),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> LadderSpace:
        """Rebuild a ladder space; raises `InputError` for anything that is not one."""
        try:
            axes = tuple(Axis.from_dict(axis) for axis in plain["axes"])
            fixed = TrialSpec.freeze(plain["fixed"])
            names = [*(axis.name for axis in axes), *dict(fixed)]
            if len(set(names)) < len(names):
                raise InputError("a search space names a coordinate twice")
            for need in ("train_batch_size", "warmup"):
                if not any(need == name and is_number(value) for name, value in (*fixed, *_starts(axes))):
                    raise InputError(f"a search space needs a number for {need}")
            return cls(plain["optimizer"], plain["ladder"], axes, fixed)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"not a search space on a ladder: {error}") from None


def _starts(axes: Iterable[Axis]) -> Iterator[tuple[str, Value]]:
    return ((axis.name, axis.start) for axis in axes)


def _begin(axis: Axis, values: Mapping[str, Value]) -> Axis:
    if axis.name not in values:
        return axis
    start = axis.read(values[axis.name])
    return axis.over((start,) if axis.held else axis.values, start)
