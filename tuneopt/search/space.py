"""Search spaces: as one optimizer declares it for every ladder, and as a sweep walks it on one.

A module of `search_spaces` is a table built from the names here and from nothing else: coordinates, fixed
hyperparameters and published tuned points, bound to ``SPACE``. `SearchSpace.on` turns it into a `LadderSpace`, the form
that a sweep works with, and checks what a user overrides. `load_space` finds spaces: built in, of an installed package,
or in a file. Nothing here imports numpy, torch or ray, so that listing a space is instant.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from tuneopt import outside
from tuneopt.constants import SCHEDULES
from tuneopt.paths import expanded
from tuneopt.search.axis import Axis, is_number, read_number, read_switch
from tuneopt.search.coordinate import (
    APPLY_SWITCHES,
    DECAY_FOLLOWS_LR,
    EPSILON_HIGH,
    FALLBACK_SWITCHES,
    ORTHOGONAL_SWITCHES,
    STUDY,
    STUDY_TABLES,
    Coordinate,
    FurtherRun,
    Switch,
    TunedPoint,
    Values,
    average,
    beta1,
    beta2,
    block_size,
    changed,
    epsilon,
    frobenius_epsilon,
    further,
    learning_rate,
    max_grad_norm,
    momentum,
    rate_share,
    train_batch_size,
    tuned,
    warmup,
    weight_decay,
)
from tuneopt.spec import Config as Config
from tuneopt.spec import InputError, TrialSpec, Value, canonical, nearest

__all__ = [
    "APPLY_SWITCHES",
    "COMPLETE",
    "DECAY_FOLLOWS_LR",
    "EPSILON_HIGH",
    "FALLBACK_SWITCHES",
    "GROUP",
    "ORTHOGONAL_SWITCHES",
    "STUDY",
    "STUDY_TABLES",
    "Config",
    "Coordinate",
    "FurtherRun",
    "LadderSpace",
    "SearchSpace",
    "Switch",
    "TunedPoint",
    "Values",
    "average",
    "beta1",
    "beta2",
    "block_size",
    "changed",
    "epsilon",
    "frobenius_epsilon",
    "further",
    "learning_rate",
    "load_space",
    "max_grad_norm",
    "momentum",
    "rate_share",
    "space_names",
    "train_batch_size",
    "tuned",
    "warmup",
    "weight_decay",
]

GROUP = "tuneopt.search_spaces"
"""The entry points by which an installed package offers search spaces: optimizer name -> module or `SearchSpace`."""

COMPLETE = ("learning_rate", "train_batch_size", "warmup", "min_lr_ratio", "lr_schedule")
"""What every configuration names, as a coordinate or fixed, because every training run needs it."""


DECAY = "decay"
"""The share of the steps over which ``linear`` falls; ``cosine`` has no use for it."""


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
    def varied(self) -> tuple[Axis, ...]:
        """The axes that a sweep varies: those that are not pinned to one value."""
        return tuple(axis for axis in self.axes if not axis.pinned)

    @cached_property
    def _place(self) -> Mapping[str, int]:
        # Every configuration of the space has the same names in the same order, so a value is found by its place.
        return {name: place for place, (name, _) in enumerate(self.start)}

    def value(self, config: Config, name: str) -> Value:
        """The value of one hyperparameter of ``config``."""
        return config[self._place[name]][1]

    def change(self, config: Config, name: str, value: Value) -> Config:
        """``config`` with one value replaced."""
        place = self._place[name]
        return (*config[:place], (name, value), *config[place + 1 :])

    def star(self, config: Config) -> tuple[tuple[str, Value, Config], ...]:
        """Every one-coordinate change of ``config``, as (coordinate, value, configuration).

        Coordinates stand in declared order and values ascending: of equal losses a descent takes the first.
        """
        return tuple(
            (axis.name, value, self.change(config, axis.name, value))
            for axis in self.axes
            for value in axis.line(self.value(config, axis.name))
        )

    def begin_at(self, values: Mapping[str, Value]) -> LadderSpace:
        """The same space with another start; a value that the grid lacks joins it.

        Raises `InputError` for an unknown coordinate or a value out of bounds.
        """
        unknown = [name for name in values if name not in self.by_name]
        if unknown:
            hint = nearest(unknown[0], self.by_name)
            raise InputError(f"unknown coordinate {unknown[0]!r} of {self.optimizer}; {hint}")
        axes = []
        for axis in self.axes:
            if axis.name in values:  # a pinned axis stays pinned, at the new value
                start = axis.read(values[axis.name])
                axis = axis.over((start,) if axis.pinned else axis.values, start)
            axes.append(axis)
        return replace(self, axes=tuple(axes))

    def restart(self, values: Mapping[str, Value]) -> LadderSpace:
        """As `begin_at`, of the varied coordinates alone: what is pinned stays, and other names are passed over."""
        return self.begin_at({axis.name: values[axis.name] for axis in self.varied if axis.name in values})

    def pin(self, values: Mapping[str, Value]) -> LadderSpace:
        """The same space with some coordinates pinned to one value each; names it lacks are passed over."""
        axes = (
            axis.over((values[axis.name],), values[axis.name]) if axis.name in values else axis for axis in self.axes
        )
        return replace(self, axes=tuple(axes))

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
            starts = {axis.name: axis.start for axis in axes} | dict(fixed)
            for need in ("train_batch_size", "warmup"):
                if not is_number(starts.get(need)):
                    raise InputError(f"a search space needs a number for {need}")
            return cls(plain["optimizer"], plain["ladder"], axes, fixed)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"not a search space on a ladder: {error}") from None


@dataclass(frozen=True)
class SearchSpace:
    """The declared search space of one optimizer on every ladder.

    ``fixed`` completes the configuration, by ladder. ``source`` names where the published figures come from (tuned
    points in ``published``, runs at predicted hyperparameters in ``further``),
    ``grid_source`` how the nano grid and start were chosen (``found`` is its older name, which files of users may still
    have). Raises `InputError` for a table that contradicts itself.
    """

    optimizer: str
    coordinates: tuple[Coordinate, ...]
    fixed: Mapping[str, Values]
    source: str
    grid_source: str = ""
    published: tuple[TunedPoint, ...] = ()
    further: tuple[FurtherRun, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fixed words -> the words that they may be pinned to, their own included."""
    switches: tuple[Switch, ...] = ()
    """What else an override may turn on; configurations do not name what is off."""
    found: InitVar[str] = ""

    def __post_init__(self, found: str) -> None:
        object.__setattr__(self, "grid_source", self.grid_source or found)
        # A table that contradicts itself fails when it is read, not in the middle of a sweep.
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
        starts: Mapping[str, Value] | None = None,
    ) -> LadderSpace:
        """The space on one ladder.

        ``overrides`` pins coordinates, or changes fixed numbers and switches, and the schedule, whatever the table
        declares; ``grids`` replaces grids; ``starts`` says where a sweep begins, as `LadderSpace.begin_at` takes it.
        Values may be text, as a command line gives them. Raises `InputError` for an unknown name, a value of another
        kind or out of bounds, and a coordinate that is pinned and given a grid or a start as well.
        """
        overrides, grids, starts = overrides or {}, grids or {}, starts or {}
        if ladder not in self.fixed:
            raise InputError(f"{self.optimizer} has no search space for {ladder!r}; {nearest(ladder, self.fixed)}")
        axes = {each.name: each.axis(ladder) for each in self.coordinates if ladder in each.grids}
        fixed = dict(self.fixed[ladder])
        schedule = overrides.get("lr_schedule", fixed.get("lr_schedule"))
        if schedule == "linear" and DECAY not in axes:
            fixed |= {DECAY: 1.0} if DECAY in overrides else {}
        switches = {switch.name: switch for switch in self.switches if switch.name not in (*axes, *fixed)}
        known = (*axes, *fixed, *switches)
        if schedule == "cosine" and DECAY in (*overrides, *grids, *starts):
            raise InputError("a cosine has no decay phase; leave out decay, or set lr_schedule=linear")
        for name in (*overrides, *grids):
            if name not in known:
                raise InputError(f"unknown hyperparameter {name!r} of {self.optimizer}; {nearest(name, known)}")
            if name in overrides and name in grids:
                raise InputError(f"{name} is both pinned to a value and given a grid; choose one of them")
        # Grids before pins: each reads the user's values against the declared bounds, and names were checked above.
        for name, grid in grids.items():
            if name not in axes:
                raise InputError(f"{name} is fixed for {self.optimizer} and takes no grid; pin it to a value instead")
            axes[name] = axes[name].regrid(grid.split(",") if isinstance(grid, str) else grid)
        for name in starts:  # a grid of one value pins as well
            if name in overrides or (name in grids and axes[name].pinned):
                raise InputError(f"{name} is both pinned to a value and given a start; choose one of them")
        for name, value in overrides.items():
            if name in axes:
                axes[name] = axes[name].regrid((value,))
            elif name in switches:
                fixed |= {name: on} if (on := switches[name].read(value)) != switches[name].off else {}
            else:
                fixed[name] = self._read_fixed(name, value, fixed[name])
        if overrides.get("lr_schedule") == "cosine" and DECAY in axes:
            axes[DECAY] = axes[DECAY].regrid((axes[DECAY].start,))  # it does nothing now: no trial is spent on it
        return LadderSpace(self.optimizer, ladder, tuple(axes.values()), TrialSpec.freeze(fixed)).begin_at(starts)

    def switched(self, optimizer: str, on: Values, *others: Coordinate, source: str, grid_source: str) -> SearchSpace:
        """The space of an optimizer that is this one with switches ``on``, with ``others`` among its coordinates."""
        fixed = {ladder: {**own, **on} for ladder, own in self.fixed.items()}
        space = replace(self, coordinates=changed(self.coordinates, *others), fixed=fixed, published=(), further=())
        return replace(space, optimizer=optimizer, source=source, grid_source=grid_source)

    def _read_fixed(self, name: str, given: Value, declared: Value) -> Value:
        """A fixed hyperparameter that a user gave: numbers and switches may change, words only among the options."""
        for switch in self.switches:
            if switch.name == name and switch.read(given) == switch.off:
                raise InputError(f"{self.optimizer} is named after its switch {name}; leave it on")
        if isinstance(declared, bool):
            return read_switch(name, given)
        if is_number(declared):
            value = read_number(name, given, declared)
            if float(value) < 0:
                raise InputError(f"{name} must not be negative, not {given}; try {name}={declared}")
            if name in (DECAY, "min_lr_ratio") and float(value) > 1:
                raise InputError(f"{name} is a fraction and must not be above 1, not {given}; try {name}={declared}")
            return value
        words = {**{each.name: each.words for each in self.switches}, "lr_schedule": SCHEDULES, **self.options}
        if words.get(name):
            if given not in words[name]:
                raise InputError(f"{name} cannot be {given!r}; {nearest(str(given), words[name])}")
            return given
        if str(given) != declared:
            raise InputError(
                f"{name} of {self.optimizer} is {declared!r}; write a search space of your own to change it"
            )
        return declared

    def describe(self) -> dict[str, Any]:
        """The space as plain data for people and JSON; grid, start and bounds are keyed by ladder."""
        return {
            "optimizer": self.optimizer,
            "source": self.source,
            "found": self.grid_source,
            "coordinates": [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "unit": each.unit,
                    "meaning": each.meaning,
                    "grid": {ladder: [canonical(value) for value in grid] for ladder, grid in each.grids.items()},
                    "start": {ladder: canonical(value) for ladder, value in each.starts.items()},
                    "bounds": {ladder: list(each.bounds(ladder)) for ladder in each.grids},
                    "extend": each.extend,
                    "off": each.off,
                }
                for each in self.coordinates
            ],
            "fixed": {ladder: dict(fixed) for ladder, fixed in self.fixed.items()},
            **({"options": {name: list(words) for name, words in self.options.items()}} if self.options else {}),
            **({"switches": {each.name: each.meaning for each in self.switches}} if self.switches else {}),
            "published": [asdict(each) for each in self.published],
        }


def space_names() -> tuple[str, ...]:
    """The built-in optimizers that have a search space here, sorted."""
    package = importlib.import_module("search_spaces")
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_"))


def load_space(name_or_path: str) -> SearchSpace:
    """The search space of an optimizer, built in or of an installed package, or the ``SPACE`` of a Python file.

    Raises `InputError` for an unknown name (naming the nearest), a name that several packages claim, a file that is
    missing, a file or package that cannot be run, and a module without a `SearchSpace` called ``SPACE``.
    """
    if name_or_path.endswith(".py") or "/" in name_or_path:
        path = expanded(name_or_path)
        return _space_of(outside.run_source(outside.read_source(path, "search space"), str(path), "search space"), path)
    # A package may not quietly replace a built-in space: a name that both have is refused by `claimed`.
    names = space_names()
    point = outside.claimed(GROUP, name_or_path, "search space", name_or_path in names)
    if point is not None:
        space = _space_of(outside.load(point, "search space"), f"{point.value} of {outside.origin(point)}")
        if space.optimizer != name_or_path:
            raise InputError(
                f"the search space {name_or_path!r} of {outside.origin(point)} is one for {space.optimizer!r}; "
                "give both the same name"
            )
        return space
    if name_or_path not in names:
        hint = nearest(name_or_path, (*names, *outside.installed(GROUP)))
        raise InputError(f"unknown optimizer {name_or_path!r}; {hint}")
    return _space_of(importlib.import_module(f"search_spaces.{name_or_path}"), name_or_path)


def _space_of(source: Any, shown: object) -> SearchSpace:
    space = source if isinstance(source, SearchSpace) else getattr(source, "SPACE", None)
    if not isinstance(space, SearchSpace):
        raise InputError(f"{shown} defines no search space; bind a SearchSpace to the name SPACE")
    return space
