"""How much the final loss moves between seeds, and when a difference of two losses is more than that.

Noise is measured on runs that differ in nothing but the seed, pooled over all such groups of a regime. A regime with
few replicates borrows those of its scale, then those of its corpus. Units: nats per token.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

from tuneopt.analysis.multiple import range_quantile
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.spec import SCALES, InputError

CONFIDENCE = 0.95
"""One-sided confidence of a difference: 1.645 * sqrt(2) * sigma where sigma is known and both losses are one run."""

FAMILY_RATE = 0.05
"""Declared chance that a family of comparisons (a regime's pairs, a line's flips) holds any false one."""

ENOUGH = 4
"""Degrees of freedom from which a regime's own estimate is used without borrowing."""

PAPER_LADDER_SIGMA = 0.0012
"""Assumed where nothing was measured, at the paper ladder's scales only: 1.645 * sqrt(2) times it is just under the
study's tolerance of 0.003 (arXiv 2509.02046)."""


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


def measure(runs: Iterable[Run], sigma: float | None = None) -> NoiseModel:
    """The noise of each regime in ``runs``, on the report loss.

    ``sigma`` (nats), when given, holds everywhere. Else a regime takes what came with its rows (root mean square),
    else the narrowest of its own, its scale's and its corpus' replicates that has at least `ENOUGH` degrees of
    freedom (the widest if none has), else `PAPER_LADDER_SIGMA` on the paper ladder, else nothing. Raises `InputError`
    for a ``sigma`` that is not a positive number.
    """
    if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"sigma must be a positive number of nats, not {sigma!r}; the study's is about 0.0012")
    finished = [run for run in runs if run.status == "completed" and run.report_loss is not None]
    groups: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in finished:
        groups[run.regime, run.optimizer, run.config, run.variant].append(run)
    replicates: dict[RegimeKey, list[list[float]]] = defaultdict(list)
    given: dict[RegimeKey, list[float]] = defaultdict(list)
    for members in groups.values():
        losses = {run.seed: run.report_loss for run in members if run.report_loss is not None}
        pair = list(losses.values()) if len(losses) > 1 else []  # a single run says nothing about noise
        replicates[members[0].regime] += [pair] if pair else []
    for run in finished:
        if run.sigma:
            given[run.regime].append(run.sigma)
    found = {}
    for regime in replicates:
        noise = _of_regime(regime, replicates, given.get(regime, []), sigma)
        if noise is not None:
            found[regime] = noise
    return NoiseModel(found)


def _of_regime(
    regime: RegimeKey, replicates: Mapping[RegimeKey, list[list[float]]], given: list[float], sigma: float | None
) -> Noise | None:
    if sigma is not None:
        return Noise(sigma, None, "given", "everywhere")
    if given:
        return Noise(math.sqrt(math.fsum(value**2 for value in given) / len(given)), None, "given", regime.label)
    widest: Noise | None = None
    for pool, width in ((regime.label, 3), (f"scale {regime.scale}", 2), ("all scales", 1)):
        near = [groups for other, groups in replicates.items() if other[:width] == regime[:width]]
        spread, freedom = pooled(group for groups in near for group in groups)
        if freedom and spread > 0:
            widest = Noise(spread, freedom, "measured", pool)
            if freedom >= ENOUGH:
                return widest
    scale = SCALES.get(regime.scale)
    if widest is None and scale is not None and scale.ladder == "paper":
        return Noise(PAPER_LADDER_SIGMA, None, "assumed", "paper ladder")
    return widest
