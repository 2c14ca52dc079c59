"""How far a ranking in mid-training is from the final one, and which pairs of optimizers cross.

Ranking unfinished runs
is unfair while learning rates still decay; these functions measure by how much (arXiv 2509.02046, section 4).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tuneopt.analysis.aligned import FRACTIONS, Curves
from tuneopt.analysis.best import Result
from tuneopt.analysis.flips import Flip
from tuneopt.analysis.noise import ENOUGH, FAMILY_RATE, Noise, NoiseModel, pooled
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.scaling import Array


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the ranking at each fraction of training agrees with the final one.

    ``tau`` is Kendall's tau-b, None where fewer than two curves are known. ``winner_rank`` is the place (1 = best) that
    the final winner held at that fraction: a cut that kept fewer would have thrown it away.
    """

    fractions: tuple[float, ...]
    tau: tuple[float | None, ...]
    winner_rank: tuple[int | None, ...]


def agreement(aligned: Array, final: Sequence[float], fractions: Sequence[float] = FRACTIONS) -> Agreement:
    """Kendall's tau of the ranking at each fraction against that by ``final`` losses, over curves known at both."""
    ends = np.asarray(final, float)
    taus: list[float | None] = []
    ranks: list[int | None] = []
    for column in aligned.T:
        known = np.isfinite(column) & np.isfinite(ends)
        taus.append(kendall(column[known], ends[known]))
        winner = int(np.nanargmin(ends)) if np.any(np.isfinite(ends)) else -1
        ranks.append(1 + int(np.sum(column[known] < column[winner])) if winner >= 0 and known[winner] else None)
    return Agreement(tuple(fractions), tuple(taus), tuple(ranks))


def kendall(first: Array, second: Array) -> float | None:
    """Kendall's tau-b of two lists of finite numbers; None where either has no two different values."""
    one = np.sign(first[:, None] - first[None, :])
    other = np.sign(second[:, None] - second[None, :])
    pairs = math.sqrt(np.count_nonzero(one)) * math.sqrt(np.count_nonzero(other))
    return float(np.sum(one * other)) / pairs if pairs else None


def training_flips(
    results: Sequence[Result],
    curves: Curves,
    noise: NoiseModel,
    fractions: Sequence[float] = FRACTIONS,
    loss: str = "report_loss",
    runs: Iterable[Run] = (),
) -> tuple[Flip, ...]:
    """Pairs of a regime whose order at some fraction of training is not the final one.

    Each pair appears once, at the latest such fraction. A curve is the mean over the seeds of the result. The flip is
    significant when noise explains neither the order at that fraction nor the final one (see `tuneopt.analysis.flips`).
    The noise of a curve is that of replicates among ``runs`` where they are enough, else the final loss' stands for it.
    """
    regimes: dict[RegimeKey, list[Result]] = defaultdict(list)
    for result in results:
        regimes[result.regime].append(result)
    trials = [trial for result in results for trial in result.trials]
    aligned = dict(zip(trials, curves.at(trials, fractions, loss), strict=True)) if trials else {}
    spreads = curve_noise(runs, curves, noise, fractions, loss)
    found: list[Flip] = []
    for regime, members in regimes.items():
        mean = {result.optimizer: mean_curve(result, aligned) for result in members}
        known = [result for result in members if np.isfinite(mean[result.optimizer]).any()]
        spread, end = spreads.get(regime), noise.of(regime)
        family = _Family(len(known), len(fractions), fractions, spread or [end] * len(fractions), end)
        for first, second in combinations(sorted(known, key=lambda result: result.loss), 2):
            found += _crossing(first, second, mean, family)
    return tuple(found)


def mean_curve(result: Result, aligned: Mapping[str, Array]) -> Array:
    """The mean of a result's curves over its seeds; NaN where one of them is not known."""
    return np.asarray(np.mean([aligned[trial] for trial in result.trials], axis=0))


def curve_noise(
    runs: Iterable[Run],
    curves: Curves,
    noise: NoiseModel,
    fractions: Sequence[float] = FRACTIONS,
    loss: str = "report_loss",
) -> dict[RegimeKey, list[Noise | None]]:
    """The noise between seeds at each fraction, of the regimes whose replicates have enough degrees of freedom.

    Where they are too few at a fraction, the noise of the final loss stands there.
    """
    groups: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.status == "completed":
            groups[run.regime, run.optimizer, run.config, run.variant].append(run)
    replicated = [members for members in groups.values() if len(members) > 1]
    trials = [run.trial for members in replicated for run in members]
    aligned = dict(zip(trials, curves.at(trials, fractions, loss), strict=True)) if trials else {}
    regimes: dict[RegimeKey, list[Array]] = defaultdict(list)
    for members in replicated:
        regimes[members[0].regime].append(np.stack([aligned[run.trial] for run in members]))
    return {
        regime: [_pooled_at(place, arrays, noise.of(regime), regime) for place in range(len(fractions))]
        for regime, arrays in regimes.items()
    }


def _pooled_at(place: int, arrays: list[Array], final: Noise | None, regime: RegimeKey) -> Noise | None:
    sigma, freedom = pooled(array[np.isfinite(array[:, place]), place] for array in arrays)
    return Noise(sigma, freedom, "measured", regime.label) if freedom >= ENOUGH and sigma > 0 else final


@dataclass(frozen=True)
class _Family:
    """What the pairs of one regime's training share."""

    compared: int
    places: int
    fractions: Sequence[float]
    spreads: Sequence[Noise | None]
    end: Noise | None

    def span(self, noise: Noise | None, first: Result, second: Result) -> float:
        if noise is None:
            return math.inf
        return noise.span(first.runs, second.runs, self.compared, FAMILY_RATE / self.places)


def _crossing(ahead: Result, behind: Result, mean: Mapping[str, Array], family: _Family) -> list[Flip]:
    """``ahead`` won; the latest fraction before the end at which it was not ahead, if any."""
    gap = mean[ahead.optimizer] - mean[behind.optimizer]
    before_end = [place for place, fraction in enumerate(family.fractions) if fraction < 1]
    reversed_at = [place for place in before_end if gap[place] > 0]
    if not reversed_at or ahead.loss >= behind.loss:
        return []
    sure = [place for place in reversed_at if gap[place] > family.span(family.spreads[place], ahead, behind)]
    certain = bool(sure) and behind.loss - ahead.loss > family.span(family.end, ahead, behind)
    fraction = family.fractions[(sure if certain else reversed_at)[-1]]
    where = f"{ahead.regime.label} at {fraction:.0%} of training"
    pair = (behind.optimizer, ahead.optimizer)
    return [Flip("training", pair, where, certain, ahead.regime, ahead.regime, fraction)]
