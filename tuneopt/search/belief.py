"""What all trials of a search say of the star around its incumbent: how much better a change may still be.

The runs with the sweep's own seed give a `Posterior` over the surface; runs with other seeds then update it, each with
the noise that the `Spread` of the regime says. What is left is a joint normal belief over the incumbent and every
change around it, tried or not. Its resolution is the quantile of the gain of the *best* change: one statement about all
of them at once, so that it needs no correction for their number.

Where a further run tells most is worked out from the same belief: of all changes and the incumbent, the one whose run
would bring the resolution down furthest (knowledge gradient with the means held, after Chick and Inoue, Operations
Research 49, 2001; the allocation between them is then that of OCBA). Units: nats per token. All of it is a pure
function of its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tuneopt.constants import CONFIDENCE, DIFFERENCE_95, TOLERANCE
from tuneopt.search.noise import SigmaLaw, Spread
from tuneopt.search.posterior import FAR, Floats, Posterior
from tuneopt.search.space import Config, LadderSpace
from tuneopt.spec import Value

DRAWS = 1024
"""Draws from the belief: fifty of them make up the twentieth that a resolution leaves out."""

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
        if not space.varied:  # a single configuration: nothing is to be told apart
            self.star, self.configs = [], [incumbent]
            self._place = {incumbent: 0}
            self.mean, self.covariance = np.array([self.measured(incumbent)]), np.zeros((1, 1))
            return
        # The posterior is told the noise by the tolerance that it would set, which has a floor at small noise.
        self.posterior = Posterior(space, self.losses, incumbent, max(TOLERANCE, DIFFERENCE_95 * spread.sigma))
        diverged = _diverging(space, runs, self.losses)
        self.star = [
            config
            for name, value, config in space.star(incumbent)
            if feasible(config)
            and config not in missing
            and not diverged(name, value, config)
            and None not in runs.get(config, {}).values()
        ]
        replicated = [config for config in self.losses if len(runs[config]) > 1]
        self.configs = list(dict.fromkeys([incumbent, *self.star, *self._combination(combine), *replicated]))
        self._place = {config: place for place, config in enumerate(self.configs)}
        self.mean, self.covariance = self._update(*self._surface())

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
        """Mean (configs,) and covariance by the posterior, from the runs with the search's own seed.

        Where the posterior misses a run by more than two runs differ, the surface is not what it takes it for: far up
        a steep slope, say. Such a configuration is known by its own run alone.
        """
        rows = self.posterior.rows(self.posterior.places(self.configs))
        mean = rows @ self.posterior.mean + min(self.losses.values())
        covariance = np.atleast_2d(np.cov(self.posterior.draws @ rows.T, rowvar=False))
        own = np.array([self.losses.get(config, math.nan) for config in self.configs])
        missed = np.abs(np.round(mean - own, DIGITS)) > DIFFERENCE_95 * self.spread.sigma  # false where it is nan
        mean[missed] = own[missed]
        covariance[missed, :] = covariance[:, missed] = 0.0
        covariance[missed, missed] = self.spread.sigma**2
        return mean, covariance

    def _update(self, mean: Floats, covariance: Floats) -> tuple[Floats, Floats]:
        """The belief after the runs with other seeds."""
        places, means, noise = [], [], []
        lowest = min(self.losses.values())
        for config, by_seed in self.runs.items():
            others = [loss for seed, loss in by_seed.items() if seed != self.seed and loss is not None]
            if config in self._place and others:
                places.append(self._place[config])
                means.append(math.fsum(others) / len(others))
                # Far from the lowest the surface is wrong by a share of the distance, which no seeds mend.
                far = FAR * (means[-1] - lowest)
                noise.append(self.spread.sigma**2 / len(others) + far**2)
        if not places:
            return mean, covariance
        across = covariance[:, places]  # (configs, replicated)
        gain = np.linalg.solve(covariance[np.ix_(places, places)] + np.diag(noise), across.T).T
        return mean + gain @ (np.array(means) - mean[places]), covariance - gain @ across.T

    @cached_property
    def draws(self) -> Floats:
        """(draws, configs): losses that the trials leave possible; they follow from the arguments alone."""
        values, vectors = np.linalg.eigh((self.covariance + self.covariance.T) / 2)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        # A symmetric root: it does not depend on the signs and the order of the eigenvectors.
        normal = np.random.default_rng(DRAWS).standard_normal((DRAWS, len(self.configs)))
        drawn: Floats = self.mean + normal @ (root @ vectors.T)
        return drawn

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
            nats=self._bound(self.draws, len(self.star)),
            confidence=self.confidence,
            effects=round(float(np.quantile(apart, 1 - SEEN)), DIGITS) if apart else 0.0,
            changes=len(self.star),
            tried=len(tried),
        )

    @cached_property
    def bound(self) -> float:
        """As the resolution, over every configuration of the belief: nothing that was looked at is better by more."""
        return self._bound(self.draws, len(self.configs) - 1)

    def measured(self, config: Config) -> float:
        """The mean loss over the seeds that a configuration ran with."""
        losses = [loss for loss in self.runs[config].values() if loss is not None]
        return math.fsum(losses) / len(losses)

    def _bound(self, draws: Floats, count: int) -> float:
        """The quantile of how much better the best of the first ``count`` configurations after the incumbent is."""
        if not count:
            return 0.0
        gains = (draws[:, :1] - draws[:, 1 : count + 1]).max(axis=1)
        return max(0.0, round(float(np.quantile(gains, self.confidence)), DIGITS))

    def allocate(self, count: int, allowed: Callable[[Config], bool] = lambda config: True) -> list[Config]:
        """Where the next ``count`` runs tell most, one after another; a configuration may come several times."""
        return [config for config, _, _ in self._picks(1, count, allowed)]

    def needed(self, resolution: float) -> int | None:
        """About how many further runs bring the bound down to ``resolution``; None beyond `MOST_NEEDED`.

        As the means stand now: what the runs show may end it earlier, or show that it takes more.
        """
        if self.bound <= resolution:
            return 0
        total = 0
        for _, runs, bound in self._picks(None, MOST_NEEDED):
            total += runs
            if bound <= resolution:
                return total
        return None

    def _picks(
        self, step: int | None, count: int, allowed: Callable[[Config], bool] = lambda config: True
    ) -> Iterator[tuple[Config, int, float]]:
        """Runs one after another: where, how many there (``step``, or an eighth of all so far), the bound after."""
        draws, covariance = self.draws, self.covariance
        normal = np.random.default_rng(DRAWS + 1).standard_normal(DRAWS)
        given = 0
        places = [place for place, config in enumerate(self.configs) if allowed(config)]
        while given < count and places:
            runs = min(step or max(1, given // 8), count - given)
            noise = self.spread.sigma**2 / runs
            # What is never the best change of a draw cannot bring the bound down.
            best = np.bincount(1 + np.argmin(draws[:, 1:], axis=1), minlength=len(self.configs))
            near = [place for place in places if place == 0 or best[place] > 0.002 * DRAWS] or places[:1]
            chosen, bound, after = near[0], math.inf, draws
            for place in near:
                weight = covariance[:, place] / (covariance[place, place] + noise)
                told = draws - np.outer(draws[:, place] - self.mean[place] + math.sqrt(noise) * normal, weight)
                now = self._bound(told, len(self.configs) - 1)
                if now < bound:
                    chosen, bound, after = place, now, told
            weight = covariance[:, chosen] / (covariance[chosen, chosen] + noise)
            covariance = covariance - np.outer(weight, covariance[chosen])
            draws, given = after, given + runs
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
