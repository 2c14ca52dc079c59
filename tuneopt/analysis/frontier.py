"""Speedup where each scale has one ratio: the baseline's loss against compute over scales, and rivals on it.

Most papers train each size once, at about one ratio. Then no scale has a law over its tokens, but the baseline's sizes
have one over compute: L(C) = alpha C^-B + beta. A rival that reaches a loss with C is worth the C_eff at which the
baseline's frontier reaches it; its speedup is C_eff / C. It says how much more compute the baseline would need, spent
on a larger model *and* more tokens, so it is another figure than the speedup in tokens at one size, and is kept apart.

Compute is what the table counts as FLOPs; where a row has none, or has them in another unit, 6 N D, and where N is not
known, there is no frontier.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.regimes import ONE_LINE, near
from tuneopt.analysis.runs import TrainingRun
from tuneopt.analysis.speedup import (
    DEFAULTS,
    BaselineLaw,
    IntervalSettings,
    Speedup,
    baseline_law,
    over_law,
    redrawn_law,
)
from tuneopt.analysis.winner import Winner, broken

FAR = 1e3
"""Factor between FLOPs and 6 N D from which on they are of another unit: embeddings, attention and recomputation make
a small model's a few tens of times as many."""

MISFIT = 2.0
"""From this factor on by which a misfit widens intervals, the baseline's losses are called inconsistent: by chance
alone four points reach it in 2% of cases."""

FEWEST_SCALES = 3
"""Sizes of the baseline that a frontier needs: a straight line through two has no error that shows."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """The baseline's loss over compute along one line of scales, and the speedups in compute over it.

    ``measure`` is ``flops`` (as counted by the table) or ``6ND``. ``law`` holds the law over compute, with compute in
    place of tokens; ``speedups`` are C_eff / C with the flags of `Speedup`.
    """

    corpus: str
    measure: str
    law: BaselineLaw
    speedups: tuple[Speedup, ...]


def frontiers(
    winners: Sequence[Winner], runs: Iterable[TrainingRun], noise: NoiseModel, how: IntervalSettings = DEFAULTS
) -> tuple[Frontier, ...]:
    """The frontier of each line of about equal ratios where the baseline has three scales or more.

    A line is left out where the baseline has a law over tokens at every scale of it: that says more.
    """
    counted = _flops(winners, runs)
    far = broken(winners)
    ratios: dict[tuple[str, str], set[float]] = defaultdict(set)
    for winner in winners:
        if winner.optimizer == how.baseline:
            ratios[winner.regime[:2]].add(winner.regime.ratio)
    made = []
    for corpus in dict.fromkeys(winner.regime.corpus for winner in winners):
        here = [
            winner
            for winner in winners
            if winner.regime.corpus == corpus and winner.parameters and (winner.regime, winner.optimizer) not in far
        ]
        regimes = {winner.regime for winner in here if winner.optimizer == how.baseline}
        for line in near(((regime, regime.ratio) for regime in regimes), ONE_LINE, lambda regime: regime.scale):
            places = {regime for regime, _ in line}
            if len(places) < FEWEST_SCALES or all(len(ratios[regime[:2]]) > 1 for regime in places):
                continue
            members = [winner for winner in here if winner.regime in places]
            front = _frontier(corpus, members, counted, noise, how)
            made += [front] if front.law.local is not None else []
    return tuple(made)


def frontier_doubts(fronts: Iterable[Frontier], noise: NoiseModel, baseline: str) -> Iterable[str]:
    """Frontiers that the baseline's own sizes contradict: one of them may have been trained otherwise."""
    for front in fronts:
        law = front.law.local
        known = all(noise.of(one.regime, one.optimizer) for one in front.law.winners)
        if law is None or law.misfit <= MISFIT or not known:
            continue
        points = zip(front.law.winners, law.loss(law.budgets), strict=True)
        worst, fitted = max(points, key=lambda pair: abs(pair[0].loss - pair[1]))
        yield (
            f"no law that falls and is convex explains the losses of {baseline} over its sizes: the best misses its "
            f"points by up to {abs(worst.loss - fitted):.4f} nats, at {worst.regime.label}, and intervals of speedups "
            f"in compute are {law.misfit:.1f} times as wide as noise and tuning say"
        )


def _flops(winners: Sequence[Winner], runs: Iterable[TrainingRun]) -> Mapping[int, float]:
    """The FLOPs of each winner's runs as the table counts them, by identity; none where a run does not say.

    Those that no model of the size takes are none either.
    """
    by_trial = {run.trial: run.flops for run in runs}
    counted = {}
    for winner in winners:
        known = [value for trial in winner.trials if (value := by_trial.get(trial))]
        if known and len(known) == len(winner.trials):
            mean = sum(known) / len(known)
            if winner.parameters is None or is_likely(mean / compute(winner.parameters, winner.tokens)):
                counted[id(winner)] = mean
    return counted


def compute(parameters: float, tokens: float) -> float:
    """6 N D, the usual estimate of the FLOPs of training."""
    return 6.0 * parameters * tokens


def is_likely(factor: float) -> bool:
    """Whether FLOPs that are ``factor`` times 6 N D may be counted ones."""
    return 1 / FAR < factor < FAR


def _frontier(
    corpus: str, members: Sequence[Winner], counted: Mapping[int, float], noise: NoiseModel, how: IntervalSettings
) -> Frontier:
    measure = "flops" if all(id(winner) in counted for winner in members) else "6ND"
    spent = [
        replace(
            winner,
            tokens=counted[id(winner)] if measure == "flops" else compute(winner.parameters or 0, winner.tokens),
        )
        for winner in members
    ]
    base = [winner for winner in spent if winner.optimizer == how.baseline]
    known = baseline_law(corpus, "over scales", base, noise, how)
    return Frontier(corpus, measure, known, over_law(known, spent, redrawn_law(known, noise, how), noise, how))
