"""What a few trials tell of a whole loss surface: a Bayesian linear model, and draws of surfaces that fit it.

The loss near a configuration is one effect for each value of each coordinate, and one product term for each pair of
ordered coordinates. Beforehand an effect is expected to grow with the square of the grid steps, by the usual cost of
one step (`STEP_COSTS`), give or take several such costs; trials correct that. How large effects and noise really are is
not taken from a table: a few multiples of both are weighed by how well each explains the trials.

Decisions rest on draws, that is surfaces which the trials leave possible: where their lowest points lie is worth
trying, and how far a single change can still be better is what a certificate may hide. Losses are nats per token,
distances are grid steps. ``effects`` below is the number of columns: all values, all pairs, and the centre's loss.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tuneopt.constants import OTHER_STEP_COST, STEP_COSTS, TOLERANCE
from tuneopt.search.axis import Axis
from tuneopt.search.joint import NOISE
from tuneopt.search.space import Config, LadderSpace
from tuneopt.search.variances import Floats, log_densities

Places = NDArray[np.intp]
"""(configurations, coordinates): the place of each value among the `Posterior.levels` of its coordinate."""

LEAST_COST = 0.0007
"""Nats: no step is taken to cost less beforehand, so that a coordinate of little effect on average can surprise."""

SLOPE, CURVATURE, ROUGHNESS, JUMP, APART = 1.7, 0.7, 0.8, 0.45, 8.0
"""Prior standard deviations of an effect's parts, in costs of one step times the coordinate's scale: linear, quadratic,
random walk over the values, each value by itself, and "off" against all others. Like `WHITE` and `SCALE_SPREAD` they
are the ones under which the published stars are likeliest."""

DRIFT, WHITE = 0.0008, 0.0004
"""Nats by which each step, and each value by itself, may differ however flat the coordinate. Without them one that
looks flat is taken to be flat where nothing was tried: then one claim in seven was false, instead of one in thirty."""

SCALES = (0.25, 1.0, 4.0, 16.0, 64.0, 256.0)
"""Multiples of its usual cost that each coordinate may have: an epsilon can matter, a batch can all but diverge."""

SCALE_MEAN, SCALE_SPREAD = -0.6, 1.5
"""Prior mean and standard deviation of the logarithm of that multiple."""

PAIR = 0.12
"""Prior standard deviation of a pair's product term, in the geometric mean of the two costs and scales."""

FAR = 0.1
"""A trial far above the lowest one lies far away, where the model is wrong by about this share of the distance."""

LEVEL = 1.0
"""Prior standard deviation of the centre's loss, in nats about the lowest trial: wide, nothing is known of it."""

LEAST_NOISE = 1e-4
"""Nats: a smaller noise than this makes the equations singular, and is nowhere measured."""

NOISE_FACTORS, NOISE_SPREAD = (0.6, 0.85, 1.2, 1.7, 2.4, 3.4), 0.5
"""Multiples of the noise of a run that are weighed, and the prior standard deviation of their logarithm; misfit counts
as noise. Below 0.6 few trials look quieter than they are."""

PASSES = 2
"""Rounds in which scales and noise are fitted one after the other; a third changes next to nothing."""

MODELS, DRAWS = 64, 256
"""Sets of scales and noise that are drawn, and surfaces: a fiftieth of them still is five."""

DIGITS = 7
"""Decimal digits that effects keep, so that the last bits of a linear algebra library choose nothing."""

CAUTION = 0.25
"""The share of a claim's chance of error that the draws may spend. With all of it 5% of the claims on published stars
were false at 95% confidence, up to 12% for one optimizer; with this up to 4%."""


def noise_of(tolerance: float) -> float:
    """The standard deviation of one run, in nats, that a tolerance stands for."""
    return max(tolerance / NOISE, LEAST_NOISE)


def magnification(tolerance: float) -> float:
    """How much larger effects are than at the paper's scales, for which costs are tabled.

    Where runs are noisier, effects are larger too: about five times at nano-65k, whose noise is twenty times that of
    130m. Hence the root.
    """
    return math.sqrt(max(1.0, tolerance / TOLERANCE))


def step_cost(axis: Axis, tolerance: float) -> float:
    """The usual cost of one grid step, in nats."""
    return max(LEAST_COST, STEP_COSTS.get(axis.name, OTHER_STEP_COST)) * magnification(tolerance)


def ceiling(gains: Floats, confidence: float) -> float:
    """What no gain exceeds with ``confidence``, in nats, from the gain on each drawn surface: 0 or more.

    Of the chance of error `CAUTION` is left to the draws, and the rest to what no draw knows: that the surface is none
    of the model's.
    """
    return max(0.0, round(float(np.quantile(gains, 1 - CAUTION * (1 - confidence))), 6))


class Posterior:
    """All that the trials leave possible, seen from ``centre``.

    ``losses`` are finished trials, at least one, in the order in which they were asked for. Where one is a mean over
    several seeds, ``seeds`` says how many there are. ``own`` (nats) is the standard deviation by which a configuration
    may differ from what its values make of it. ``levels`` holds, by coordinate, the values that the model knows: the
    grid, what trials hold, and one value beyond. Draws, ``size`` of them over ``models``, follow from the arguments
    alone.
    """

    def __init__(
        self,
        space: LadderSpace,
        losses: Mapping[Config, float],
        centre: Config,
        tolerance: float,
        *,
        seeds: Mapping[Config, int] | None = None,
        own: float = 0.0,
        size: int = DRAWS,
        models: int = MODELS,
    ) -> None:
        self.space, self.axes, self.centre = space, space.varied, centre
        self.size, self.models = size, models
        self.seeds = np.array([1.0 if seeds is None else seeds[config] for config in losses])
        self.costs = [step_cost(axis, tolerance) for axis in self.axes]
        self.levels = []
        for axis in self.axes:
            held = {space.value(config, axis.name) for config in (*losses, centre)}
            known = {*held, *axis.values, *(value for each in held for value in axis.line(each))}
            inside = [place for place, value in enumerate(axis.order) if value in known]
            self.levels.append(axis.order[inside[0] : inside[-1] + 1])
        self._first = np.cumsum([0, *map(len, self.levels)])  # the column of each coordinate's first value
        self._place = {
            (axis.name, value): place
            for axis, values in zip(self.axes, self.levels, strict=True)
            for place, value in enumerate(values)
        }
        self.middle: Places = self.places([centre])[0]
        self._steps, self._apart = [], []
        for axis, values, middle in zip(self.axes, self.levels, self.middle, strict=True):
            place = np.arange(len(values)) * float(axis.numeric)  # words have no distance, and no pairs
            alone = np.full(len(values), not axis.numeric)
            if axis.numeric and axis.off in values and len(values) > 1:
                # Off is no neighbour in the order: no clipping (0) is like a norm of infinity, not like a small one. It
                # stands where its neighbour does, and has an effect of its own.
                at = values.index(axis.off)
                place[at], alone[at] = place[at + 1 if at == 0 else at - 1], True
            self._steps.append(place - place[middle])  # by coordinate, (levels,): from the centre
            # By coordinate, (levels,): levels that differ from the centre by an effect without order.
            other = np.arange(len(values)) != middle
            self._apart.append((other & (alone | (alone[middle] & axis.numeric))).astype(float))
        ordered = [number for number, axis in enumerate(self.axes) if axis.numeric]
        pairs = [(one, other) for place, one in enumerate(ordered) for other in ordered[:place]]
        self._pairs: Places = np.array(pairs, np.intp).reshape(-1, 2)
        self.mean, self.draws = self._fit(losses, tolerance, own)  # (effects,) and (size, effects)

    def places(self, configs: Sequence[Config]) -> Places:
        """Where configurations stand."""
        found = [[self._place[axis.name, self.space.value(each, axis.name)] for axis in self.axes] for each in configs]
        return np.array(found, np.intp).reshape(len(configs), len(self.axes))

    def config(self, places: Sequence[int] | Places) -> Config:
        """The configuration at these places, one by coordinate."""
        config = self.centre
        for axis, values, place in zip(self.axes, self.levels, places, strict=True):
            config = self.space.change(config, axis.name, values[int(place)])
        return config

    def rows(self, places: Places) -> Floats:
        """(configurations, effects): what each configuration is made of; times effects, its loss above the lowest."""
        x = np.zeros((len(places), int(self._first[-1]) + len(self._pairs) + 1))
        x[np.arange(len(places))[:, None], self._first[:-1] + places] = 1.0
        steps = np.stack([each[places[:, number]] for number, each in enumerate(self._steps)], axis=1)
        x[:, self._first[-1] : -1] = steps[:, self._pairs[:, 0]] * steps[:, self._pairs[:, 1]]
        x[:, -1] = 1.0
        return x

    def alone(self, number: int) -> Floats:
        """(levels,): by how much the loss is expected to rise when one coordinate of the centre takes each level."""
        own = self.mean[self._first[number] : self._first[number + 1]]
        rise: Floats = own - own[self.middle[number]]
        return rise

    def lowest(self, surfaces: Floats, allowed: Sequence[NDArray[np.bool_]], start: Places) -> Places:
        """(surfaces, coordinates): where each surface, (surfaces, effects), is lowest among the ``allowed`` levels.

        By coordinate descent from ``start``: one local minimum, which near the centre is the one that matters.
        """
        here = np.tile(start, (len(surfaces), 1))
        steps = np.stack([each[here[:, number]] for number, each in enumerate(self._steps)], axis=1)
        coupling = np.zeros((len(surfaces), len(self.axes), len(self.axes)))
        for number, (one, other) in enumerate(self._pairs):
            coupling[:, one, other] = coupling[:, other, one] = surfaces[:, int(self._first[-1]) + number]
        for _ in range(20):  # a handful is usual; rounding could send it round in a circle
            before = here.copy()
            for number, of_levels in enumerate(self._steps):
                alone = surfaces[:, self._first[number] : self._first[number + 1]]  # (surfaces, levels)
                slope = (coupling[:, number, :] * steps).sum(axis=1)  # (surfaces,)
                losses = np.where(allowed[number], np.round(alone + np.outer(slope, of_levels), DIGITS), np.inf)
                here[:, number] = np.argmin(losses, axis=1)
                steps[:, number] = of_levels[here[:, number]]
            if (before == here).all():
                break
        return here

    def _prior(self, larger: float) -> tuple[Floats, Floats, Floats]:
        """Mean (effects - 1) and a root of the covariance (square) at the usual costs, the centre's loss left out.

        The third is a root of what is added whatever a coordinate's scale, at effects ``larger`` than the paper's.
        """
        size = int(self._first[-1]) + len(self._pairs)
        mean, root, plain = np.zeros(size), np.zeros((size, size)), np.zeros((size, size))
        for number, axis in enumerate(self.axes):
            u, cost, apart = self._steps[number], self.costs[number], self._apart[number]
            part = slice(int(self._first[number]), int(self._first[number + 1]))
            mean[part] = cost * (u**2 + apart)
            scaled, free = _roots(tuple(u.tolist()), tuple(apart.tolist()), int(self.middle[number]), axis.numeric)
            root[part, part], plain[part, part] = cost * scaled, larger * free
        for number, (one, other) in enumerate(self._pairs):
            at = int(self._first[-1]) + number
            root[at, at] = PAIR * math.sqrt(self.costs[one] * self.costs[other])
        return mean, root, plain

    def _fit(self, losses: Mapping[Config, float], tolerance: float, apart: float) -> tuple[Floats, Floats]:
        """The mean effects and draws of them, over the scales and the noise that the trials leave possible."""
        mean, root, plain = self._prior(magnification(tolerance))
        x = self.rows(self.places(list(losses)))[:, :-1]
        y = np.array(list(losses.values()))
        y = y - y.min()
        # By effect: the coordinate whose scale it has, twice, or the two coordinates of a pair.
        owner = np.repeat(np.arange(len(self.axes)), np.diff(self._first))
        owners = np.concatenate([np.stack([owner, owner], axis=1), self._pairs])
        trials = _Trials(x, y, mean, root, plain, owners, noise_of(tolerance), self.seeds, apart)
        seed, width = repr((self.space.start, self.centre, len(y))), 2 * len(mean) + 1 + len(y)
        chances, normal = _chances(seed, (len(self.axes) + 1, self.models), (self.size, width))
        scales, noise = trials.models(chances)  # (models, coordinates) and (models,)
        which = np.arange(self.size) % self.models
        parts = np.split(normal, np.cumsum([len(mean), len(mean), 1]), axis=1)
        # A draw from the prior, corrected by how far it is from the trials, is a draw from the posterior.
        scale = np.sqrt(scales[:, owners[:, 0]] * scales[:, owners[:, 1]])  # (models, effects - 1)
        drawn = (scale * mean)[which] + scale[which] * (parts[0] @ root.T) + parts[1] @ plain.T
        level = LEVEL * parts[2]
        weights, drift = trials.weights(scales, noise), scales @ trials.drift
        errors = parts[3] * np.sqrt((noise[which, None] * trials.sigma) ** 2 / trials.seeds + trials.far)
        across = root @ (root.T @ x.T), plain @ (plain.T @ x.T)  # (effects - 1, trials) each

        def corrected(prior: Floats, level: Floats, scale: Floats, miss: Floats) -> Floats:
            # A product for each row: of all rows of a model at once it would have other last digits.
            told = (miss.reshape(-1, self.models, 1, len(y)) @ weights).reshape(miss.shape)  # (rows, trials)
            effects = prior + scale**2 * (told @ across[0].T) + told @ across[1].T
            return np.concatenate([effects, level + LEVEL**2 * told.sum(axis=1, keepdims=True)], axis=1)

        draws = corrected(drawn, level, scale[which], y - drawn @ x.T - level - errors)
        means = corrected(scale * mean, np.zeros((self.models, 1)), scale, y - drift)
        return np.round(means.mean(axis=0), DIGITS), np.round(draws, DIGITS)


@lru_cache(maxsize=256)
def _roots(steps: tuple[float, ...], apart: tuple[float, ...], middle: int, numeric: bool) -> tuple[Floats, Floats]:
    """Roots of the prior covariance of one coordinate's effects: in costs of a step, and in nats whatever they cost."""
    u, alone = np.array(steps), np.array(apart)
    walk = (np.outer(u, u) > 0) * np.minimum(np.abs(u)[:, None], np.abs(u)[None, :])
    own = np.diag((np.arange(len(u)) != middle).astype(float))
    block = SLOPE**2 * np.outer(u, u) + CURVATURE**2 * np.outer(u**2, u**2) + ROUGHNESS**2 * walk + JUMP**2 * own
    # Words each have their own; off has one against all the others, which share it where off is the centre.
    block += APART**2 * (np.outer(alone, alone) if numeric else np.diag(alone))
    tiny = 1e-9 * np.eye(len(u))  # the centre's row is zero
    return np.linalg.cholesky(block + tiny), np.linalg.cholesky(DRIFT**2 * walk + WHITE**2 * own + DRIFT**2 * tiny)


@lru_cache(maxsize=32)
def _chances(seed: str, spread: tuple[int, int], normal: tuple[int, int]) -> tuple[Floats, Floats]:
    """Numbers evenly spread from 0 to 1 in each row of a shape, in any order; and normal ones of another shape.

    All follow from ``seed``. Sweeps that start at one configuration have their first ones in common.
    """
    order, even = random.Random(seed), np.empty(spread)
    for row in even:
        marks = [(order.random() + place) / len(row) for place in range(len(row))]
        order.shuffle(marks)
        row[:] = marks
    draws = np.random.default_rng(order.randrange(2**32)).standard_normal(normal)
    even.flags.writeable = draws.flags.writeable = False  # others get the same ones
    return even, draws


class _Trials:
    """The trials as a Gaussian process given the scales of all coordinates and the noise.

    ``x`` (trials, effects) without the column of the centre's loss, ``y`` losses above the lowest; ``mean`` and
    ``root`` are the prior's at the usual costs, ``plain`` the root of what has no scale, ``owners`` (effects, 2) the
    coordinates whose scales an effect has. ``sigma`` is the standard deviation of a run, ``seeds`` (trials,) how many
    runs each is the mean of, ``own`` by how much it may differ from what its values make of it, in nats.
    """

    def __init__(
        self,
        x: Floats,
        y: Floats,
        mean: Floats,
        root: Floats,
        plain: Floats,
        owners: Places,
        sigma: float,
        seeds: Floats,
        own: float,
    ) -> None:
        self.y, self.sigma, self.seeds, self.far = y, sigma, seeds, (FAR * y) ** 2 + own**2
        half = x @ root
        single = owners[:, 0] == owners[:, 1]
        count = int(owners.max()) + 1
        self.drift = np.stack([x[:, mine] @ mean[mine] for mine in self._of(owners, single, count)])
        self.spread = np.stack([half[:, mine] @ half[:, mine].T for mine in self._of(owners, single, count)])
        self.couples, self.crossed = owners[~single], half[:, ~single]  # (pairs, 2), (trials, pairs)
        self.shared = [self._shared(number) for number in range(count)]
        self.fixed = (x @ plain) @ (x @ plain).T + LEVEL**2 + np.diag(self.far)

    @staticmethod
    def _of(owners: Places, single: NDArray[np.bool_], count: int) -> list[NDArray[np.bool_]]:
        return [single & (owners[:, 0] == number) for number in range(count)]

    def _shared(self, number: int) -> tuple[Places, Floats]:
        """The partners of one coordinate in its pairs, and (trials, pairs) what the trials hold of these."""
        mine = (self.couples == number).any(axis=1)
        partner = np.where(self.couples[mine, 0] == number, self.couples[mine, 1], self.couples[mine, 0])
        return partner, self.crossed[:, mine]

    def cover(self, scales: Floats, noise: Floats) -> tuple[Floats, Floats]:
        """(models, trials, trials) covariances and (models, trials) means of the losses."""
        return self._coupled(self._alone(scales), scales, noise), scales @ self.drift

    def _alone(self, scales: Floats) -> Floats:
        """(models, trials, trials): the covariances as far as single coordinates make them, without noise."""
        return self.fixed + (scales**2 @ self.spread.reshape(len(self.spread), -1)).reshape(-1, *self.fixed.shape)

    def _coupled(self, spread: Floats, scales: Floats, noise: Floats) -> Floats:
        """With what pairs of coordinates and the noise add, each model's by itself; changes ``spread``."""
        pairs, own = scales[:, self.couples[:, 0]] * scales[:, self.couples[:, 1]], np.arange(len(self.y))
        spread += (self.crossed * pairs[:, None, :]) @ self.crossed.T
        spread[:, own, own] += (noise[:, None] * self.sigma) ** 2 / self.seeds
        return spread

    def weights(self, scales: Floats, noise: Floats) -> Floats:
        """(models, trials, trials): the inverses of the covariances. Of 64 models half are equal, and inverted once."""
        alone, rows = self._alone(scales), list(map(tuple, np.column_stack([scales, noise]).tolist()))
        places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
        which, first = [places[row] for row in rows], [rows.index(row) for row in places]
        if not np.array_equal(alone[first][which], alone):  # a product of many rows: their last digits may differ
            first = which = list(range(len(scales)))
        return np.asarray(np.linalg.inv(self._coupled(alone[first], scales[first], noise[first]))[which], np.float64)

    def models(self, chances: Floats) -> tuple[Floats, Floats]:
        """Scales (models, coordinates) and noise (models,) drawn about those that explain the trials best.

        ``chances`` (coordinates + 1, models) lie between 0 and 1. Every coordinate's scale is drawn on its own, from
        its probabilities with the others at their best.
        """
        choices, noises = np.array(SCALES), np.array(NOISE_FACTORS)
        noise, before = 1.0, -0.5 * ((np.log(choices) - SCALE_MEAN) / SCALE_SPREAD) ** 2
        # All alike first: where every step is large, no coordinate's scale explains anything by itself.
        alike = np.tile(choices[:, None], (1, len(self.drift)))
        spread, drift = self.cover(alike, np.ones(len(choices)))
        common = log_densities(spread, self.y - drift) + len(self.drift) * before
        scales = np.full(len(self.drift), choices[int(np.argmax(common))])
        odds: list[Floats] = []
        for _ in range(PASSES):
            was, odds = (*scales, noise), []
            for number in range(len(scales)):
                odds.append(before + self._along(number, scales, choices, noise))
                scales[number] = choices[int(np.argmax(odds[-1]))]
            spread, drift = self.cover(scales[None], np.zeros(1))
            own = (noises[:, None] * self.sigma) ** 2 / self.seeds
            odds.append(log_densities(spread + own[:, :, None] * np.eye(len(self.y)), self.y - drift))
            odds[-1] -= 0.5 * (np.log(noises) / NOISE_SPREAD) ** 2
            noise = float(noises[int(np.argmax(odds[-1]))])
            if was == (*scales, noise):
                break
        columns = []
        for mine, values, chance in zip(odds, [choices] * len(scales) + [noises], chances, strict=True):
            shares = np.cumsum(np.exp(mine - mine.max()))
            columns.append(values[np.minimum(np.searchsorted(shares, chance * shares[-1]), len(values) - 1)])
        return np.stack(columns[:-1], axis=1), columns[-1]

    def _along(self, number: int, scales: Floats, choices: Floats, noise: float) -> Floats:
        """(choices,): the log evidence with the scale of one coordinate at each choice, the others as they are."""
        (spread,), (drift,) = self.cover(scales[None], np.array([noise]))
        partner, crossed = self.shared[number]
        pairs, now = (crossed * scales[partner]) @ crossed.T, scales[number]
        spreads = (
            spread + (choices**2 - now**2)[:, None, None] * self.spread[number] + (choices - now)[:, None, None] * pairs
        )
        return log_densities(spreads, self.y - drift - (choices - now)[:, None] * self.drift[number])
