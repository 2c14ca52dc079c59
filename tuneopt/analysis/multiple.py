"""Several comparisons at once: the studentized range, by which the differences of a whole family are judged.

Among k means with equal noise and no true difference, the largest difference over sigma / sqrt(runs) exceeds the
range's quantile with the family's error rate and no more (Tukey 1953; Kramer 1956 for unequal numbers of runs).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import chdtri, ndtr

from tuneopt.analysis.scaling import Array

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(240)
_Z, _DZ = 8.5 * _NODES, 8.5 * _WEIGHTS * np.exp(-0.5 * (8.5 * _NODES) ** 2) / math.sqrt(2 * math.pi)
_U, _DU = (1 + _NODES) / 2, _WEIGHTS / 2


def range_probability(quantile: float, groups: int, freedom: int | None = None) -> float:
    """The chance that the studentized range of ``groups`` equal means stays at or under ``quantile``.

    ``freedom`` is that of the estimate of sigma, None where sigma is known.
    """
    if freedom is None:
        return float(_known(np.array([quantile]), groups)[0])
    sigma = np.sqrt(chdtri(freedom, 1 - _U) / freedom)  # estimate over truth, at equal steps of probability
    return float(_known(quantile * sigma, groups) @ _DU)


def _known(quantiles: Array, groups: int) -> Array:
    below = ndtr(_Z)[None, :] - ndtr(_Z[None, :] - quantiles[:, None])  # one mean, given the largest
    return np.asarray(groups * below ** (groups - 1) @ _DZ)


@lru_cache(maxsize=4096)
def range_quantile(confidence: float, groups: int, freedom: int | None = None) -> float:
    """The quantile that the studentized range of ``groups`` (at least 2) equal means exceeds at 1 - ``confidence``."""
    low, high = 0.0, 4.0
    while range_probability(high, groups, freedom) < confidence and high < 1e7:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if high - low < 1e-9 * high:
            break
        low, high = (middle, high) if range_probability(middle, groups, freedom) < confidence else (low, middle)
    return (low + high) / 2
