"""Hyperparameters of an optimizer, declared once: in the signature of its constructor.

    def __init__(self, params, lr: float = 0.016, *, momentum: DecayRate = 0.98, muon_to_adam_lr: Share = 0.2): ...

The signature gives name and default. An annotation says which values are allowed (`Bounds`, `OneOf`) and, where a value
is not meant for all param groups, where it goes (`Only`, `ScalesRate`). Checks, the settings of the groups, the words
of search spaces and the factory all follow from it. What every optimizer has (`COMMON`) needs no annotation.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, get_type_hints

from tuneopt.optim.routing import FALLBACK, MAIN
from tuneopt.spec import InputError, nearest

Settings = dict[str, Any]
"""One param group: its parameters and the complete settings of its rule."""

WORDS = {"lr": "learning_rate", "eps": "epsilon"}
"""Constructor arguments whose search-space word differs; ``betas`` holds ``beta1`` and ``beta2``."""

BETAS = ("beta1", "beta2")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a number may lie: from ``low`` (excluded when ``above``) up to ``high``, which is excluded."""

    low: float = 0.0
    high: float = math.inf
    above: bool = False
    whole: bool = False
    optional: bool = False
    """Whether None, which leaves the setting out, is allowed too."""

    def checked(self, name: str, value: Any) -> Any:
        """``value``, as an int where it must be ``whole``; raises `InputError` unless it is a finite number inside."""
        if value is None and self.optional:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        inside = number and self.low <= value < self.high and not (self.above and value == self.low)
        if not inside or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            edge = f"{'above' if self.above else 'of at least'} {self.low:g}"
            below = f" and below {self.high:g}" if math.isfinite(self.high) else ""
            raise InputError(f"{name} must be {kind} {edge}{below}, not {value!r}")
        return int(value) if self.whole else value


@dataclass(frozen=True, slots=True)
class OneOf:
    """The words that a setting may be."""

    choices: Collection[Any]

    def checked(self, name: str, value: Any) -> Any:
        """``value`` itself; raises `InputError`, with the nearest known word, for another one."""
        if value not in self.choices:
            raise InputError(f"unknown {name} {value!r}; {nearest(str(value), [str(one) for one in self.choices])}")
        return value


@dataclass(frozen=True, slots=True)
class Only:
    """The setting holds in groups of this update rule, by its name or as ``main``; in all others it is 0."""

    rule: str


@dataclass(frozen=True, slots=True)
class ScalesRate:
    """Groups of this update rule run at the learning rate times the setting."""

    rule: str


@dataclass(frozen=True, slots=True)
class Replaces:
    """Where it is not None, the setting takes the place of another one in groups of this update rule."""

    setting: str
    rule: str


DecayRate: TypeAlias = Annotated[float, Bounds(high=1.0)]
"""The weight that an exponential average gives to its past."""
Positive: TypeAlias = Annotated[float, Bounds(above=True)]
NotNegative: TypeAlias = Annotated[float, Bounds()]
Count: TypeAlias = Annotated[int, Bounds(low=1, whole=True)]
Index: TypeAlias = Annotated[int, Bounds(whole=True)]

# Switches: what any matrix rule can take, off by default (docs/optimizers.md, "Switches"). They act on groups of the
# main rule, and on no other.
Switch: TypeAlias = Annotated[bool, OneOf((False, True)), Only(MAIN)]
Matrices: TypeAlias = Annotated[str, OneOf(("hidden", "all"))]
"""Which parameters the main rule takes: hidden matrices, or embedding and head too."""
FallbackDecay: TypeAlias = Annotated[float | None, Bounds(optional=True), Replaces("weight_decay", FALLBACK)]
FallbackRate: TypeAlias = Annotated[float | None, Bounds(optional=True), Replaces("lr", FALLBACK)]

COMMON: Mapping[str, Bounds] = {
    "lr": Bounds(),
    "eps": Bounds(),
    "weight_decay": Bounds(),
    "max_grad_norm": Bounds(),
    "betas": Bounds(high=1.0),
}
"""Settings that mean the same in every optimizer that has them."""


def declared(kind: type) -> dict[str, tuple[Any, ...]]:
    """What the annotations of a class's own constructor say of each argument, beyond its type."""
    if "__init__" not in vars(kind):
        return {}
    try:
        hints = get_type_hints(vars(kind)["__init__"], include_extras=True)
    except NameError:  # a class from outside may use names that only type checkers see; it declares `bounds` instead
        return {}
    return {name: hint.__metadata__ for name, hint in hints.items() if hasattr(hint, "__metadata__")}


def settings_of(scope: Mapping[str, Any]) -> Settings:
    """The settings among a constructor's ``locals()``: each argument once, by its own name."""
    return {name: value for name, value in scope.items() if name not in ("self", "params", "rules", "__class__")}


def checked(settings: Mapping[str, Any], bounds: Mapping[str, Bounds | OneOf]) -> Settings:
    """The settings, whole numbers as int; raises `InputError` for the first one that is out of its bounds."""
    result = dict(settings)
    for name, bound in {**COMMON, **bounds}.items():
        if name == "betas" and name in result:
            result[name] = tuple(bound.checked(f"beta{i}", beta) for i, beta in enumerate(result[name], start=1))
        elif name in result:
            result[name] = bound.checked(WORDS.get(name, name), result[name])
    return result


def in_words(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments in the words of the search spaces."""
    found = {WORDS.get(key, key): value for key, value in defaults.items()}
    for position, beta in enumerate(found.pop("betas", ()), start=1):
        found[f"beta{position}"] = beta
    return found
