"""Textbook statistics of estimated variances: quantiles, degrees of freedom, a test of equality, a difference.

What `tuneopt.search.noise` decides rests on them, and nothing here knows of runs or losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri, polygamma, stdtr, stdtrit

from tuneopt.spec import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LossDifference:
    """A difference of mean losses (nats), its standard error, and that error's degrees of freedom."""

    value: float
    error: float
    freedom: float
    paired: bool

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """The central interval of the true difference in nats."""
        half = student((1 + level) / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided p-value of no difference."""
        return 2 * float(stdtr(self.freedom, -abs(self.value) / self.error)) if self.error else float(not self.value)


def student(confidence: float, freedom: float) -> float:
    """The one-sided quantile of Student's t, the normal one at infinite ``freedom``."""
    return float(stdtrit(freedom, confidence) if math.isfinite(freedom) else ndtri(confidence))


def satterthwaite(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent estimated variances (Welch 1938, Satterthwaite 1946)."""
    whole = math.fsum(variances)
    parts = math.fsum((v / whole) ** 2 / d for v, d in zip(variances, freedoms, strict=True)) if whole else 0.0
    return 1 / parts if parts else math.inf


def bartlett(variances: Sequence[float], freedoms: Sequence[int]) -> tuple[float, float]:
    """Bartlett's statistic for equal variances, with his correction, and its p-value by chi-square.

    At two degrees of freedom each the true level of a nominal 5% is between 4 and 5%. A group without spread makes the
    statistic infinite; raises `InputError` for fewer than two groups or a group without a degree of freedom.
    """
    if len(variances) < 2 or min(freedoms) < 1:
        raise InputError("a test of equal sigmas needs two optimizers with replicates; run each with three seeds")
    whole = sum(freedoms)
    pooled = math.fsum(d * v for d, v in zip(freedoms, variances, strict=True)) / whole
    if not pooled:
        return 0.0, 1.0
    if not all(variances):
        return math.inf, 0.0
    logs = math.fsum(d * math.log(pooled / v) for d, v in zip(freedoms, variances, strict=True))
    correction = 1 + (math.fsum(1 / d for d in freedoms) - 1 / whole) / (3 * (len(variances) - 1))
    return logs / correction, float(chdtrc(len(variances) - 1, logs / correction))


def trigamma_inverse(value: float) -> float:
    """The x at which trigamma(x) is ``value``, by Newton's method on its inverse (Smyth 2004, appendix)."""
    x = 0.5 + 1 / value
    for _ in range(50):
        step = polygamma(1, x) * (1 - polygamma(1, x) / value) / polygamma(2, x)
        x += float(step)
        if -step / x < 1e-10:
            break
    return x


def log_densities(covariances: Floats, miss: Floats) -> Floats:
    """(models,): normal log densities, but for a constant, of ``miss`` (models or 1, n) under (models, n, n)."""
    models, size = covariances.shape[:2]
    # The last row of this larger matrix's root is the miss in units of the spread: one factorization does for both.
    larger = np.full((models, size + 1, size + 1), 1e12)
    larger[:, :size, :size], larger[:, :size, size], larger[:, size, :size] = covariances, miss, miss
    root = np.linalg.cholesky(larger)
    scaled, diagonal = root[:, size, :size], np.diagonal(root, axis1=1, axis2=2)[:, :size]
    logs: Floats = -0.5 * (scaled**2).sum(axis=1) - np.log(diagonal).sum(axis=1)
    return logs
