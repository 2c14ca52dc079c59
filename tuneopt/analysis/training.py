"""What ranking unfinished runs would have done: the order at each fraction of training against the final one.

Ranking unfinished runs is unfair while learning rates still decay; these functions measure by how much (Wen et al.,
arXiv 2509.02046, section 4). Two kinds of runs are ordered: the optimizers of a regime (each by its winner), and the
trials of one optimizer's tuning in a regime, whose learning rates decay from different heights. Curves are read at
equal fractions of the run (`tuneopt.analysis.runs.Curves`); a fraction where a curve is not known is left out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from tuneopt.analysis.noise import FAMILY_RATE, Noise, NoiseModel, curve_noise, pair_span
from tuneopt.analysis.ranking import Flip, Ranking
from tuneopt.analysis.runs import FRACTIONS, Array, Curves, RegimeKey, TrainingRun
from tuneopt.analysis.winner import Winner, by_regime

OPTIMIZERS = "optimizers"

MOST_TRIALS = 500
"""Trials of one tuning that are ordered; of more, those with the lowest final losses. Pairs grow with the square."""

FEWEST_CURVES = 3
"""Curves below which an order has no rank correlation."""

FEWEST_TRIALS = 4
"""Trials below which an order says nothing: of three a cut keeps two."""


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """How the order at each fraction of training agrees with the final one, and what a cut there would have cost.

    ``among`` is ``optimizers`` or the optimizer whose trials are ordered; ``curves`` counts them. ``tau`` is Kendall's
    tau-b, None under three known curves. ``crossed`` counts the pairs whose order at the fraction is not the final one,
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
    """Curves to be ordered, shape (curves, fractions), with final losses and seeds per curve, both (curves,)."""

    names: tuple[str, ...]
    aligned: Array
    final: Array
    runs: Array
    best: frozenset[str]
    """Names of the final winner and whoever is tied with it."""


def orders(
    winners: Sequence[Winner],
    rankings: Iterable[Ranking],
    runs: Sequence[TrainingRun],
    curves: Curves,
    noise: NoiseModel,
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[TrainingOrder, ...]:
    """The orders among the optimizers of each regime, then among the trials of each optimizer's tuning.

    Optimizers are judged on the report loss, trials of a tuning on the select loss, as a searcher would see it.
    """
    best = {ranking.regime: frozenset(ranking.leaders or ranking.order[:1]) for ranking in rankings}
    lines = []
    for regime, members in by_regime(winners).items():
        line = _Line(
            names=tuple(winner.optimizer for winner in members),
            aligned=np.stack([mean_curve(winner, curves, fractions) for winner in members]),
            final=np.array([winner.loss for winner in members]),
            runs=np.array([winner.runs for winner in members], float),
            best=best.get(regime, frozenset()),
        )
        lines.append((regime, OPTIMIZERS, line))
    for (regime, optimizer), trained in _tunings(runs).items():
        # The best of a tuning is its trial of the lowest final loss, as a searcher would take it.
        names = tuple(run.trial for run in trained)
        final = np.array([run.select_loss for run in trained], float)
        line = _Line(names, curves.at(names, fractions), final, np.ones(len(names)), frozenset(names[:1]))
        lines.append((regime, optimizer, line))
    spreads = curve_noise(runs, curves, noise, fractions)
    every = []
    for regime, among, line in lines:
        # The trials of a tuning all have the noise of its optimizer.
        owners = line.names if among == OPTIMIZERS else (among,) * len(line.names)
        ends = [noise.of(regime, owner) for owner in owners]
        along = [
            spreads.get((regime, owner)) or [end] * len(fractions) for owner, end in zip(owners, ends, strict=True)
        ]
        order = _order(regime, among, line, along, ends, fractions)
        every += [] if order is None else [order]
    return tuple(every)


def _tunings(runs: Sequence[TrainingRun]) -> dict[tuple[RegimeKey, str], list[TrainingRun]]:
    """The completed runs of each optimizer's tuning in a regime, best first, on the seed that most of them have."""
    groups: dict[tuple[RegimeKey, str], list[TrainingRun]] = defaultdict(list)
    for run in runs:
        if run.status == "completed":
            groups[run.regime, run.optimizer].append(run)
    # Trials of other seeds differ by more than their configuration, so only those of one seed are ordered; where every
    # trial has a seed of its own there is no such choice, and all are.
    tunings = {}
    for key, members in groups.items():
        counts = Counter(run.seed for run in members)
        usual = min(counts, key=lambda seed: (-counts[seed], seed))
        chosen = [run for run in members if run.seed == usual or counts[usual] == 1]
        # Seeds of one configuration are no trials of a tuning: nobody chooses among them.
        settings = {run.setting: run for run in sorted(chosen, key=lambda run: run.seed, reverse=True)}
        same = sorted(settings.values(), key=lambda run: (run.losses[0], run.trial))
        if len(same) >= FEWEST_TRIALS:
            tunings[key] = same[:MOST_TRIALS]
    return tunings


def mean_curve(winner: Winner, curves: Curves, fractions: Sequence[float], loss: str = "report_loss") -> Array:
    """The mean of a winner's curves over its seeds, shape (fractions,); NaN where one of them is not known."""
    return np.asarray(np.mean(curves.at(winner.trials, fractions, loss), axis=0))


def _order(
    regime: RegimeKey,
    among: str,
    line: _Line,
    spreads: Sequence[Sequence[Noise | None]],
    ends: Sequence[Noise | None],
    fractions: Sequence[float],
) -> TrainingOrder | None:
    """One order; ``spreads`` is each curve's noise at each fraction, ``ends`` that of the final losses.

    None under two curves.
    """
    known = np.asarray(np.isfinite(line.aligned).any(axis=1))
    if known.sum() < 2:
        return None
    spreads = [spread for spread, there in zip(spreads, known, strict=True) if there]
    ends = [end for end, there in zip(ends, known, strict=True) if there]
    names = tuple(name for name, there in zip(line.names, known, strict=True) if there)
    line = _Line(names, line.aligned[known], line.final[known], line.runs[known], line.best)
    taus, ranks = agreement(line.aligned, line.final)
    crossed, significant = _pairs(line, spreads, ends)
    cuts = [_cut(line, column) for column in line.aligned.T]
    return TrainingOrder(
        regime=regime,
        among=among,
        curves=len(line.names),
        fractions=tuple(fractions),
        tau=taus,
        crossed=crossed,
        significant=significant,
        winner_rank=ranks,
        thrown_away=tuple(lost for lost, _ in cuts),
        cut_regret=tuple(regret for _, regret in cuts),
    )


def agreement(aligned: Array, final: Array) -> tuple[tuple[float | None, ...], tuple[int | None, ...]]:
    """How the ranking at each fraction agrees with that by ``final`` losses (curves,), over curves known at both.

    ``aligned`` has shape (curves, fractions). Gives Kendall's tau-b, None under three known curves, and the place (1 is
    best) that the final winner held: a cut that kept fewer would have thrown it away.
    """
    taus: list[float | None] = []
    ranks: list[int | None] = []
    for column in aligned.T:
        known = np.isfinite(column) & np.isfinite(final)
        # Two curves agree or they do not: a correlation of them is 1 or -1 whatever happened.
        taus.append(kendall(column[known], final[known]) if known.sum() >= FEWEST_CURVES else None)
        winner = int(np.nanargmin(final)) if np.any(np.isfinite(final)) else -1
        ranks.append(1 + int(np.sum(column[known] < column[winner])) if winner >= 0 and known[winner] else None)
    return tuple(taus), tuple(ranks)


def kendall(first: Array, second: Array) -> float | None:
    """Kendall's tau-b of two lists of finite numbers; None where either has no two different values."""
    one = np.sign(first[:, None] - first[None, :])
    other = np.sign(second[:, None] - second[None, :])
    pairs = math.sqrt(np.count_nonzero(one)) * math.sqrt(np.count_nonzero(other))
    return float(np.sum(one * other)) / pairs if pairs else None


def _pairs(
    line: _Line, spreads: Sequence[Sequence[Noise | None]], ends: Sequence[Noise | None]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """At each fraction the pairs whose order is not the final one, and how many of them noise does not explain."""
    rate = FAMILY_RATE / line.aligned.shape[1]
    now = line.aligned[:, None] - line.aligned[None]  # (curves, curves, fractions); NaN compares as false
    last = line.final[:, None] - line.final[None, :]
    crossed = (now > 0) & (last < 0)[..., None]
    sure = crossed & (-last > _bars(ends, line.runs, np.asarray(crossed.any(axis=-1)), rate))[..., None]
    for place in range(sure.shape[-1]):
        bars = _bars([spread[place] for spread in spreads], line.runs, sure[..., place], rate)
        sure[..., place] &= now[..., place] > bars
    return tuple(crossed.sum(axis=(0, 1)).tolist()), tuple(sure.sum(axis=(0, 1)).tolist())


def _bars(noises: Sequence[Noise | None], runs: Array, asked: npt.NDArray[np.bool_], rate: float) -> Array:
    """The smallest difference (nats) that counts for each ``asked`` pair of curves; infinite where noise is unknown."""
    compared, bars = len(noises), np.full(asked.shape, np.inf)
    first = noises[0]
    if not asked.any():
        return bars
    if first is not None and all(noise is first or noise == first for noise in noises):
        # Hundreds of trials of one tuning: one span, scaled to seeds.
        scale = np.sqrt(1 / runs[:, None] + 1 / runs[None, :]) / math.sqrt(2)
        return np.asarray(first.span(1, 1, compared, rate) * scale)
    for one, other in np.argwhere(asked):
        mine, theirs = noises[one], noises[other]
        if mine is not None and theirs is not None:
            bars[one, other] = pair_span(mine, int(runs[one]), theirs, int(runs[other]), compared, rate)
    return bars


def _cut(line: _Line, column: Array) -> tuple[tuple[str, ...], float | None]:
    """Who of the final best would be lost by keeping the better half at one fraction, and what it costs (nats)."""
    known = np.flatnonzero(np.isfinite(column))
    if len(known) < 2:
        return (), None
    # A stable sort keeps equals in the order of the trials, so the same curves give the same cut.
    kept = known[np.argsort(column[known], kind="stable")][: math.ceil(len(known) / 2)]
    dropped = set(known) - set(kept)
    lost = tuple(line.names[place] for place in sorted(dropped) if line.names[place] in line.best)
    return lost, float(line.final[kept].min() - line.final[known].min())


def training_flips(
    winners: Sequence[Winner],
    curves: Curves,
    noise: NoiseModel,
    fractions: Sequence[float] = FRACTIONS,
    loss: str = "report_loss",
    runs: Iterable[TrainingRun] = (),
) -> tuple[Flip, ...]:
    """Pairs of a regime whose order at some fraction of training is not the final one.

    Each pair appears once, at the latest such fraction. A curve is the mean over the seeds of the winner. The flip is
    significant when noise explains neither the order at that fraction nor the final one (see
    `tuneopt.analysis.ranking`). The noise of a curve is that of replicates among ``runs`` where they are enough, else
    the final loss' stands for it.
    """
    spreads = curve_noise(runs, curves, noise, fractions, loss)
    flips: list[Flip] = []
    for regime, members in by_regime(winners).items():
        mean = {winner.optimizer: mean_curve(winner, curves, fractions, loss) for winner in members}
        known = [winner for winner in members if np.isfinite(mean[winner.optimizer]).any()]
        ends = {winner.optimizer: noise.of(regime, winner.optimizer) for winner in known}
        noises = {name: spreads.get((regime, name)) or [end] * len(fractions) for name, end in ends.items()}

        def span(
            one: Noise | None, first: Winner, other: Noise | None, second: Winner, compared: int = len(known)
        ) -> float:
            if one is None or other is None:
                return math.inf
            return pair_span(one, first.runs, other, second.runs, compared, FAMILY_RATE / len(fractions))

        for ahead, behind in combinations(sorted(known, key=lambda winner: winner.loss), 2):
            gap = mean[ahead.optimizer] - mean[behind.optimizer]  # (fractions,)
            reversed_at = [place for place, fraction in enumerate(fractions) if fraction < 1 and gap[place] > 0]
            if not reversed_at or ahead.loss >= behind.loss:
                continue
            # Significant at the latest fraction where noise explains neither this order nor the final one; where there
            # is none, the latest fraction of the other order is told, as a flip within noise.
            one, other = ahead.optimizer, behind.optimizer
            sure = [
                place
                for place in reversed_at
                if gap[place] > span(noises[one][place], ahead, noises[other][place], behind)
            ]
            certain = bool(sure) and behind.loss - ahead.loss > span(ends[one], ahead, ends[other], behind)
            fraction = fractions[(sure if certain else reversed_at)[-1]]
            where = f"{regime.label} at {fraction:.0%} of training"
            pair = (behind.optimizer, ahead.optimizer)
            flips.append(Flip("training", pair, where, certain, regime, regime, fraction))
    return tuple(flips)
