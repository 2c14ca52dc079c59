"""A loss surface made from a star: cheap stand-in for training, on which search policies are compared."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneopt.spec import TrialSpec, Value, canonical

DIVERGED = 6.0
"""Nats per token from which a tabled run counts as diverged; a converged one is far below on any corpus here."""


@dataclass(frozen=True)
class AdditiveSurrogate:
    """Loss of a configuration = base + the sum of what each coordinate's value alone changes, in nats per token.

    ``effects`` holds that change by coordinate and value, None where the value diverges. A value that the table lacks
    diverges too: nothing is known of it. ``noise`` is the standard deviation over seeds; it is a function of the trial,
    so that a rerun of the same trial repeats its loss.
    """

    base: float
    effects: Mapping[str, Mapping[Value, float | None]]
    noise: float = 0.0
    _lowest: float = field(init=False, repr=False, compare=False, default=0.0)

    def __post_init__(self) -> None:
        gains = [min(each for each in effect.values() if each is not None) for effect in self.effects.values()]
        object.__setattr__(self, "_lowest", self.base + sum(gains))

    @classmethod
    def from_star(cls, star: Mapping[str, Any], noise: float = 0.0) -> AdditiveSurrogate:
        """The surface around a star of ``incumbent``, ``incumbent_loss`` and ``changes`` (name, value, loss)."""
        base = float(star["incumbent_loss"])
        effects: dict[str, dict[Value, float | None]] = {}
        for name, value, loss in star["changes"]:
            effect = effects.setdefault(name, {canonical(star["incumbent"][name]): 0.0})
            effect.setdefault(canonical(value), None if loss is None or loss > DIVERGED else loss - base)
        return cls(base, effects, noise)

    def true_loss(self, config: Mapping[str, Value]) -> float | None:
        """The loss without noise, None where the configuration diverges."""
        changes = [effect.get(config[name]) for name, effect in self.effects.items()]
        known = [change for change in changes if change is not None]
        return self.base + sum(known) if len(known) == len(changes) else None

    def loss(self, spec: TrialSpec) -> float | None:
        """The loss that a trial ends with, its seed's noise included; None where it diverges."""
        true = self.true_loss(spec.config)
        return None if true is None else true + self.noise * random.Random(spec.id).gauss(0.0, 1.0)

    def regret(self, config: Mapping[str, Value]) -> float | None:
        """How far ``config`` lies above the lowest point of the surface, in nats; None where it diverges."""
        true = self.true_loss(config)
        return None if true is None else true - self._lowest
