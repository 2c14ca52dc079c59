"""Loss surfaces to simulate a study on: additive around each regime's tuned point, from published figures.

Where a table of stars is given and holds the optimizer in the regime, the effects of its values are the measured ones,
and a measured loss above 6 is a divergence. Everything else, runs that were not made included, is filled in: a value k
grid steps from the tuned one costs k squared times the usual cost of one step, `STEP_COSTS`. A regime without a tuned
point takes its values from the nearest one that has one, and its loss from a power law in parameters and ratio through
the optimizer's tuned losses. An optimizer without tuned points on a ladder has its search space's start for an optimum;
on the nano ladder its loss is AdamW's there (`NANO_LOSS`), with as many tokens more as its published speedup says.
Such surfaces show how a study behaves; they are no evidence about optimizers. A star says what each single change costs
and nothing of how changes combine: here nothing but the sum (`AdditiveSurrogate`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tuneopt.constants import NANO_LOSS, OTHER_STEP_COST, STEP_COSTS
from tuneopt.search.space import LadderSpace, TunedPoint, load_space
from tuneopt.search.study.study import Study, closeness
from tuneopt.spec import SCALES, CorpusId, InputError, Regime, TrialSpec, Value, canonical

DIVERGED = 6.0
"""Nats per token from which a tabled run counts as diverged; a converged one is far below on any corpus here."""

NO_LOSS = 3.5
"""Nats per token of a start, where no tuned point says better."""

MOST_NOISE = 1000.0
"""Nats between seeds at most, far beyond any loss; with more, sums of losses are no numbers any more."""

_CORPUS = CorpusId("any", "", 0)


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
        # A star holds changes of one coordinate each, so it says nothing of pairs: the surface adds them up.
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


class Surfaces:
    """The surface of every optimizer and regime of a study; ``evaluate`` is what a simulator asks for.

    ``stars`` holds rows of optimizer, scale, ratio, incumbent, incumbent_loss and changes [coordinate, value, loss or
    null]. ``noise`` is the standard deviation over seeds, in nats.
    Raises `InputError` for rows of another form and for noise that is none.
    """

    def __init__(self, study: Study, stars: Iterable[Mapping[str, Any]] = (), noise: float = 0.0) -> None:
        if not 0 <= noise <= MOST_NOISE:
            raise InputError(f"the noise between seeds must be between 0 and {MOST_NOISE:g} nats, not {noise:g}")
        self.study, self.noise = study, noise
        try:
            self.stars = {(row["optimizer"], row["scale"], float(row["ratio"])): row for row in stars}
            for row in self.stars.values():
                AdditiveSurrogate.from_star(row)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"not a table of stars ({error}); each row needs optimizer, scale, ratio, incumbent, incumbent_loss "
                "and changes"
            ) from None
        self._made: dict[tuple[str, str, float], AdditiveSurrogate] = {}

    def evaluate(self, spec: TrialSpec) -> float | None:
        """The loss that a trial ends with, its seed's noise included; None where it diverges."""
        return self.of(spec.optimizer, spec.regime).loss(spec)

    def of(self, optimizer: str, regime: Regime) -> AdditiveSurrogate:
        """The surface of an optimizer in a regime."""
        key = _key(optimizer, regime)
        if key in self._made:
            return self._made[key]
        space, star = self.study.spaces[optimizer], self.stars.get(key)
        measured: dict[tuple[str, Value], float | None] = {}
        if star is not None:
            best = {name: canonical(value) for name, value in star["incumbent"].items()}
            base = float(star["incumbent_loss"])
            measured = {(name, canonical(value)): loss for name, value, loss in star["changes"]}
        else:
            best, base = self._tuned(optimizer, space, regime)
        effects: dict[str, dict[Value, float | None]] = {}
        for axis in space.axes:
            origin = best.get(axis.name, axis.start)
            # Every value that a search may visit, those beyond the edges too; what was measured replaces the model.
            line = tuple(dict.fromkeys((*reversed(axis.below), *axis.values, *axis.above, origin)))
            line = tuple(sorted(line, key=float)) if axis.numeric else line
            cost = STEP_COSTS.get(axis.name, OTHER_STEP_COST)
            effect = effects[axis.name] = {}
            for value in line:
                steps = abs(line.index(value) - line.index(origin)) if axis.numeric else int(value != origin)
                effect[value] = steps**2 * cost  # a bowl: the published stars rise about so
            for (name, value), loss in measured.items():
                if name == axis.name and value != origin and loss is not None:
                    effect[value] = None if loss > DIVERGED else loss - base
        self._made[key] = AdditiveSurrogate(base, effects, noise=self.noise)
        return self._made[key]

    def origin(self, optimizer: str, regime: Regime) -> str:
        """Where the surface comes from: ``star``, ``tuned point``, ``neighbour`` or ``start``."""
        key, points = _key(optimizer, regime), self._points(optimizer)
        if key in self.stars:
            return "star"
        return "tuned point" if key[1:] in points else "neighbour" if points else "start"

    def _points(self, optimizer: str) -> dict[tuple[str, float], tuple[float, Mapping[str, Value]]]:
        """The published loss and configuration by scale and ratio, on the study's ladder."""
        return {
            (point.scale, float(point.ratio)): (point.loss, point.config)
            for point in published_points(optimizer)
            if SCALES[point.scale].ladder == self.study.ladder
        }

    def _untuned(self, optimizer: str, regime: Regime) -> float:
        """The loss of a start on a ladder for which nothing is published."""
        if regime.scale.ladder != "nano":
            return NO_LOSS
        return nano_loss(regime.tokens * published_speedup(optimizer))

    def _tuned(self, optimizer: str, space: LadderSpace, regime: Regime) -> tuple[dict[str, Value], float]:
        """The best configuration of a regime and its loss: published, or of the nearest published regime."""
        points, key = self._points(optimizer), _key(optimizer, regime)[1:]
        if not points:
            return dict(space.start), self._untuned(optimizer, regime)
        if key in points:
            loss, config = points[key]
        else:  # hyperparameters of the nearest regime, the loss by a law through all: values carry over, losses do not
            places = {place: Regime(SCALES[place[0]], place[1], _CORPUS) for place in points}
            config = points[min(places, key=lambda place: closeness(places[place], regime))][1]
            loss = _law([(places[place], points[place][0]) for place in places], regime)
        return {name: canonical(value) for name, value in config.items()}, loss


def published_points(optimizer: str) -> tuple[TunedPoint, ...]:
    """The published tuned points of an optimizer; none for one from outside."""
    return () if "@" in optimizer else load_space(optimizer).published


def nano_loss(tokens: float) -> float:
    """What AdamW ends at on the nano ladder, in nats, about."""
    beta, alpha, exponent, unit = NANO_LOSS
    return float(beta + alpha * (tokens / unit) ** -exponent)


def published_speedup(optimizer: str) -> float:
    """How many times fewer tokens than AdamW an optimizer needed in the published study, at its smallest model.

    Straight lines in log D through AdamW's points, at its ratio 1; 1 where nothing is published.
    """
    places = {(point.scale, point.ratio): point.loss for point in published_points("adamw")}
    known = {(point.scale, point.ratio): point.loss for point in published_points(optimizer)}
    scale, ratio = min(places, key=lambda place: (SCALES[place[0]].parameters, place[1]))
    if (scale, ratio) not in known:
        return 1.0
    first, second = places[scale, ratio], places[scale, 2 * ratio]
    return float(2 ** ((first - known[scale, ratio]) / (first - second)))


def _key(optimizer: str, regime: Regime) -> tuple[str, str, float]:
    return optimizer, regime.scale.name, float(regime.ratio)


def _law(known: list[tuple[Regime, float]], regime: Regime) -> float:
    """The loss of a regime by a power law in parameters and ratio through the known ones; their mean below three."""
    if len(known) < 3:
        return sum(loss for _, loss in known) / len(known)

    def features(each: Regime) -> list[float]:
        return [1.0, math.log(each.scale.parameters / 1e8), math.log(each.ratio)]

    rows = np.array([features(each) for each, _ in known])
    fitted, *_ = np.linalg.lstsq(rows, np.log([loss for _, loss in known]), rcond=None)
    return float(np.exp(np.array(features(regime)) @ fitted))
