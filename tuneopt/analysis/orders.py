"""What ranking unfinished runs would have done: the order at each fraction of training against the final one.

Two kinds of runs are ordered: the optimizers of a regime (each by its chosen configuration), and the trials of one
optimizer's tuning in a regime, whose learning rates decay from different heights. A cut keeps the better half.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneopt.analysis.aligned import FRACTIONS, Curves
from tuneopt.analysis.best import Result
from tuneopt.analysis.curves import agreement, curve_noise, mean_curve
from tuneopt.analysis.noise import FAMILY_RATE, Noise, NoiseModel
from tuneopt.analysis.ranking import Ranking
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.scaling import Array

OPTIMIZERS = "optimizers"

MOST_TRIALS = 500
"""Trials of one tuning that are ordered; of more, those with the lowest final losses."""

FEWEST_TRIALS = 4


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """How the order at each fraction of training agrees with the final one, and what a cut there would have cost.

    ``among`` is ``optimizers`` or the optimizer whose trials are ordered; ``curves`` counts them. ``tau`` is Kendall's
    tau-b, None under two known curves. ``crossed`` counts the pairs whose order at the fraction is not the final one,
    ``significant`` those of them where noise explains neither order (declared rate: `FAMILY_RATE` per regime).
    ``winner_rank`` is the place that the final winner held. A cut at the fraction keeps the better half, rounded up:
    ``thrown_away`` names the final winner, and whoever is tied with it, where the cut loses them, and ``cut_regret`` is
    the final loss of the best that it keeps minus that of the best of all (nats).
    """

    regime: RegimeKey
    among: str
    curves: int
    fractions: tuple[float, ...]
    tau: tuple[float | None, ...]
    crossed: tuple[int, ...]
    significant: tuple[int, ...]
    winner_rank: tuple[int | None, ...]
    thrown_away: tuple[tuple[str, ...], ...]
    cut_regret: tuple[float | None, ...]


@dataclass(frozen=True)
class _Line:
    """Curves to be ordered, shape (curves, fractions), with final losses, seeds per curve and names."""

    names: tuple[str, ...]
    aligned: Array
    final: Array
    runs: Array
    best: frozenset[str]


def orders(
    results: Sequence[Result],
    rankings: Iterable[Ranking],
    runs: Sequence[Run],
    curves: Curves,
    noise: NoiseModel,
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[TrainingOrder, ...]:
    """The orders among the optimizers of each regime, then among the trials of each optimizer's tuning.

    Optimizers are judged on the report loss, trials of a tuning on the select loss, as a searcher would see it.
    """
    best = {ranking.regime: frozenset(ranking.leaders or ranking.order[:1]) for ranking in rankings}
    spreads = curve_noise(runs, curves, noise, fractions)
    found = []
    trials = [trial for result in results for trial in result.trials]
    reported = dict(zip(trials, curves.at(trials, fractions, "report_loss"), strict=True)) if trials else {}
    regimes: dict[RegimeKey, list[Result]] = defaultdict(list)
    for result in results:
        regimes[result.regime].append(result)
    for regime, members in regimes.items():
        line = _of_results(members, reported, best.get(regime, frozenset()))
        end = noise.of(regime)
        found.append(_order(regime, OPTIMIZERS, line, spreads.get(regime) or [end] * len(fractions), end, fractions))
    for (regime, optimizer), trained in _tunings(runs).items():
        line = _of_trials(trained, curves, fractions)
        end = noise.of(regime)
        found.append(_order(regime, optimizer, line, spreads.get(regime) or [end] * len(fractions), end, fractions))
    return tuple(order for order in found if order is not None)


def _of_results(members: Sequence[Result], aligned: Mapping[str, Array], best: frozenset[str]) -> _Line:
    return _Line(
        tuple(result.optimizer for result in members),
        np.stack([mean_curve(result, aligned) for result in members]),
        np.array([result.loss for result in members]),
        np.array([result.runs for result in members], float),
        best,
    )


def _tunings(runs: Sequence[Run]) -> dict[tuple[RegimeKey, str], list[Run]]:
    """The comparable runs of each optimizer's tuning in a regime, on the seed that most of them have."""
    groups: dict[tuple[RegimeKey, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.status == "completed" and run.select_loss is not None:
            groups[run.regime, run.optimizer].append(run)
    found = {}
    for key, members in groups.items():
        seeds = [run.seed for run in members]
        seed = min(set(seeds), key=lambda each: (-seeds.count(each), each)) if len(set(seeds)) > 1 else seeds[0]
        same = sorted((run for run in members if run.seed == seed), key=lambda run: (run.select_loss or 0.0, run.trial))
        if len(same) >= FEWEST_TRIALS:
            found[key] = same[:MOST_TRIALS]
    return found


def _of_trials(members: Sequence[Run], curves: Curves, fractions: Sequence[float]) -> _Line:
    names = tuple(run.trial for run in members)
    final = np.array([run.select_loss for run in members], float)
    return _Line(names, curves.at(names, fractions), final, np.ones(len(names)), frozenset(names[:1]))


def _order(
    regime: RegimeKey,
    among: str,
    line: _Line,
    spreads: Sequence[Noise | None],
    end: Noise | None,
    fractions: Sequence[float],
) -> TrainingOrder | None:
    known = np.asarray(np.isfinite(line.aligned).any(axis=1))
    if known.sum() < 2:
        return None
    line = _Line(
        tuple(name for name, there in zip(line.names, known, strict=True) if there),
        line.aligned[known],
        line.final[known],
        line.runs[known],
        line.best,
    )
    agreed = agreement(line.aligned, list(line.final), fractions)
    crossed, sure = zip(*(_pairs(line, place, spreads[place], end, len(fractions)) for place in range(len(fractions))),
                        strict=True)  # fmt: skip
    cuts = [_cut(line, column) for column in line.aligned.T]
    return TrainingOrder(
        regime=regime,
        among=among,
        curves=len(line.names),
        fractions=tuple(fractions),
        tau=agreed.tau,
        crossed=crossed,
        significant=sure,
        winner_rank=agreed.winner_rank,
        thrown_away=tuple(lost for lost, _ in cuts),
        cut_regret=tuple(regret for _, regret in cuts),
    )


def _pairs(line: _Line, place: int, noise: Noise | None, end: Noise | None, places: int) -> tuple[int, int]:
    """Pairs whose order at a fraction is not the final one, and how many of them noise does not explain."""
    column = line.aligned[:, place]
    now = column[:, None] - column[None, :]  # NaN compares as false
    last = line.final[:, None] - line.final[None, :]
    crossed = (now > 0) & (last < 0)
    if noise is None or end is None:
        return int(crossed.sum()), 0
    spread = np.sqrt(1 / line.runs[:, None] + 1 / line.runs[None, :]) / math.sqrt(2)
    rate = FAMILY_RATE / places
    compared = len(line.names)
    sure = crossed & (now > noise.span(1, 1, compared, rate) * spread)
    return int(crossed.sum()), int((sure & (-last > end.span(1, 1, compared, rate) * spread)).sum())


def _cut(line: _Line, column: Array) -> tuple[tuple[str, ...], float | None]:
    known = np.flatnonzero(np.isfinite(column))
    if len(known) < 2:
        return (), None
    kept = known[np.argsort(column[known], kind="stable")][: math.ceil(len(known) / 2)]
    dropped = set(known) - set(kept)
    lost = tuple(line.names[place] for place in sorted(dropped) if line.names[place] in line.best)
    return lost, float(line.final[kept].min() - line.final[known].min())
