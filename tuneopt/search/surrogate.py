"""Loss surfaces made from a star: cheap stand-ins for training, on which search policies are compared.

A star says what each single change costs and nothing of how changes combine. Two answers bound the truth: nothing but
the sum (`AdditiveSurrogate`), and a rotated valley with the same lowest point (`PairwiseSurrogate`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuneopt.search.axis import is_number
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

    @classmethod
    def from_star(cls, star: Mapping[str, Any], noise: float = 0.0) -> AdditiveSurrogate:
        """The surface around a star of ``incumbent``, ``incumbent_loss`` and ``changes`` (name, value, loss)."""
        base = float(star["incumbent_loss"])
        effects: dict[str, dict[Value, float | None]] = {}
        for name, value, loss in star["changes"]:
            effect = effects.setdefault(name, {canonical(star["incumbent"][name]): 0.0})
            effect.setdefault(canonical(value), None if loss is None or loss > DIVERGED else loss - base)
        return cls(base, effects, noise)

    @cached_property
    def lowest(self) -> float:
        """The loss of the lowest point, without noise."""
        gains = [min(each for each in effect.values() if each is not None) for effect in self.effects.values()]
        return self.base + sum(gains)

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
        return None if true is None else true - self.lowest


COUPLING = 0.75
"""How strongly a pairwise surface couples its coordinates, from 0 (additive) to below 1 (a valley without a bottom)."""


@dataclass(frozen=True)
class PairwiseSurrogate:
    """An additive surface whose coordinates interact in pairs, its lowest point and the slices through it unchanged.

    With x the signed root of each coordinate's excess over its best value (negative below it, positive above), the
    loss is the lowest loss + x'Mx: M has ones on its diagonal and random off-diagonal entries whose absolute sum in a
    row is at most ``coupling`` < 1. M is positive definite, so the lowest point stays, known exactly, while away from
    it the best value of one coordinate moves with the others: a rotated valley.
    """

    additive: AdditiveSurrogate
    seed: int = 0
    coupling: float = COUPLING

    @cached_property
    def _pairs(self) -> tuple[tuple[str, str, float], ...]:
        """The off-diagonal entries of M, one for each pair of coordinates."""
        order = random.Random(self.seed)
        names = sorted(self.additive.effects)
        draws = {(one, other): order.uniform(-1, 1) for place, one in enumerate(names) for other in names[:place]}
        row = max((sum(abs(draw) for pair, draw in draws.items() if name in pair) for name in names), default=1.0)
        scale = self.coupling / row if row else 0.0
        return tuple((*pair, scale * draw) for pair, draw in draws.items())

    @cached_property
    def _roots(self) -> Mapping[str, Mapping[Value, float | None]]:
        """By coordinate, the signed root of each value's excess over the best one; words count as above it."""
        found = {}
        for name, effect in self.additive.effects.items():
            known = {value: each for value, each in effect.items() if each is not None}
            best = min(known, key=lambda value: known[value])
            roots: dict[Value, float | None] = {}
            for value, each in effect.items():
                below = is_number(value) and is_number(best) and float(value) < float(best)
                roots[value] = None if each is None else (-1 if below else 1) * math.sqrt(each - known[best])
            found[name] = roots
        return found

    def regret(self, config: Mapping[str, Value]) -> float | None:
        """How far ``config`` lies above the lowest point of the surface, in nats; None where it diverges."""
        roots = {name: root.get(config[name]) for name, root in self._roots.items()}
        known = {name: root for name, root in roots.items() if root is not None}
        if len(known) < len(roots):
            return None
        squares = sum(root * root for root in known.values())
        return squares + 2 * sum(weight * known[one] * known[other] for one, other, weight in self._pairs)

    def true_loss(self, config: Mapping[str, Value]) -> float | None:
        """The loss without noise, None where the configuration diverges."""
        regret = self.regret(config)
        return None if regret is None else self.additive.lowest + regret
