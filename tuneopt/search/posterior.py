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

import numpy as np
from numpy.typing import NDArray

from tuneopt.constants import OTHER_STEP_COST, STEP_COSTS, TOLERANCE
from tuneopt.search.axis import Axis
from tuneopt.search.space import Config, LadderSpace

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
"""(configurations, coordinates): the place of each value among the `Posterior.levels` of its coordinate."""

LEAST_COST = 0.0007
"""Nats: no step is taken to cost less beforehand, so that a coordinate of little effect on average can surprise."""

SLOPE, CURVATURE, ROUGHNESS = 6.0, 1.0, 1.5
"""Prior standard deviations of an effect's linear, quadratic and random-walk part, in costs of one step."""

PAIR = 0.15
"""Prior standard deviation of a pair's product term, in the geometric mean of the two costs."""

FAR = 0.1
"""A trial far above the lowest one lies far away, where the model is wrong by about this share of the distance."""

LEVEL = 1.0
"""Prior standard deviation of the centre's loss, in nats about the lowest trial: wide, nothing is known of it."""

NOISE = 2.33
"""Standard deviations of one run in a tolerance, as in `tuneopt.search.joint`."""

LEAST_NOISE = 1e-4
"""Nats: a smaller noise than this makes the equations singular, and is nowhere measured."""

COST_FACTORS, COST_SPREAD = (0.7, 1.0, 1.4), 0.7
"""Multiples of all costs that are weighed, and the prior standard deviation of their logarithm. Far starts, where the
model is at its worst, ask for multiples of 8; wider choices than these only hurt."""

NOISE_FACTORS, NOISE_SPREAD = (0.6, 0.85, 1.2, 1.7, 2.4, 3.4), 0.5
"""The same for the noise of a run; misfit counts as noise. Below 0.6 few trials look quieter than they are."""

DRAWS = 256
"""Surfaces drawn: a twentieth of them still is a dozen."""

DIGITS = 7
"""Decimal digits that effects keep, so that the last bits of a linear algebra library choose nothing."""


def noise_of(tolerance: float) -> float:
    """The standard deviation of one run, in nats, that a tolerance stands for."""
    return max(tolerance / NOISE, LEAST_NOISE)


def step_cost(axis: Axis, tolerance: float) -> float:
    """The usual cost of one grid step, in nats.

    The table holds for the paper's scales. Where runs are noisier, effects are larger too: about five times at
    nano-65k, whose noise is twenty times that of 130m. Hence the root.
    """
    return max(LEAST_COST, STEP_COSTS.get(axis.name, OTHER_STEP_COST)) * math.sqrt(max(1.0, tolerance / TOLERANCE))


class Posterior:
    """All that the trials leave possible, seen from ``centre``.

    ``losses`` are finished trials, at least one, in the order in which they were asked for. ``levels`` holds, by
    coordinate, the values that the model knows: the grid, what trials hold, and one value beyond. Draws follow from
    the arguments alone.
    """

    def __init__(self, space: LadderSpace, losses: Mapping[Config, float], centre: Config, tolerance: float) -> None:
        self.space, self.axes, self.centre = space, space.varied, centre
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
        self.mean, self.draws = self._fit(losses, noise_of(tolerance))  # (effects,) and (DRAWS, effects)

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

    def _prior(self) -> tuple[Floats, Floats, Floats]:
        """Mean (effects - 1), covariance and a root of it (square), at the usual costs, the centre's loss left out."""
        size = int(self._first[-1]) + len(self._pairs)
        mean, covariance, root = np.zeros(size), np.zeros((size, size)), np.zeros((size, size))
        for number, axis in enumerate(self.axes):
            u, cost = self._steps[number], self.costs[number]
            part = slice(int(self._first[number]), int(self._first[number + 1]))
            apart = self._apart[number]
            walk = (np.outer(u, u) > 0) * np.minimum(np.abs(u)[:, None], np.abs(u)[None, :])
            block = SLOPE**2 * np.outer(u, u) + CURVATURE**2 * np.outer(u**2, u**2) + ROUGHNESS**2 * walk
            # Words each have their own; off has one against all the others, which share it where off is the centre.
            block += SLOPE**2 * (np.outer(apart, apart) if axis.numeric else np.diag(apart))
            mean[part] = cost * (u**2 + apart)
            covariance[part, part] = cost**2 * block
            root[part, part] = cost * np.linalg.cholesky(block + 1e-9 * np.eye(len(u)))  # the centre's row is zero
        for number, (one, other_one) in enumerate(self._pairs):
            at = int(self._first[-1]) + number
            root[at, at] = PAIR * math.sqrt(self.costs[one] * self.costs[other_one])
            covariance[at, at] = root[at, at] ** 2
        return mean, covariance, root

    def _fit(self, losses: Mapping[Config, float], sigma: float) -> tuple[Floats, Floats]:
        """The mean effects and draws of them, over all multiples of costs and noise by their posterior weight."""
        mean, covariance, root = self._prior()
        x = self.rows(self.places(list(losses)))
        y = np.array(list(losses.values()))
        y = y - y.min()
        across = covariance @ x[:, :-1].T  # (effects - 1, trials)
        between, drift, far = x[:, :-1] @ across, x[:, :-1] @ mean, (FAR * y) ** 2
        fits = []
        for cost in COST_FACTORS:
            for noise in NOISE_FACTORS:
                spread = cost**2 * between + LEVEL**2 + np.diag((noise * sigma) ** 2 + far)
                lower = np.linalg.cholesky(spread)
                z = np.linalg.solve(lower, y - cost * drift)
                prior = (math.log(cost) / COST_SPREAD) ** 2 + (math.log(noise) / NOISE_SPREAD) ** 2
                fits.append((-0.5 * float(z @ z + prior) - float(np.log(np.diag(lower)).sum()), cost, noise, spread))
        weights = np.exp(np.array([fit[0] for fit in fits]) - max(fit[0] for fit in fits))
        counts = np.diff(np.rint(np.cumsum(weights / weights.sum()) * DRAWS).astype(int), prepend=0)
        order = random.Random(repr((self.space.start, self.centre, len(y))))
        normal = np.random.default_rng(order.randrange(2**32)).standard_normal((DRAWS, len(mean) + 1 + len(y)))
        draws, total = [], np.zeros(len(mean) + 1)
        for (_, cost, noise, spread), mine in zip(fits, np.split(normal, np.cumsum(counts)[:-1]), strict=True):
            # A draw from the prior, corrected by how far it is from the trials, is a draw from the posterior.
            about, level, errors = mine[:, : len(mean)], mine[:, len(mean), None], mine[:, len(mean) + 1 :]
            drawn = np.concatenate([cost * (mean + about @ root.T), LEVEL * level], axis=1)
            errors = errors * np.sqrt((noise * sigma) ** 2 + far)
            gain = np.linalg.solve(spread, np.concatenate([cost**2 * across.T, np.full((len(y), 1), LEVEL**2)], axis=1))
            draws.append(drawn + (y - drawn @ x.T - errors) @ gain)
            total += len(mine) * (np.append(cost * mean, 0.0) + (y - cost * drift) @ gain)
        return np.round(total / DRAWS, DIGITS), np.round(np.concatenate(draws), DIGITS)
