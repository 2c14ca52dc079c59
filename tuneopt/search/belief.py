"""What all trials of a search say of the star around its incumbent: how much better a change may still be.

All runs, with whatever seed, give a `Posterior` over the surface, each with the noise that the `Spread` of the regime
says. Its draws are a joint belief over the incumbent and every change around it, tried or not. The resolution is the
quantile of the gain of the *best* change: one statement about all of them at once, so that it needs no correction for
their number.

Where a further run tells most is worked out from the same belief: of all changes and the incumbent, the one whose run
would bring the resolution down furthest (knowledge gradient with the means held, after Chick and Inoue, Operations
Research 49, 2001; the allocation between them is then that of OCBA). Units: nats per token. All of it is a pure
function of its arguments.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy.special import chdtri

from tuneopt.constants import CONFIDENCE, DIFFERENCE_95, TOLERANCE
from tuneopt.search.noise import SigmaLaw, Spread
from tuneopt.search.posterior import FAR, Posterior
from tuneopt.search.space import Config, LadderSpace
from tuneopt.search.variances import Floats
from tuneopt.spec import Value

DRAWS = 1024
"""Draws from the belief: twenty-five of them make up the part that a resolution leaves out."""

MODELS = 128
"""Sets of scales and noise among which the draws are dealt."""

DIGITS = 6
"""Decimal digits that a resolution keeps, so that the last bits of a linear algebra library decide nothing."""

SEEN = 0.1
"""The share of a star's changes that must differ from the incumbent by more than a resolution for it to see anything: a
search that cannot tell nine tenths of its changes from its incumbent is blind, whatever it was asked."""

QUESTION = 2.0
"""Standard deviations of a run, by the law over N, that a sweep is asked to see where nobody says: 0.05 nats at
nano-65k, where optimizer families lie 0.05 to 0.1 apart, at the cost of a star and about half as many seeds again
(docs/search.md); from 130 million parameters on it is the study's 0.003."""

MOST_NEEDED = 5000
"""Further runs beyond which nobody is told how many: a resolution that takes more is out of reach."""

STRIDE = 8
"""Of many runs to come, an eighth of those before them are placed together: about how many is all that is asked."""

LEAST_SHARE = 0.002
"""The share of draws in which a change must be the best one to be worth a run."""

OWN = 0.3
"""Standard deviations of a run by which a configuration may differ from what the model makes of its values: couplings
that are no products, say. Only its own runs tell that, so that what was seen in other company alone is not certain."""

CAUTION = 0.5
"""The share of a claim's chance of error that the draws may spend; the rest is left to what no draw knows."""

Runs = Mapping[Config, Mapping[int, float | None]]
"""By configuration and seed, how runs ended, in the order in which they were asked for: a loss, or None where it cannot
be compared."""


def default_resolution(parameters: float) -> float:
    """The resolution (nats) that a sweep at N = ``parameters`` is asked for where nobody says; two digits of it."""
    return float(f"{max(TOLERANCE, QUESTION * SigmaLaw().at(parameters)):.2g}")


@dataclass(frozen=True, slots=True)
class Resolution:
    """No single change of the incumbent is better by more than ``nats``, with ``confidence``.

    ``effects`` is a difference in nats that a share `SEEN` of the tried changes exceeds, 0 where none was tried.
    ``tried`` of the ``changes`` in the star ran; the others are known by what other trials say of their values.
    """

    nats: float
    confidence: float
    effects: float
    changes: int
    tried: int

    @property
    def blind(self) -> bool:
        """Whether it is larger than most effects in the star: then it says next to nothing of them."""
        return self.tried > 0 and self.nats > self.effects


class Belief:
    """The joint belief over the incumbent (first), the changes around it, and what else ran with several seeds.

    ``runs`` holds the incumbent's; ``seed`` is the one that the search itself ran with. Changes that cannot run
    (``feasible``), and those that diverged or lie beyond one that did, are left out. ``missing`` names configurations
    that were given up. The combination that the posterior holds best is looked at too where it promises more than
    ``combine`` nats. ``confidence`` is that of the resolution.
    """

    def __init__(
        self,
        space: LadderSpace,
        runs: Runs,
        incumbent: Config,
        spread: Spread,
        *,
        seed: int = 0,
        feasible: Callable[[Config], bool] = lambda config: True,
        missing: Container[Config] = frozenset(),
        combine: float = math.inf,
        confidence: float = CONFIDENCE,
    ) -> None:
        self.space, self.runs, self.incumbent, self.spread = space, runs, incumbent, spread
        self.seed, self.confidence, self.feasible = seed, confidence, feasible
        own = ((config, by_seed.get(seed)) for config, by_seed in runs.items())
        self.losses = {config: loss for config, loss in own if loss is not None}
        self._seeds = {config: sum(loss is not None for loss in ran.values()) for config, ran in runs.items()}
        self._seeds = {config: count for config, count in self._seeds.items() if count}
        if not space.varied:  # a single configuration: nothing is to be told apart
            self.star, self.configs = [], [incumbent]
            self._place = {incumbent: 0}
            self.mean, self.draws = np.array([self.measured(incumbent)]), np.full((DRAWS, 1), self.measured(incumbent))
            return
        # The posterior is told the noise by the tolerance that it would set, which has a floor at small noise.
        self.posterior = Posterior(
            space,
            {config: self.measured(config) for config in self._seeds},
            incumbent,
            max(TOLERANCE, DIFFERENCE_95 * spread.sigma),
            seeds=self._seeds,
            own=OWN * spread.sigma,
            size=DRAWS,
            models=MODELS,
        )
        diverged = _diverging(space, runs, self.losses)
        self.star = [
            config
            for name, value, config in space.star(incumbent)
            if feasible(config)
            and config not in missing
            and not diverged(name, value, config)
            and None not in runs.get(config, {}).values()
        ]
        replicated = [config for config, count in self._seeds.items() if count > 1]
        self.configs = list(dict.fromkeys([incumbent, *self.star, *self._combination(combine), *replicated]))
        self._place = {config: place for place, config in enumerate(self.configs)}
        self.mean, self.draws = self._surface()

    def _combination(self, least: float) -> list[Config]:
        """The combination of known values that the posterior expects to be lowest, where it promises so much."""
        posterior, space = self.posterior, self.space
        # A value that a run on its own shows to be worse than noise explains is no part of it, whatever the model says.
        bar = self.measured(self.incumbent) + DIFFERENCE_95 * self.spread.sigma
        worse = {
            (name, value)
            for name, value, config in space.star(self.incumbent)
            if config in self.losses and self.measured(config) > bar
        }
        held = [{space.value(config, axis.name) for config in self.losses} for axis in posterior.axes]
        known = [
            np.array([level in values and (axis.name, level) not in worse for level in levels])
            for axis, levels, values in zip(posterior.axes, posterior.levels, held, strict=True)
        ]
        place = posterior.lowest(posterior.mean[None], known, posterior.middle)
        config = posterior.config(place[0])
        rows = posterior.rows(np.stack([posterior.middle, place[0]]))
        gain = float((rows[0] - rows[1]) @ posterior.mean)
        fit = self.feasible(config) and None not in self.runs.get(config, {}).values()
        return [config] if fit and gain > least else []

    def _surface(self) -> tuple[Floats, Floats]:
        """Mean (configs,) and draws (draws, configs) of the losses that all runs leave possible.

        The draws are the posterior's own, a mixture over the scales that coordinates may have: a coordinate that looks
        flat is most likely flat and may hold a jump, which no normal distribution of the same width says. Where the
        posterior misses a configuration by more than two runs differ, the surface is not what it takes it for: far up a
        steep slope, say. Such a configuration is known by its own runs alone.
        """
        rows = self.posterior.rows(self.posterior.places(self.configs))
        lowest = min(map(self.measured, self._seeds))
        mean = rows @ self.posterior.mean + lowest
        draws = self.posterior.draws @ rows.T + lowest
        normal = np.random.default_rng(DRAWS).standard_normal(draws.shape)  # the same at every replay
        seeds = np.array([self._seeds.get(config, 0) for config in self.configs])
        ran = seeds > 0
        told = np.array([self.measured(config) if config in self._seeds else math.nan for config in self.configs])
        # Where nothing ran, the model's own word: it is then told nothing by itself.
        told, noise = np.where(ran, told, mean), self.spread.sigma**2 / np.maximum(seeds, 1)
        # What its values do not say of a configuration its own runs tell, the better the more they are.
        apart = (OWN * self.spread.sigma) ** 2
        share = np.where(ran, apart / (apart + noise + (FAR * (told - lowest)) ** 2), 0.0)
        differ = DIFFERENCE_95 * self.spread.sigma * np.sqrt((1 + 1 / np.maximum(seeds, 1)) / 2)  # a run and a mean
        missed = np.abs(np.round(mean - told, DIGITS)) > differ
        # An incumbent far below what all trials say is lucky, the lowest of many: only other seeds may say otherwise.
        others = [loss for seed, loss in self.runs[self.incumbent].items() if seed != self.seed and loss is not None]
        if missed[0] and told[0] < mean[0]:
            told[0] = math.fsum([mean[0], *others]) / (1 + len(others))
        mean += share * (told - mean)
        draws += share * (told - draws) + np.sqrt(apart * (1 - share)) * normal
        mean[missed] = told[missed]
        draws[:, missed] = (told + np.sqrt(noise) * normal)[:, missed]
        return mean, draws

    @cached_property
    def _away(self) -> Floats:
        """(configs, draws): by how much more than expected the incumbent lies above each of them in each draw."""
        return np.ascontiguousarray((self.draws[:, :1] - self.draws).T - (self.mean[0] - self.mean)[:, None])

    def loss(self, config: Config) -> float:
        """The expected loss of one of the configurations, in nats, over all seeds."""
        return float(self.mean[self._place[config]])

    @cached_property
    def resolution(self) -> Resolution:
        """What can be said of the whole star."""
        tried = [config for config in self.star if config in self.losses]
        here = self.measured(self.incumbent)
        apart = [abs(self.measured(config) - here) for config in tried]
        return Resolution(
            nats=self._bound(self._away, len(self.star)),
            confidence=self.confidence,
            effects=round(float(np.quantile(apart, 1 - SEEN)), DIGITS) if apart else 0.0,
            changes=len(self.star),
            tried=len(tried),
        )

    @cached_property
    def bound(self) -> float:
        """As the resolution, over every configuration of the belief: nothing that was looked at is better by more."""
        return self._bound(self._away, len(self.configs) - 1)

    def measured(self, config: Config) -> float:
        """The mean loss over the seeds that a configuration ran with."""
        losses = [loss for loss in self.runs[config].values() if loss is not None]
        return math.fsum(losses) / len(losses)

    def _bound(self, away: Floats, count: int, further: int = 0) -> float:
        """The quantile of how much better the best of the first ``count`` configurations after the incumbent is.

        The draws behind ``away`` take sigma for known. Few replicates tell it badly, so that the deviations follow
        Student's joint distribution, one sigma for all configurations of a draw; ``further`` runs would tell it better.
        Of the chance of error `CAUTION` is left to the draws.
        """
        if not count:
            return 0.0
        gains = _widths(self.spread.freedom + further) * away[1 : count + 1]
        gains += (self.mean[0] - self.mean[1 : count + 1])[:, None]
        # One minus half the chance of error, as a place among the draws; a partition finds it without sorting all.
        place = math.ceil((1 - CAUTION * (1 - self.confidence)) * DRAWS) - 1
        return max(0.0, round(float(np.partition(gains.max(axis=0), place)[place]), DIGITS))

    def allocate(self, count: int) -> list[Config]:
        """Where the next ``count`` runs tell most, one after another; a configuration may come several times."""
        chosen: list[Config] = []
        for config, runs, _ in self._picks():
            chosen += [config] * runs
            if len(chosen) >= count:
                break
        return chosen[:count]

    def needed(self, resolution: float) -> int | None:
        """About how many further runs bring the bound down to ``resolution``; None beyond `MOST_NEEDED`.

        As the means stand now: what the runs show may end it earlier, or show that it takes more.
        """
        if self.bound <= resolution:
            return 0
        if float(self.mean[0] - self.mean.min()) > resolution:  # what no run brings down while the means stand
            return None
        total = 0
        for _, runs, bound in self._picks():
            total += runs
            if bound <= resolution:
                return total
        return None

    def _picks(self) -> Iterator[tuple[Config, int, float]]:
        """`_pick` after `_pick`, those that were made before remembered."""
        for number in itertools.count():
            if number == len(self._picked):
                picked = next(self._picking, None)
                if picked is None:
                    return
                self._picked.append(picked)
            yield self._picked[number]

    @cached_property
    def _picked(self) -> list[tuple[Config, int, float]]:
        return []

    @cached_property
    def _picking(self) -> Iterator[tuple[Config, int, float]]:
        return self._pick()

    def _pick(self) -> Iterator[tuple[Config, int, float]]:
        """Runs one after another: where, how many there (one, or a part `STRIDE` of all before), the bound after."""
        away, covariance = self._away, np.atleast_2d(np.cov(self.draws, rowvar=False))
        count, gap = len(self.configs) - 1, self.mean[0] - self.mean
        own = (self.draws - self.mean).T  # (configs, draws)
        normal = np.random.default_rng(DRAWS + 1).standard_normal(DRAWS)
        given = 0
        while given < MOST_NEEDED:
            runs = min(max(1, given // STRIDE), MOST_NEEDED - given)
            noise = self.spread.sigma**2 / runs
            # What is never the best change of a draw cannot bring the bound down.
            best = np.bincount(1 + np.argmax(gap[1:, None] + away[1:], axis=0), minlength=count + 1)
            chosen, bound, after = 0, math.inf, away
            for place in (0, *np.flatnonzero(best > LEAST_SHARE * DRAWS)):
                # Kriging: what a run there would tell of every configuration, drawn by drawn. The candidate whose runs
                # bring the bound down furthest is taken, and all draws go on as if they had ended so.
                weight = covariance[:, place] / (covariance[place, place] + noise)
                told = away - (weight[0] - weight)[:, None] * (own[place] + math.sqrt(noise) * normal)
                now = self._bound(told, count, given + runs)
                if now < bound:
                    chosen, bound, after = int(place), now, told
            weight = covariance[:, chosen] / (covariance[chosen, chosen] + noise)
            own = own - weight[:, None] * (own[chosen] + math.sqrt(noise) * normal)
            covariance = covariance - np.outer(weight, covariance[chosen])
            away, given = after, given + runs
            normal = np.roll(normal, 1)  # the next run's noise is its own
            yield self.configs[chosen], runs, bound


def resolution(
    space: LadderSpace,
    trials: Runs,
    incumbent: Config,
    spread: Spread,
    *,
    seed: int = 0,
    feasible: Callable[[Config], bool] = lambda config: True,
    confidence: float = CONFIDENCE,
) -> Resolution:
    """How finely ``trials`` tell the incumbent from every change around it, tried or not, under the noise ``spread``.

    For every policy alike: that a star is complete makes its resolution finer, and is not asked for.
    """
    return Belief(space, trials, incumbent, spread, seed=seed, feasible=feasible, confidence=confidence).resolution


@lru_cache(maxsize=256)
def _widths(freedom: float) -> Floats:
    """(draws,) of the true sigma over the estimated one, known with ``freedom`` degrees of freedom."""
    if not math.isfinite(freedom):
        return np.ones(DRAWS)
    order = np.random.default_rng(DRAWS + 2).permutation(DRAWS)  # evenly spread, in no relation to the draws
    return np.asarray(np.sqrt(freedom / chdtri(freedom, (order + 0.5) / DRAWS)))


def _diverging(space: LadderSpace, runs: Runs, losses: Mapping[Config, float]) -> Callable[[str, Value, Config], bool]:
    """Whether a change diverged, or is to a value beyond one that did.

    A value is at fault where a run with it diverged and it alone is in no run that finished. What lies beyond it, seen
    from those that finished, is taken to diverge too: so learning rates and batches do.
    """
    finished = {axis.name: {space.value(config, axis.name) for config in losses} for axis in space.varied}
    faults: dict[str, set[Value]] = {axis.name: set() for axis in space.varied}
    for config in runs:
        if config not in losses:
            values = [(axis.name, space.value(config, axis.name)) for axis in space.varied]
            suspects = [(name, value) for name, value in values if value not in finished[name]]
            if len(suspects) == 1:
                faults[suspects[0][0]].add(suspects[0][1])

    def diverges(name: str, value: Value, config: Config) -> bool:
        if config in runs:
            return config not in losses
        axis, held = space.by_name[name], finished[name]
        if value in faults[name]:
            return True
        if not axis.numeric or value in held:
            return False
        number, fault = float(value), [float(each) for each in faults[name]]
        above = [each for each in fault if all(each > float(known) for known in held)]
        below = [each for each in fault if all(each < float(known) for known in held)]
        return any(number >= each for each in above) or any(number <= each for each in below)

    return diverges
