"""Checks of hyperparameter values, in the words of the search spaces, and of gradients that no rule can use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tuneopt.spec import InputError

Settings = dict[str, Any]
"""One param group: its parameters and the complete settings of its rule."""

WORDS = {"lr": "learning_rate", "eps": "epsilon"}
"""Class arguments whose search-space word differs; ``betas`` holds ``beta1`` and ``beta2``."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a number may lie: from ``low`` (excluded when ``above``) up to ``high``, which is excluded."""

    low: float = 0.0
    high: float = math.inf
    above: bool = False
    whole: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise `InputError` unless ``value`` is a finite number inside."""
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        inside = number and self.low <= value < self.high and not (self.above and value == self.low)
        if not inside or (self.whole and value != int(value)):
            kind = "a whole number" if self.whole else "a number"
            edge = f"{'above' if self.above else 'of at least'} {self.low:g}"
            below = f" and below {self.high:g}" if math.isfinite(self.high) else ""
            raise InputError(f"{name} must be {kind} {edge}{below}, not {value!r}")


COMMON: Mapping[str, Bounds] = {
    "lr": Bounds(),
    "eps": Bounds(),
    "weight_decay": Bounds(),
    "max_grad_norm": Bounds(),
}

DECAY_RATE = Bounds(high=1.0)
"""The weight that an exponential average gives to its past."""


def checked(settings: Mapping[str, Any], bounds: Mapping[str, Bounds]) -> Settings:
    """The settings, whole numbers as int; raises `InputError` for the first one that is out of its bounds."""
    result = dict(settings)
    for name, bound in {**COMMON, **bounds}.items():
        if name in result:
            bound.check(WORDS.get(name, name), result[name])
            result[name] = int(result[name]) if bound.whole else result[name]
    for position, beta in enumerate(settings.get("betas", ()), start=1):
        DECAY_RATE.check(f"beta{position}", beta)
    return result


def check_gradient(name: str, gradient: Tensor) -> None:
    """Raise `InputError` for a sparse gradient, which no rule here can use."""
    if gradient.is_sparse:
        raise InputError(f"{name} has a sparse gradient; build its embedding with sparse=False")
