"""Learning curves at equal fractions of the run, and how far a ranking in mid-training is from the final one.

A fraction is a step over all steps of the budget, so runs with different batch sizes line up. Ranking unfinished runs
is unfair while learning rates still decay; these functions measure by how much (arXiv 2509.02046, section 4).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from tuneopt.analysis.best import Result
from tuneopt.analysis.flips import Flip
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.scaling import Array

if TYPE_CHECKING:
    import pyarrow as pa

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the ranking at each fraction of training agrees with the final one.

    ``tau`` is Kendall's tau-b, None where fewer than two curves are known. ``winner_rank`` is the place (1 = best) that
    the final winner held at that fraction: a cut that kept fewer would have thrown it away.
    """

    fractions: tuple[float, ...]
    tau: tuple[float | None, ...]
    winner_rank: tuple[int | None, ...]


def align(
    curves: pa.Table, trials: Sequence[str], fractions: Sequence[float] = FRACTIONS, loss: str = "select_loss"
) -> Array:
    """Losses (nats) of ``trials`` at ``fractions``, shape (trials, fractions), by linear interpolation.

    ``curves`` is `Ledger.curves`. A place before a trial's first measurement or after its last is NaN, which the
    functions here leave out of every comparison.
    """
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    wanted = set(trials)
    columns = curves.select(["trial", "fraction", loss]).to_pydict()
    for trial, fraction, value in zip(columns["trial"], columns["fraction"], columns[loss], strict=True):
        if trial in wanted and value is not None:
            points[trial].append((fraction, value))
    aligned = np.full((len(trials), len(fractions)), np.nan)
    for row, trial in enumerate(trials):
        if points[trial]:
            x, y = np.array(sorted(points[trial])).T
            aligned[row] = np.interp(fractions, x, y, left=np.nan, right=np.nan)
    return aligned


def agreement(aligned: Array, final: Sequence[float], fractions: Sequence[float] = FRACTIONS) -> Agreement:
    """Kendall's tau of the ranking at each fraction against that by ``final`` losses, over curves known at both."""
    from scipy.stats import kendalltau  # takes as long to import as all the rest of this package

    ends = np.asarray(final, float)
    taus: list[float | None] = []
    ranks: list[int | None] = []
    for column in aligned.T:
        known = np.isfinite(column) & np.isfinite(ends)
        tau = float(kendalltau(column[known], ends[known]).statistic) if known.sum() > 1 else np.nan
        taus.append(tau if np.isfinite(tau) else None)
        winner = int(np.nanargmin(ends)) if np.any(np.isfinite(ends)) else -1
        ranks.append(1 + int(np.sum(column[known] < column[winner])) if winner >= 0 and known[winner] else None)
    return Agreement(tuple(fractions), tuple(taus), tuple(ranks))


def training_flips(
    results: Sequence[Result],
    curves: pa.Table,
    noise: NoiseModel,
    fractions: Sequence[float] = FRACTIONS,
    loss: str = "report_loss",
) -> tuple[Flip, ...]:
    """Pairs of a regime whose order at some fraction of training is not the final one.

    Each pair appears once, at the latest such fraction. A curve is the mean over the seeds of the result. The flip is
    significant when at that fraction and at the end the difference exceeds the noise's threshold; the final noise
    stands for that of the curve.
    """
    regimes: dict[object, list[Result]] = defaultdict(list)
    for result in results:
        regimes[result.regime].append(result)
    trials = [trial for result in results for trial in result.trials]
    aligned = dict(zip(trials, align(curves, trials, fractions, loss), strict=True)) if trials else {}
    found: list[Flip] = []
    for members in regimes.values():
        mean = {result.optimizer: _mean(result, aligned) for result in members}
        for first, second in combinations(sorted(members, key=lambda result: result.loss), 2):
            found += _crossing(first, second, mean, noise, fractions)
    return tuple(found)


def _mean(result: Result, aligned: Mapping[str, Array]) -> Array:
    return np.asarray(np.mean([aligned[trial] for trial in result.trials], axis=0))


def _crossing(
    ahead: Result, behind: Result, mean: Mapping[str, Array], noise: NoiseModel, fractions: Sequence[float]
) -> list[Flip]:
    """``ahead`` won; the latest fraction before the end at which it was not ahead, if any."""
    gap = mean[ahead.optimizer] - mean[behind.optimizer]
    reversed_at = [place for place, fraction in enumerate(fractions) if fraction < 1 and gap[place] > 0]
    if not reversed_at or ahead.loss >= behind.loss:
        return []
    spread = noise.of(ahead.regime)
    threshold = np.inf if spread is None else spread.threshold(ahead.runs, behind.runs)
    sure = [place for place in reversed_at if gap[place] > threshold]
    certain = bool(sure) and behind.loss - ahead.loss > threshold
    place = (sure if certain else reversed_at)[-1]
    where = f"{ahead.regime.label} at {fractions[place]:.0%} of training"
    return [Flip("training", (behind.optimizer, ahead.optimizer), where, certain)]
