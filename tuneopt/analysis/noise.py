"""How much a loss moves between seeds, and when a difference of two losses is more than that.

Noise is measured on runs that differ in nothing but the seed, pooled over all such groups of a regime. A regime with
few replicates borrows those of its scale, then those of its corpus. Everything that decides or draws takes its sigma
from here, with the degrees of freedom of the estimate. Units: nats per token.

Assumed: losses of one setting are normal and independent between seeds, and all optimizers of a regime share one
sigma. `measure` alone makes these assumptions. All others ask a `NoiseModel` for the `Noise` of a regime, and that for
a threshold, so a model that shares less, or borrows by a law over scale, changes nothing but this file.

Several comparisons at once are judged by the studentized range. Among k means with equal noise and no true difference,
the largest difference over sigma / sqrt(runs) exceeds the range's quantile with the family's error rate and no more
(Tukey 1953; Kramer 1956 for unequal numbers of runs).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import chdtri, ndtr, ndtri, stdtrit

from tuneopt.analysis.runs import FRACTIONS, Array, Curves, RegimeKey, TrainingRun
from tuneopt.spec import SCALES, InputError

CONFIDENCE = 0.95
"""One-sided confidence of a difference: 1.645 * sqrt(2) * sigma where sigma is known and both losses are one run."""

FAMILY_RATE = 0.05
"""Declared chance that a family of comparisons (a regime's pairs, a line's flips) holds any false one."""

ENOUGH = 4
"""Degrees of freedom from which an estimate is used without borrowing. With 4 the 90% interval of sigma still spans a
factor of 3.6; with 2 it spans 7.6, and Student's t makes of it a threshold that tells nothing apart."""

PAPER_LADDER_SIGMA = 0.0012
"""Assumed where nothing was measured, at the paper ladder's scales only: 1.645 * sqrt(2) times it is just under the
study's tolerance of 0.003 (arXiv 2509.02046). Public logs at 124M parameters give 0.0011 to 0.0012."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of a final loss between seeds.

    ``freedom`` is the degrees of freedom of the estimate, None when sigma is taken as known. ``source`` is
    ``measured``, ``given`` (by the user or with the rows) or ``assumed``; ``pool`` says over what it was measured.
    """

    sigma: float
    freedom: int | None
    source: str
    pool: str

    def threshold(self, runs: int = 1, others: int = 1, confidence: float = CONFIDENCE) -> float:
        """The smallest significant difference (nats) between means over ``runs`` and ``others`` runs."""
        return self.quantile(confidence) * self.sigma * math.sqrt(1 / runs + 1 / others)

    def quantile(self, confidence: float) -> float:
        """The one-sided normal quantile, or Student's where sigma was measured."""
        return float(ndtri(confidence) if self.freedom is None else stdtrit(self.freedom, confidence))

    def span(self, runs: int, others: int, compared: int, rate: float = FAMILY_RATE) -> float:
        """The smallest difference (nats) that counts when ``compared`` results are all compared with each other.

        The chance of calling any of their equal pairs different is at most ``rate`` (Tukey-Kramer).
        """
        quantile = range_quantile(1 - rate, max(compared, 2), self.freedom)
        return quantile / math.sqrt(2) * self.sigma * math.sqrt(1 / runs + 1 / others)


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """The noise of every regime; `of` gives None where nothing is known."""

    regimes: Mapping[RegimeKey, Noise]

    def of(self, regime: RegimeKey) -> Noise | None:
        """The noise in one regime."""
        return self.regimes.get(regime)


def pooled(groups: Iterable[Iterable[float]]) -> tuple[float, int]:
    """Pooled standard deviation of groups of replicates, and its degrees of freedom (0 and 0.0 without any pair)."""
    squares: list[float] = []
    freedom = 0
    for group in groups:
        values = list(group)
        mean = math.fsum(values) / max(len(values), 1)
        squares += [(value - mean) ** 2 for value in values]
        freedom += max(len(values) - 1, 0)
    # fsum is exact, so the order of the rows changes not even the last digit
    return (math.sqrt(math.fsum(squares) / freedom) if freedom else 0.0), freedom


def measure(runs: Iterable[TrainingRun], sigma: float | None = None) -> NoiseModel:
    """The noise of each regime in ``runs``, on the report loss.

    ``sigma`` (nats), when given, holds everywhere. Else a regime takes what came with its rows (root mean square),
    else the narrowest of its own, its scale's and its corpus' replicates that has at least `ENOUGH` degrees of
    freedom (the widest if none has), else `PAPER_LADDER_SIGMA` on the paper ladder, else nothing. Raises `InputError`
    for a ``sigma`` that is not a positive number.
    """
    if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"sigma must be a positive number of nats, not {sigma!r}; the study's is about 0.0012")
    finished = [run for run in runs if run.status == "completed"]
    settings: dict[object, dict[int, float]] = defaultdict(dict)
    replicates: dict[RegimeKey, list[dict[int, float]]] = defaultdict(list)
    given: dict[RegimeKey, list[float]] = defaultdict(list)
    for run in finished:
        if run.setting not in settings:
            replicates[run.regime].append(settings[run.setting])
        settings[run.setting][run.seed] = run.losses[1]
        if run.sigma:
            given[run.regime].append(run.sigma)
    model = {}
    for regime in replicates:
        noise = _of_regime(regime, replicates, given.get(regime, []), sigma)
        if noise is not None:
            model[regime] = noise
    return NoiseModel(model)


def _of_regime(
    regime: RegimeKey, replicates: Mapping[RegimeKey, list[dict[int, float]]], given: list[float], sigma: float | None
) -> Noise | None:
    if sigma is not None:
        return Noise(sigma, None, "given", "everywhere")
    if given:
        return Noise(math.sqrt(math.fsum(value**2 for value in given) / len(given)), None, "given", regime.label)
    widest: Noise | None = None
    # The first 3, 2 or 1 parts of (corpus, scale, ratio) must agree: the regime, its scale, its corpus.
    for pool, width in ((regime.label, 3), (f"scale {regime.scale}", 2), ("all scales", 1)):
        near = [groups for other, groups in replicates.items() if other[:width] == regime[:width]]
        spread, freedom = pooled(group.values() for groups in near for group in groups)
        if freedom and spread > 0:
            widest = Noise(spread, freedom, "measured", pool)
            if freedom >= ENOUGH:
                return widest
    scale = SCALES.get(regime.scale)
    if widest is None and scale is not None and scale.ladder == "paper":
        return Noise(PAPER_LADDER_SIGMA, None, "assumed", "paper ladder")
    return widest


def curve_noise(
    runs: Iterable[TrainingRun],
    curves: Curves,
    noise: NoiseModel,
    fractions: Sequence[float] = FRACTIONS,
    loss: str = "report_loss",
) -> dict[RegimeKey, list[Noise | None]]:
    """The noise between seeds at each fraction of training, of the regimes that have replicates.

    Where a fraction has fewer than `ENOUGH` degrees of freedom, the noise of the final loss (``noise``) stands there.
    """
    settings: dict[object, list[TrainingRun]] = defaultdict(list)
    for run in runs:
        if run.status == "completed":
            settings[run.setting].append(run)
    regimes: dict[RegimeKey, list[Array]] = defaultdict(list)  # arrays of shape (seeds, fractions)
    for members in settings.values():
        if len(members) > 1:
            aligned = curves.at([run.trial for run in members], fractions, loss)
            regimes[members[0].regime].append(aligned)
    spreads: dict[RegimeKey, list[Noise | None]] = {}
    for regime, arrays in regimes.items():
        spreads[regime] = []
        for place in range(len(fractions)):
            sigma, freedom = pooled(array[np.isfinite(array[:, place]), place] for array in arrays)
            own = Noise(sigma, freedom, "measured", regime.label) if freedom >= ENOUGH and sigma > 0 else None
            spreads[regime].append(own or noise.of(regime))
    return spreads


# Gauss-Legendre nodes for the two integrals of the studentized range: over the largest mean (z within 8.5 standard
# deviations, beyond which the density is below 1e-16) and over the estimate of sigma (u, its probability).
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
    """The same for a known sigma and quantiles (n,): k times the chance that k - 1 means lie that far below one."""
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
