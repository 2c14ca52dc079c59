"""The studentized range: how far apart the largest and the smallest of several equal means lie, over their noise.

Among k means with equal noise and no true difference, the largest difference over sigma / sqrt(runs) exceeds the
range's quantile with the family's error rate and no more (Tukey 1953; Kramer 1956 for unequal numbers of runs; Games
and Howell 1976 for unequal noise, with Welch's degrees of freedom for each pair).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr

from tuneopt.analysis.runs import Array

# Gauss-Legendre nodes for the two integrals of the studentized range: over the largest mean (z within 8.5 standard
# deviations, beyond which the density is below 1e-16) and over the estimate of sigma (u, its probability).
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(240)
_Z, _DZ = 8.5 * _NODES, 8.5 * _WEIGHTS * np.exp(-0.5 * (8.5 * _NODES) ** 2) / math.sqrt(2 * math.pi)
_U, _DU = (1 + _NODES) / 2, _WEIGHTS / 2

_WIDEST = 20.0
"""A range of known noise that nothing exceeds: one minus its probability is below 1e-20 for a hundred means."""
_PLACES = 2000


def range_probability(quantile: float, groups: int, freedom: float | None = None) -> float:
    """The chance that the studentized range of ``groups`` equal means stays at or under ``quantile``.

    ``freedom`` is that of the estimate of sigma, None where sigma is known.
    """
    if freedom is None:
        return float(_known(np.array([quantile]), groups)[0])
    sigma = np.sqrt(chdtri(freedom, 1 - _U) / freedom)  # estimate over truth, at equal steps of probability
    return float(_between(groups)(np.minimum(quantile * sigma, _WIDEST)) @ _DU)


def _known(quantiles: Array, groups: int) -> Array:
    """The same for a known sigma and quantiles (n,): k times the chance that k - 1 means lie that far below one."""
    return np.asarray(groups * _below(quantiles) ** (groups - 1) @ _DZ)


def _below(quantiles: Array) -> Array:
    """The chance that one mean lies that far below the largest, for quantiles (n,) and each largest mean: (n, z)."""
    return np.asarray(ndtr(_Z)[None, :] - ndtr(_Z[None, :] - quantiles[:, None]))


@lru_cache(maxsize=1)
def _grid() -> tuple[Array, Array]:
    """Quantiles from 0 to `_WIDEST`, and the logs of `_below` there: the same for every number of groups."""
    quantiles = np.linspace(0, _WIDEST, _PLACES)
    with np.errstate(divide="ignore"):
        return quantiles, np.log(_below(quantiles))


@lru_cache(maxsize=64)
def _between(groups: int) -> CubicSpline:
    """`_known` between 0 and `_WIDEST` as a cubic through a fine grid, off by less than 1e-9.

    A quantile with an estimated sigma asks for it thousands of times, and each answer is an integral.
    """
    quantiles, logs = _grid()
    parts = [groups * np.exp((groups - 1) * part) @ _DZ for part in np.array_split(logs, _PLACES // 100)]
    return CubicSpline(quantiles, np.concatenate(parts))


@lru_cache(maxsize=4096)
def range_quantile(confidence: float, groups: int, freedom: float | None = None) -> float:
    """The quantile that the studentized range of ``groups`` (at least 2) equal means exceeds at 1 - ``confidence``."""
    # A sigma that is estimated makes the range wider, so the known one's quantile bounds it from below.
    low = 0.0 if freedom is None else range_quantile(confidence, groups)
    high = max(4.0, 1.2 * low)
    while range_probability(high, groups, freedom) < confidence and high < 1e7:
        low, high = high, 2 * high
    return float(brentq(lambda x: range_probability(x, groups, freedom) - confidence, low, high, xtol=1e-8, rtol=1e-8))
