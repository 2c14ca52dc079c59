"""A power law plus offset through tuned values: h = A N^B ratio^C + E, fitted in the logarithm of h.

Source of the form: arXiv 2509.02046, section 3, Phase III. Tuned values lie on a grid and many of them tie within
noise, so four free parameters through a dozen points would follow the grid. Two shrinkages keep the law from it: the
exponents carry a weak prior around 0, and an offset E is taken only where it explains the points clearly better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

UNIT = 1e8
"""Parameters that count as one N in a law, so that A is a hyperparameter of a common model."""

PRIOR_EXPONENT = 0.5
"""Standard deviation of the prior on B and C; published exponents of learning rates and batches lie within 1."""

OFFSETS = (0.0, 0.25, 0.5, 0.75, 0.9)
"""The offsets tried, as shares of the smallest tuned value."""

_CLEARLY = math.exp(-2 * 2.0 / 12)
"""How far the residual sum must fall before an offset is believed: Akaike's price of a parameter at twelve points."""


@dataclass(frozen=True, slots=True)
class Law:
    """h = A N^B ratio^C + E with N in units of `UNIT` parameters; A and E in the unit of h.

    ``complement`` says that h is 1 - value, the averaging rate of a decay such as beta1.
    """

    a: float
    b: float
    c: float
    e: float
    complement: bool = False

    def at(self, params: float, ratio: float) -> float:
        """The value of the coordinate at ``params`` parameters and ``ratio``."""
        h = self.a * (params / UNIT) ** self.b * ratio**self.c + self.e
        return float(1 - h if self.complement else h)


def fit_law(params: Floats, ratios: Floats, h: Floats, weights: Floats, complement: bool = False) -> Law:
    """The law through positive ``h``, one per regime, by weighted least squares on log h.

    ``weights`` are inverse variances of log h. The offset is a share of the smallest h, from `OFFSETS`.
    """
    x = np.stack([np.ones_like(h), np.log(params / UNIT), np.log(ratios)], axis=1)
    fits = [_with_offset(x, h, weights, share * float(h.min()), complement) for share in OFFSETS]
    plain = fits[0]
    best = min(fits, key=lambda fit: fit[0])
    return best[1] if best[0] < _CLEARLY * plain[0] else plain[1]


def _with_offset(x: Floats, h: Floats, weights: Floats, offset: float, complement: bool) -> tuple[float, Law]:
    y = np.log(h - offset)
    # d log h = (1 - E/h) d log(h - E): weights in log h stay weights in log h.
    w = weights * (1 - offset / h) ** 2
    root = np.sqrt(w)
    free = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
    # Residuals beyond their variances make the data count less; smaller ones are luck, few points fit any law.
    excess = max(float(np.mean(w * (y - x @ free) ** 2)), 1.0)
    prior = np.diag([0.0, 1.0, 1.0]) * excess / PRIOR_EXPONENT**2
    # A prior centre of 0 for the slopes, none for the level; regimes are centred so that the two do not mix.
    middle = np.average(x, axis=0, weights=w)
    centred = x - middle
    centred[:, 0] = 1.0
    level, b, c = (float(each) for each in np.linalg.solve((centred.T * w) @ centred + prior, (centred.T * w) @ y))
    a = math.exp(level - b * float(middle[1]) - c * float(middle[2]))
    law = Law(a, b, c, offset, complement)
    fitted = a * np.exp(b * x[:, 1] + c * x[:, 2]) + offset
    return float(np.sum(weights * (np.log(h) - np.log(fitted)) ** 2)), law
