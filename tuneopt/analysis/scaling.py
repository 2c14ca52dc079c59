"""How a tuned optimizer's final loss falls with its token budget, L(D) = alpha * D^-B + beta, and its inverse.

The fit is by least squares with the two linear parameters solved exactly for every exponent B, so that only a search
over one variable is left: a grid, then golden sections. It has no starting values to get wrong, respects alpha >= 0
and beta >= 0, and treats many redrawn data sets at once. Method: Wen et al., arXiv 2509.02046, section 4 (the law per
scale); Golub and Pereyra 1973 (variable projection). Units: tokens and nats per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tuneopt.analysis.runs import Array
from tuneopt.spec import InputError

EXPONENTS = (0.005, 4.0)
"""Exponents searched. At the lower end the law is a straight line in log D for any practical purpose; at the upper end
the second budget is on the floor. Laws of this kind have 0.3 to 0.5."""

_GRID = np.geomspace(*EXPONENTS, 96)
_SECTIONS = 40
_GOLDEN = (np.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class LossLaw:
    """A fitted L(D), or a batch of them.

    ``alpha``, ``exponent`` and ``beta`` have one shape, ``()`` for a single fit. ``kind`` is ``power`` for
    L = alpha * (D / unit)^-exponent + beta, or ``log-linear`` for L = beta - alpha * ln(D / unit) (two budgets only,
    ``exponent`` is 0). ``unit`` is a budget in tokens that keeps the numbers near 1; `coefficient` is the alpha of
    the law in plain tokens.
    """

    kind: str
    alpha: Array
    exponent: Array
    beta: Array
    unit: float
    budgets: Array
    """Token budgets that were fitted, ascending, shape (n,)."""
    residual: Array
    """Root mean square of the residuals (nats), one per law."""

    @property
    def coefficient(self) -> Array:
        """The alpha of L = alpha * D^-B + beta with D in tokens."""
        return np.asarray(self.alpha * self.unit**self.exponent)

    def loss(self, budgets: npt.ArrayLike) -> Array:
        """L(D) in nats; shape: that of the laws, then that of ``budgets``."""
        ratio = np.asarray(budgets, float) / self.unit
        parts = (self.alpha, self.exponent, self.beta)
        alpha, exponent, beta = (part.reshape(part.shape + (1,) * ratio.ndim) for part in parts)
        if self.kind == "log-linear":
            return np.asarray(beta - alpha * np.log(ratio))
        return np.asarray(alpha * ratio**-exponent + beta)

    def budget(self, losses: npt.ArrayLike) -> Array:
        """The D at which L(D) = loss, in tokens; infinite at or under the floor beta.

        ``losses`` broadcasts against the laws. A law that does not fall with D (alpha = 0) gives infinity for losses
        under its level and 0 above it.
        """
        losses = np.asarray(losses, float)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.kind == "log-linear":
                ratio = np.exp((self.beta - losses) / self.alpha)
            else:
                above = np.maximum(losses - self.beta, 0.0)
                ratio = np.where(above > 0, (above / self.alpha) ** (-1 / self.exponent), np.inf)
        flat = np.where(losses > self.beta, 0.0, np.inf)
        return np.asarray(np.where(self.alpha > 0, ratio, flat) * self.unit)


def fit(budgets: npt.ArrayLike, losses: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> LossLaw:
    """Fit L(D) to the losses at ``budgets``.

    ``budgets``: (n,) tokens, n >= 2, distinct. ``losses``: (..., n) nats; leading axes are separate data sets.
    ``weights``: (n,), how many runs each loss averages. With two budgets the law is the straight line in log D through
    both points; from three on it is the power law. Raises `InputError` for fewer than two budgets or a bad number.
    """
    points = np.asarray(budgets, float)
    targets = np.asarray(losses, float)
    weight = np.ones_like(points) if weights is None else np.asarray(weights, float)
    if points.ndim != 1 or len(points) < 2 or len(np.unique(points)) != len(points):
        raise InputError("a loss law needs at least two different token budgets; train the baseline at another ratio")
    if not (np.all(np.isfinite(points)) and np.all(points > 0) and np.all(np.isfinite(targets)) and np.all(weight > 0)):
        raise InputError("a loss law needs finite losses at positive token budgets; leave diverged trials out")
    order = np.argsort(points)
    points, targets, weight = points[order], targets[..., order], weight[order] / weight.sum()
    unit = float(np.exp(np.mean(np.log(points))))
    flat = targets.reshape(-1, len(points))  # (m, n): one row for each data set
    if len(points) == 2:
        kind, x = "log-linear", np.log(points / unit)
        # A law never rises with its budget: where the longer run is worse, the line is level.
        slope = np.minimum((flat[:, 1] - flat[:, 0]) / (x[1] - x[0]), 0.0)
        alpha, exponent, beta = -slope, np.zeros(len(flat)), flat.mean(axis=1) - slope * x.mean()
    else:
        kind, (alpha, exponent, beta) = "power", _power(points / unit, flat, weight)
    shape = targets.shape[:-1]
    parts = (alpha.reshape(shape), exponent.reshape(shape), beta.reshape(shape), unit, points)
    residual = targets - LossLaw(kind, *parts, np.zeros(shape)).loss(points)
    return LossLaw(kind, *parts, np.sqrt(np.mean(residual**2, axis=-1)))


def _power(ratio: Array, y: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Best (alpha, B, beta), each (m,), for each row of y (m, n); ratio and weight are (n,).

    The best point of a grid over log B, then golden sections between its neighbours: 40 of them shrink the bracket by
    4e-9, which is the precision of the speedups, not of the data.
    """
    errors = _solve(ratio, y, weight, np.broadcast_to(_GRID, (len(y), len(_GRID))))[2]
    best = np.argmin(errors, axis=1)
    low = np.log(_GRID[np.maximum(best - 1, 0)])
    high = np.log(_GRID[np.minimum(best + 1, len(_GRID) - 1)])
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    error_left, error_right = (_solve(ratio, y, weight, np.exp(x)[:, None])[2][:, 0] for x in (left, right))
    for _ in range(_SECTIONS):
        down = error_left <= error_right
        low, high = np.where(down, low, left), np.where(down, right, high)
        fresh = np.where(down, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        error = _solve(ratio, y, weight, np.exp(fresh)[:, None])[2][:, 0]
        left, right = np.where(down, fresh, right), np.where(down, left, fresh)
        error_left, error_right = np.where(down, error, error_right), np.where(down, error_left, error)
    exponent = np.exp((low + high) / 2)
    alpha, beta, _ = _solve(ratio, y, weight, exponent[:, None])
    return alpha[:, 0], exponent, beta[:, 0]


def _solve(ratio: Array, y: Array, weight: Array, exponent: Array) -> tuple[Array, Array, Array]:
    """Weighted least squares for alpha >= 0 and beta >= 0 at given exponents (m, k), and the weighted squared error.

    All three are (m, k). Where the free solution has beta < 0, the best one on the border beta = 0 stands; where it
    has alpha < 0, the level line does.
    """
    x = np.exp(-exponent[..., None] * np.log(ratio))  # (m, k, n)
    x_mean, y_mean = x @ weight, (y @ weight)[:, None]
    x_centred, y_centred = x - x_mean[..., None], (y - y_mean)[:, None, :]
    alpha = np.maximum((x_centred * y_centred) @ weight / (x_centred**2 @ weight), 0.0)
    beta = y_mean - alpha * x_mean
    through_zero = (x * y[:, None, :]) @ weight / (x**2 @ weight)
    alpha, beta = np.where(beta < 0, through_zero, alpha), np.maximum(beta, 0.0)
    error = (y[:, None, :] - alpha[..., None] * x - beta[..., None]) ** 2 @ weight
    return alpha, beta, error


def describe(law: LossLaw) -> dict[str, Any]:
    """A single law as plain numbers: kind, alpha (D in tokens), exponent, beta, residual, smallest and largest D."""
    return {
        "kind": law.kind,
        "alpha": float(law.alpha if law.kind == "log-linear" else law.coefficient),
        "exponent": float(law.exponent),
        "beta": float(law.loss(1.0)) if law.kind == "log-linear" else float(law.beta),
        "residual": float(law.residual),
        "from_tokens": float(law.budgets[0]),
        "to_tokens": float(law.budgets[-1]),
    }
