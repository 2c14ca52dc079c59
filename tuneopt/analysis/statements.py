"""What the analysis says in words: the statement of each scale, and what a reader must know before trusting figures.

A statement names which optimizers share the best group and by how much they beat the baseline. A warning is one
sentence about what was left out, or about a doubtful law, noise, speedup or fit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuneopt.analysis.joint import JointFit
from tuneopt.analysis.noise import NoiseModel, difference_noise
from tuneopt.analysis.ranking import Ranking
from tuneopt.analysis.runs import RegimeKey, TrainingRun
from tuneopt.analysis.speedup import BASELINE, DEFAULTS, BaselineLaw, IntervalSettings, Speedup
from tuneopt.analysis.winner import Winner

NAMED = 4
"""Leaders that a sentence gives figures for; of more it gives the first and the last, or nobody would read it."""


@dataclass(frozen=True, slots=True)
class Gain:
    """An optimizer against the baseline in one regime.

    ``nats`` is the baseline's loss minus the optimizer's, with its interval (None where no noise is known);
    ``speedup`` is None where the baseline has no law at the scale.
    """

    optimizer: str
    nats: float
    nats_low: float | None
    nats_high: float | None
    speedup: float | None
    low: float | None
    high: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What can be said at a scale, in its regime of the largest ratio that the baseline and half of the others have.

    ``leaders`` is the best tie group, lowest loss first: with the family's confidence no optimizer outside it is the
    best. It is empty where no noise is known. ``gains`` holds the leaders other than the baseline, in their order
    (without leaders, the optimizer with the lowest loss); it is empty where the baseline has no result.
    """

    regime: RegimeKey
    leaders: tuple[str, ...]
    compared: int
    gains: tuple[Gain, ...]
    sentence: str


def statements(
    winners: Sequence[Winner],
    rankings: Sequence[Ranking],
    speeds: Sequence[Speedup],
    noise: NoiseModel,
    how: IntervalSettings = DEFAULTS,
) -> tuple[Statement, ...]:
    """One statement per corpus and scale, in the order of the rankings."""
    baseline, level = how.baseline, how.level
    places: dict[tuple[str, str], list[Ranking]] = {}
    for ranking in rankings:
        places.setdefault(ranking.regime[:2], []).append(ranking)
    known = {(winner.regime, winner.optimizer): winner for winner in winners}
    fast = {(speed.regime, speed.optimizer): speed for speed in speeds}
    every = []
    for members in places.values():
        # The regime of the largest ratio where the baseline and at least half of the scale's optimizers are.
        most = max(len(ranking.order) for ranking in members)
        ranking = max(members, key=lambda each: (baseline in each.order and 2 * len(each.order) >= most,
                                                 each.regime.ratio))  # fmt: skip
        regime = ranking.regime
        base = known.get((regime, baseline))
        gains = [
            _gain(known[regime, name], base, fast.get((regime, name)), noise, level)
            for name in ranking.leaders or ranking.order[:1]
            if name != baseline and base is not None
        ]
        sentence = _sentence(ranking, gains, baseline, base is not None, level)
        every.append(Statement(regime, ranking.leaders, len(ranking.order), tuple(gains), sentence))
    return tuple(every)


def _gain(winner: Winner, base: Winner, speed: Speedup | None, noise: NoiseModel, level: float) -> Gain:
    """``winner`` against ``base``: two means over independent seeds, so the variance of their difference is the sum."""
    nats = base.loss - winner.loss
    spreads = noise.of(winner.regime, winner.optimizer), noise.of(base.regime, base.optimizer)
    half = None
    if spreads[0] is not None and spreads[1] is not None:
        apart = difference_noise(spreads[0], winner.runs, spreads[1], base.runs)
        half = apart.quantile((1 + level) / 2) * apart.sigma
    return Gain(
        optimizer=winner.optimizer,
        nats=nats,
        nats_low=None if half is None else nats - half,
        nats_high=None if half is None else nats + half,
        speedup=None if speed is None else speed.speedup,
        low=None if speed is None else speed.low,
        high=None if speed is None else speed.high,
        flags=() if speed is None else speed.flags,
    )


def _sentence(ranking: Ranking, gains: Sequence[Gain], baseline: str, there: bool, level: float) -> str:
    """The statement in words; ``there`` says whether the baseline has a result in the regime.

    From the least that can be said to the most: one optimizer alone, noise unknown, the baseline among the leaders, no
    baseline, gains in nats where it has no law, and gains as speedups.
    """
    place, count = ranking.regime.label, len(ranking.order)
    if count == 1:
        return f"At {place} only {ranking.order[0]} has a result, so there is nothing to compare."
    if not ranking.leaders:
        gap = f", {abs(gains[0].nats):.4f} nats under {baseline}'s" if gains else ""
        return (
            f"At {place} the lowest of {count} losses is {ranking.order[0]}'s{gap}, but the noise is not known, so no "
            "best optimizer can be named."
        )
    first = f"At {place} {_group(ranking.leaders, count)}"
    if baseline in ranking.leaders:
        return f"{first}: no optimizer is shown to beat {baseline}."
    if not there:
        return f"{first}; {baseline} has no result there to compare with."
    shown = list(gains) if len(gains) <= NAMED else [gains[0], gains[-1]]
    word = "" if len(gains) <= NAMED else "from the first to the last, "
    nats = [gain.nats for gain in gains]
    gaps = [f"{gap:.4f}" for gap in (min(nats), max(nats))]
    under = gaps[0] if gaps[0] == gaps[1] else f"{gaps[0]} to {gaps[1]}"
    if any(gain.speedup is None for gain in gains):
        spans = ", ".join(f"{gain.optimizer} {_bounds(gain.nats, gain.nats_low, gain.nats_high, 4)}" for gain in shown)
        return f"{first}; nats under {baseline}, with {level:.0%} intervals: {word}{spans}."
    speeds = ", ".join(
        f"{gain.optimizer} {_bounds(gain.speedup, gain.low, gain.high, 2, gain.flags)}" for gain in shown
    )
    return f"{first}, {under} nats under {baseline}; speedup over it, with {level:.0%} intervals: {word}{speeds}."


def _group(leaders: Sequence[str], count: int) -> str:
    """Who shares the first tie group; one optimizer is called the best only where it is alone there."""
    if len(leaders) == 1:
        return f"{leaders[0]} is the best of {count} optimizers by more than noise explains"
    listed = f"{', '.join(leaders[:-1])} and {leaders[-1]}"
    if len(leaders) == count:
        return f"none of the {count} optimizers ({listed}) can be told from the best"
    return f"{listed} share the best group of {count} optimizers"


def _bounds(value: float | None, low: float | None, high: float | None, digits: int, flags: Sequence[str] = ()) -> str:
    """A value and its interval, such as ``1.42 [1.31, 1.50]``; an end that is not known is ``open``."""
    assert value is not None
    prefix = "at least " if "lower bound" in flags else ""
    if low is None:
        return f"{prefix}{value:.{digits}f}"
    end = "open" if high is None else f"{high:.{digits}f}"
    return f"{prefix}{value:.{digits}f} [{low:.{digits}f}, {end}]"


def warnings(
    runs: Sequence[TrainingRun],
    winners: Sequence[Winner],
    noise: NoiseModel,
    laws: Sequence[BaselineLaw],
    speeds: Sequence[Speedup],
    baseline: str = BASELINE,
    joint: Sequence[JointFit] = (),
) -> list[str]:
    """The doubts about an analysis: what was left out, laws, noise, speedups, and the joint fit's misfit."""
    return [
        *_left_out(runs, winners),
        *_baseline_gaps(winners, laws, baseline),
        *_law_doubts(laws, noise, baseline),
        *_noise_doubts(winners, noise),
        *_speedup_doubts(speeds),
        *_joint_doubts(joint),
    ]


def _left_out(runs: Sequence[TrainingRun], winners: Sequence[Winner]) -> Iterable[str]:
    """Runs and optimizers that no figure holds, and precisions that were mixed.

    Only a ledger's variants name a precision: they have four parts, the compute precision first.
    """
    unproven = [run for run in runs if run.status == "unproven"]
    if unproven:
        names = Counter(run.optimizer for run in unproven)
        listed = ", ".join(f"{name} {count}" for name, count in sorted(names.items()))
        yield f"left out because the proof of the optimizer is missing or failed: {listed} trials"
    there = {(winner.optimizer, winner.regime) for winner in winners}
    for optimizer, regime in sorted({(run.optimizer, run.regime) for run in runs} - there):
        yield f"{optimizer} has no comparable run at {regime.label} and is not ranked there"
    variants: dict[tuple[str, RegimeKey], set[tuple[object, ...]]] = defaultdict(set)
    for run in runs:
        variants[run.optimizer, run.regime].add(run.variant)
    for optimizer, regime in sorted(there):
        known = variants[optimizer, regime]
        if len({variant[:1] for variant in known}) > 1 and all(len(variant) == 4 for variant in known):
            yield f"the runs of {optimizer} at {regime.label} mix compute precisions"


def _baseline_gaps(winners: Sequence[Winner], laws: Sequence[BaselineLaw], baseline: str) -> Iterable[str]:
    """Scales without speedups, and why."""
    fitted = {(law.corpus, law.scale) for law in laws}
    for corpus, scale in dict.fromkeys(winner.regime[:2] for winner in winners):
        if (corpus, scale) in fitted:
            continue
        ratios = sum(winner.optimizer == baseline and winner.regime[:2] == (corpus, scale) for winner in winners)
        has = "no result" if ratios == 0 else "one ratio only"
        yield f"no speedups at scale {scale}: {baseline} has {has} there, and a loss law needs two (better three)"


def _law_doubts(laws: Sequence[BaselineLaw], noise: NoiseModel, baseline: str) -> Iterable[str]:
    """Laws through two points, laws that do not fall, and laws that miss their own points.

    The residual is a root mean square over the points. With four points and three parameters noise alone brings it
    above twice sigma in fewer than one of 10,000 cases (chi-squared with one degree of freedom above 16).
    """
    for known in laws:
        if known.law.kind == "log-linear":
            yield f"{baseline} has two ratios at scale {known.scale}: speedups there interpolate linearly in log D"
        if float(known.law.alpha) <= 0:
            yield f"the loss of {baseline} does not fall with its budget at scale {known.scale}: no speedup is meant"
        spreads = [noise.of(winner.regime, winner.optimizer) for winner in known.winners]
        sigma = max((spread.sigma for spread in spreads if spread is not None), default=None)
        residual = float(known.law.residual)
        if sigma is not None and residual > 2 * sigma:
            yield (
                f"the loss law of {baseline} at scale {known.scale} misses its points by {residual:.4f} nats, "
                f"more than twice the noise of {sigma:.4f}"
            )


def _noise_doubts(winners: Sequence[Winner], noise: NoiseModel) -> Iterable[str]:
    """Regimes where nothing is known of the noise, and where it is assumed."""
    regimes = list(dict.fromkeys(winner.regime for winner in winners))
    silent = [regime.label for regime in regimes if noise.of(regime) is None]
    if silent:
        yield f"no seed replicates and no given sigma, hence no intervals and tie groups, at {', '.join(silent)}"
    assumed = {spread.sigma for regime in regimes if (spread := noise.of(regime)) and spread.source == "assumed"}
    for sigma in sorted(assumed):
        yield f"no seed replicates: intervals and tie groups assume sigma = {sigma:g} nats, the paper ladder's"


def _speedup_doubts(speeds: Sequence[Speedup]) -> Iterable[str]:
    """Speedups beyond what the baseline was trained for: under its law's floor, or outside its budgets."""
    floored = [f"{speed.optimizer} at {speed.regime.label}" for speed in speeds if "lower bound" in speed.flags]
    if floored:
        yield f"under the floor of the baseline's law, so the speedup is a lower bound: {', '.join(floored)}"
    extrapolated = sum("extrapolated" in speed.flags for speed in speeds)
    if extrapolated:
        yield f"{extrapolated} speedups extrapolate the baseline's law beyond the budgets that it was trained with"


def _joint_doubts(joint: Sequence[JointFit]) -> Iterable[str]:
    """Joint fits that their own test rejects."""
    places = [(fit.scale or "all scales together", fit.excess) for fit in joint if "misfit" in fit.flags]
    if places:
        listed = ", ".join(f"{place} {excess:.1f}" for place, excess in places if excess is not None)
        yield (
            f"one factor per optimizer does not explain every loss (residuals over noise: {listed}): speedups differ "
            "between regimes, and the joint fit's intervals are widened by as much"
        )
