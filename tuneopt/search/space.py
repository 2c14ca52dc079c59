"""Declared search spaces: coordinates, fixed hyperparameters and published tuned points of one optimizer.

A module of `search_spaces` is a table built from the classes here and from nothing else. `SearchSpace.on` turns it
into a `LadderSpace`, the form that a sweep works with, and checks what a user overrides.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tuneopt.search.axis import EXTENSIONS, Axis, is_number, read_number, read_switch
from tuneopt.search.ladder import LadderSpace
from tuneopt.spec import InputError, TrialSpec, Value, canonical, nearest

KINDS = ("scale-free", "steps", "fraction", "categorical")
"""What a coordinate counts: a pure number, optimizer steps, a fraction of the steps, or a choice."""

COMPLETE = ("learning_rate", "train_batch_size", "warmup", "min_lr_ratio", "lr_schedule")
"""What every configuration names, as a coordinate or fixed, because every training run needs it."""

Values = Mapping[str, Value]
"""Hyperparameters by name."""

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
    grids: Mapping[str, tuple[Value, ...]]
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


@dataclass(frozen=True)
class SearchSpace:
    """The declared search space of one optimizer on every ladder.

    ``fixed`` completes the configuration, by ladder. ``source`` names where the published figures come from, ``found``
    how the nano grid and start were found. Raises `InputError` for a table that contradicts itself.
    """

    optimizer: str
    coordinates: tuple[Coordinate, ...]
    fixed: Mapping[str, Values]
    source: str
    found: str
    published: tuple[TunedPoint, ...] = ()

    def __post_init__(self) -> None:
        names = [coordinate.name for coordinate in self.coordinates]
        if len(set(names)) < len(names):
            raise InputError(f"the search space of {self.optimizer} names a coordinate twice; drop one of them")
        for ladder, fixed in self.fixed.items():
            known = {coordinate.name for coordinate in self.coordinates if ladder in coordinate.grids}
            both, lacking = sorted(known & set(fixed)), [name for name in COMPLETE if name not in {*known, *fixed}]
            if both or lacking:
                name, fault = (both[0], "is both fixed and searched") if both else (lacking[0], "is missing")
                raise InputError(f"in the search space of {self.optimizer} on the ladder {ladder!r}, {name} {fault}")

    @property
    def ladders(self) -> tuple[str, ...]:
        """The ladders that this space is declared for."""
        return tuple(self.fixed)

    def on(
        self,
        ladder: str,
        overrides: Values | None = None,
        grids: Mapping[str, Sequence[Value]] | None = None,
    ) -> LadderSpace:
        """The space on one ladder.

        ``overrides`` pins coordinates, or changes fixed numbers and switches; ``grids`` replaces grids. Values may be
        text, as a command line gives them. Raises `InputError` for an unknown name, a value of another kind or out of
        bounds, and a coordinate that is given both.
        """
        overrides, grids = overrides or {}, grids or {}
        if ladder not in self.fixed:
            raise InputError(f"{self.optimizer} has no search space for {ladder!r}; {nearest(ladder, self.fixed)}")
        axes = {each.name: each.axis(ladder) for each in self.coordinates if ladder in each.grids}
        fixed = dict(self.fixed[ladder])
        known = (*axes, *fixed)
        for name in (*overrides, *grids):
            if name not in known:
                raise InputError(f"unknown hyperparameter {name!r} of {self.optimizer}; {nearest(name, known)}")
            if name in overrides and name in grids:
                raise InputError(f"{name} is both pinned to a value and given a grid; choose one of them")
        for name, grid in grids.items():
            if name not in axes:
                raise InputError(f"{name} is fixed for {self.optimizer} and takes no grid; pin it to a value instead")
            axes[name] = axes[name].regrid(grid.split(",") if isinstance(grid, str) else grid)
        for name, value in overrides.items():
            if name in axes:
                axes[name] = axes[name].regrid((value,))
            else:
                fixed[name] = _read_fixed(self.optimizer, name, value, fixed[name])
        return LadderSpace(self.optimizer, ladder, tuple(axes.values()), TrialSpec.freeze(fixed))

    def describe(self) -> dict[str, Any]:
        """The space as plain data for people and JSON; grid, start and bounds are keyed by ladder."""
        return {
            "optimizer": self.optimizer,
            "source": self.source,
            "found": self.found,
            "coordinates": [_describe(coordinate) for coordinate in self.coordinates],
            "fixed": {ladder: dict(fixed) for ladder, fixed in self.fixed.items()},
            "published": [
                {"scale": each.scale, "ratio": each.ratio, "loss": each.loss, "config": dict(each.config)}
                for each in self.published
            ],
        }


def _describe(coordinate: Coordinate) -> dict[str, Any]:
    return {
        "name": coordinate.name,
        "kind": coordinate.kind,
        "unit": coordinate.unit,
        "meaning": coordinate.meaning,
        "grid": {ladder: [canonical(value) for value in grid] for ladder, grid in coordinate.grids.items()},
        "start": {ladder: canonical(value) for ladder, value in coordinate.starts.items()},
        "bounds": {ladder: list(coordinate.bounds(ladder)) for ladder in coordinate.grids},
        "extend": coordinate.extend,
        "off": coordinate.off,
    }


def _read_fixed(optimizer: str, name: str, given: Value, declared: Value) -> Value:
    if isinstance(declared, bool):
        return read_switch(name, given)
    if is_number(declared):
        value = read_number(name, given, declared)
        if float(value) < 0:
            raise InputError(f"{name} must not be negative, not {given}; try {name}={declared}")
        return value
    if str(given) != declared:
        raise InputError(f"{name} of {optimizer} is {declared!r}; write a search space of your own to change it")
    return declared


def space_names() -> tuple[str, ...]:
    """The optimizers that have a search space here, sorted."""
    package = importlib.import_module("search_spaces")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_"))


def load_space(name_or_path: str) -> SearchSpace:
    """The search space of an optimizer, or the one that a Python file defines as ``SPACE``.

    Raises `InputError` for an unknown name (naming the nearest), a file that is missing or cannot be run, and a module
    without a `SearchSpace` called ``SPACE``.
    """
    if name_or_path.endswith(".py") or "/" in name_or_path:
        module = _load_file(Path(name_or_path).expanduser())
    elif name_or_path in (names := space_names()):
        module = importlib.import_module(f"search_spaces.{name_or_path}")
    else:
        raise InputError(f"unknown optimizer {name_or_path!r}; {nearest(name_or_path, names)}")
    space = getattr(module, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise InputError(f"{name_or_path} defines no search space; bind a SearchSpace to the name SPACE")
    return space


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no search space at {path}; give a Python file that defines SPACE")
    # A private name, so that a file called json.py or adamw.py replaces no module.
    name = f"_tuneopt_space_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file; a search space is a .py file that defines SPACE")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"the search space {path} cannot be run: {reason}") from error
    return module
