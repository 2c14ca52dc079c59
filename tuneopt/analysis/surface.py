"""The lowest point of a grid of runs, on a smooth surface through their losses.

The best run of a flat grid is the luckiest of several equals, and the middle of its near-optimal runs is not its lowest
point: a loss rises faster towards large learning rates than towards small ones, so the middle of a flat valley lies too
low, and the more so the flatter it is. A Gaussian process over the logs of the hyperparameters has neither fault. It
holds a quadratic, a smooth departure from it, and noise, whose sizes are those under which the runs are likeliest.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneopt.analysis.runs import Array

WINDOW = 0.06
"""Nats above the lowest run up to which runs count: a bowl is no quadratic further up."""

NEAR = 0.02
"""Nats above the lowest run within which the lowest point is looked for: beyond what was tried nothing is known."""

FEWEST_RUNS = 24
"""Runs within the window that a surface needs: a quadratic of two coordinates has six numbers."""

MOST_COORDINATES = 3
"""Coordinates that vary together. With more of them, no table of runs is a grid."""

LENGTHS, AMPLITUDES, NOISES = (0.4, 0.6, 0.9, 1.35), (0.001, 0.003, 0.01, 0.03), (0.0005, 0.001, 0.002, 0.004)
"""What is weighed: lengths in standard deviations of a coordinate over the runs, departure and noise in nats."""

QUADRATIC = 1.0
"""Nats: the prior standard deviation of each number of the quadratic, which leaves it free."""

LATTICE = 41
"""Places along each coordinate at which the surface is read."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A fitted surface. ``lowest`` holds the coordinates of its lowest point, ``loss`` (nats) is the loss there."""

    lowest: Array
    loss: float
    _centre: Array
    _unit: Array
    _points: Array  # (runs, coordinates), scaled
    _weights: Array  # (runs,)
    _base: float
    _length: float
    _amplitude: float

    def at(self, points: Array) -> Array:
        """The losses (nats) at ``points`` (points, coordinates), each coordinate a log."""
        scaled = (points - self._centre) / self._unit
        covariance = self._amplitude**2 * _near(scaled, self._points, self._length)
        covariance += QUADRATIC**2 * _quadratic(scaled) @ _quadratic(self._points).T
        known: Array = self._base + covariance @ self._weights
        return known


def surface(points: Array, losses: Array) -> Surface | None:
    """The surface through ``losses`` (runs,) in nats at ``points`` (runs, coordinates), logs of hyperparameters.

    None where the runs are no grid: fewer than `FEWEST_RUNS` in the window, more than `MOST_COORDINATES` coordinates,
    or one that the best runs do not vary.
    """
    inside = losses < losses.min() + WINDOW
    points, losses = points[inside], losses[inside]
    if len(losses) < FEWEST_RUNS or not 1 <= points.shape[1] <= MOST_COORDINATES:
        return None
    best = points[losses < losses.min() + NEAR]
    if np.any(np.ptp(best, axis=0) < 1e-9):
        return None
    centre, unit = points.mean(axis=0), points.std(axis=0)
    scaled, base = (points - centre) / unit, float(losses.min())
    free = QUADRATIC**2 * _quadratic(scaled) @ _quadratic(scaled).T
    fits = []
    for length, amplitude, noise in itertools.product(LENGTHS, AMPLITUDES, NOISES):
        covariance = amplitude**2 * _near(scaled, scaled, length) + free + noise**2 * np.eye(len(losses))
        factor = np.linalg.cholesky(covariance)
        whitened = np.linalg.solve(factor, losses - base)
        likelihood = -0.5 * float(whitened @ whitened) - float(np.log(np.diag(factor)).sum())
        fits.append((likelihood, length, amplitude, np.linalg.solve(factor.T, whitened)))
    _, length, amplitude, weights = max(fits, key=lambda fit: fit[0])
    known = Surface(np.empty(0), 0.0, centre, unit, scaled, weights, base, length, amplitude)
    sides = [np.linspace(low, high, LATTICE) for low, high in zip(best.min(axis=0), best.max(axis=0), strict=True)]
    lattice = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, len(sides))
    values = known.at(lattice)
    place = int(values.argmin())
    return replace(known, lowest=lattice[place], loss=float(values[place]))


def _near(first: Array, second: Array, length: float) -> Array:
    """The correlation of departures between two sets of places."""
    squares = np.sum(((first[:, None] - second[None]) / length) ** 2, axis=-1)
    known: Array = np.exp(-0.5 * squares)
    return known


def _quadratic(points: Array) -> Array:
    """The terms of a quadratic at each place: 1, x, and all products x y."""
    count = points.shape[1]
    pairs: Sequence[tuple[int, int]] = list(itertools.combinations_with_replacement(range(count), 2))
    products = [points[:, first] * points[:, second] for first, second in pairs]
    return np.column_stack([np.ones(len(points)), points, *products])
