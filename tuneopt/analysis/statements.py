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
from tuneopt.analysis.ranking import Ranking, rankings
from tuneopt.analysis.runs import RegimeKey, TrainingRun
from tuneopt.analysis.speedup import BASELINE, BEYOND_BUDGETS, DEFAULTS, BaselineLaw, IntervalSettings, Speedup
from tuneopt.analysis.winner import Winner

SHOWN = 6
"""Names that a warning lists; of more it gives the number."""

NAMED = 4
"""Leaders that a sentence gives figures for; of more it gives the first and the last, or nobody would read it."""

MISFIT = 2.0
"""Factor of widened intervals from which a baseline's own losses are called inconsistent: chance alone brings four
points there in 2% of cases."""


@dataclass(frozen=True, slots=True)
class Gain:
    """An optimizer against the baseline in one regime.

    ``nats`` is the baseline's loss minus the optimizer's, with its interval (None where no noise is known);
    ``speedup`` is None where the baseline has no law at the scale. ``settled_by`` is the ratio of the baseline run that
    would settle an extrapolated speedup (`tuneopt.analysis.speedup.Speedup`).
    """

    optimizer: str
    nats: float
    nats_low: float | None
    nats_high: float | None
    speedup: float | None
    low: float | None
    high: float | None
    flags: tuple[str, ...]
    settled_by: float | None = None

    @property
    def extrapolated(self) -> bool:
        """Whether the speedup rests on budgets that the baseline was never trained with."""
        return bool(BEYOND_BUDGETS & set(self.flags))


@dataclass(frozen=True, slots=True)
class Statement:
    """What can be said at a scale, in its regime of the largest ratio that the baseline and half of the others have.

    ``leaders`` is the best tie group, lowest loss first: with the family's confidence no optimizer outside it is the
    best. It is empty where no noise is known. ``gains`` holds the leaders other than the baseline, in their order
    (without leaders, the optimizer with the lowest loss); it is empty where the baseline has no result. Where one of
    their speedups is extrapolated, ``bracketed`` holds those of the same optimizers in the regime of the largest ratio,
    ``bracketed_ratio``, where every one of them lies between two runs of the baseline.
    """

    regime: RegimeKey
    leaders: tuple[str, ...]
    compared: int
    gains: tuple[Gain, ...]
    sentence: str
    bracketed_ratio: float | None = None
    bracketed: tuple[Gain, ...] = ()


def statements(
    winners: Sequence[Winner],
    ranked: Sequence[Ranking],
    speeds: Sequence[Speedup],
    noise: NoiseModel,
    how: IntervalSettings = DEFAULTS,
) -> tuple[Statement, ...]:
    """One statement per corpus and scale, in the order of ``ranked``."""
    baseline, level = how.baseline, how.level
    places: dict[tuple[str, str], list[Ranking]] = {}
    for ranking in ranked:
        places.setdefault(ranking.regime[:2], []).append(ranking)
    known = {(winner.regime, winner.optimizer): winner for winner in winners}
    fast = {(speed.regime, speed.optimizer): speed for speed in speeds}
    every = []
    for members in places.values():
        # The regime of the largest ratio where the baseline and at least half of the scale's optimizers are; without
        # one, where there is something to compare.
        most = max(len(ranking.order) for ranking in members)
        ranking = max(members, key=lambda each: (baseline in each.order and 2 * len(each.order) >= most,
                                                 len(each.order) > 1, each.regime.ratio))  # fmt: skip
        base = known.get((ranking.regime, baseline))
        names = [name for name in ranking.leaders or ranking.order[:1] if name != baseline and base is not None]

        def gains_at(regime: RegimeKey, names: Sequence[str] = names) -> tuple[Gain, ...]:
            own = known.get((regime, baseline))
            pairs = [(known.get((regime, name)), fast.get((regime, name))) for name in names]
            return tuple(_gain(one, own, speed, noise, level) for one, speed in pairs if one and own)

        gains, ratio = gains_at(ranking.regime), None
        bracketed: tuple[Gain, ...] = ()
        if any(gain.extrapolated for gain in gains):
            smaller = sorted({one.regime for one in members if one.regime.ratio < ranking.regime.ratio}, reverse=True)
            for regime, there in ((regime, gains_at(regime)) for regime in smaller):
                measured = all(gain.speedup is not None and not gain.extrapolated for gain in there)
                if len(there) == len(gains) and measured:
                    ratio, bracketed = regime.ratio, there
                    break
        sentence = _sentence(ranking, gains, baseline, base is not None, level)
        if any(gain.extrapolated and gain.speedup is not None for gain in gains) and baseline not in ranking.leaders:
            sentence += _beyond(ranking.regime, gains, ratio, bracketed, baseline)
        every.append(Statement(ranking.regime, ranking.leaders, len(ranking.order), gains, sentence, ratio, bracketed))
    return tuple(every)


def _beyond(
    regime: RegimeKey, gains: Sequence[Gain], ratio: float | None, bracketed: Sequence[Gain], baseline: str
) -> str:
    """What a statement adds where speedups are extrapolated: those that are not, and the run that would settle it."""
    words = ""
    if ratio is not None:
        words = f" Between runs of {baseline}, at {regime._replace(ratio=ratio).label}: {_speeds(bracketed)}."
    settling = [gain.settled_by for gain in gains if gain.settled_by is not None]
    if settling:
        # The outermost run brackets everybody's.
        place = regime._replace(ratio=max(settling)).label
        words += f" A run of {baseline} at {place} would settle what is extrapolated."
    return words


def noise_line(winners: Sequence[Winner], stated: Sequence[Statement], noise: NoiseModel) -> str:
    """How the best group of each statement would change with half and with twice the noise between seeds, in one line.

    Empty where no noise is known.
    """
    known = [one for one in stated if one.leaders]
    if not known:
        return ""
    regimes = {one.regime for one in known}
    here = [winner for winner in winners if winner.regime in regimes]
    spreads = [spread.sigma for one in known if (spread := noise.of(one.regime))]
    least, most = f"{min(spreads):.2g}", f"{max(spreads):.2g}"
    sigma = least if least == most else f"{least} to {most}"
    parts = []
    for word, factor in ((f"sigma ({sigma} nats) were half", 0.5), ("it were twice", 2.0)):
        groups = {ranking.regime: ranking.leaders for ranking in rankings(here, noise.scaled(factor))}
        changed = [one for one in known if set(groups[one.regime]) != set(one.leaders)]
        listed = "; ".join(f"at {one.regime.label} {_change(one.leaders, groups[one.regime])}" for one in changed)
        what = f"the best group would change {listed}" if changed else "no best group named here would change"
        parts.append(f"If {word} as large, {what}.")
    return " ".join(parts)


def _change(before: Sequence[str], after: Sequence[str]) -> str:
    """Who leaves a group, and who joins it."""
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    words = [f"({way} {', '.join(names)})" for way, names in (("without", gone), ("with", new)) if names]
    return " ".join(words)


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
        settled_by=None if speed is None else speed.settled_by,
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
    return f"{first}, {under} nats under {baseline}; speedup over it, with {level:.0%} intervals: {_speeds(gains)}."


def _speeds(gains: Sequence[Gain]) -> str:
    """Speedups with their intervals, of many the first and the last; what is extrapolated says so."""
    shown = gains if len(gains) <= NAMED else [gains[0], gains[-1]]
    word = "" if len(gains) <= NAMED else "from the first to the last, "
    return word + ", ".join(
        f"{gain.optimizer} {_bounds(gain.speedup, gain.low, gain.high, 2, gain.flags)}"
        f"{' (extrapolated)' if gain.extrapolated else ''}"
        for gain in shown
    )


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
        *_speedup_doubts(speeds, baseline),
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
    """Scales without speedups, and why; a baseline that nobody ran is named with who was run."""
    names = sorted({winner.optimizer for winner in winners})
    if winners and baseline not in names:
        listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        yield f"there is no result of {baseline}, so no speedups: name another baseline with --baseline ({listed})"
        return
    fitted = {(law.corpus, law.scale) for law in laws}
    reasons: dict[str, list[str]] = defaultdict(list)
    for corpus, scale in dict.fromkeys(winner.regime[:2] for winner in winners):
        if (corpus, scale) not in fitted:
            ratios = sum(winner.optimizer == baseline and winner.regime[:2] == (corpus, scale) for winner in winners)
            reasons["no result" if ratios == 0 else "one ratio only"].append(scale)
    for has, scales in reasons.items():
        where = f"scale {scales[0]}" if len(scales) == 1 else f"scales {', '.join(scales)}"
        yield f"no speedups at {where}: {baseline} has {has} there, and a loss law needs two (better three)"


def _law_doubts(laws: Sequence[BaselineLaw], noise: NoiseModel, baseline: str) -> Iterable[str]:
    """Laws through two points, laws that do not fall, and losses that no falling convex law explains."""
    for known in laws:
        if len(known.winners) == 2:
            yield f"{baseline} has two ratios at scale {known.scale}: the bend of its law is a usual one, not measured"
        if known.local is None:
            yield f"the loss of {baseline} does not fall with its budget at scale {known.scale}: no speedup is meant"
        elif known.local.misfit > MISFIT and all(noise.of(one.regime, one.optimizer) for one in known.winners):
            points = zip(known.winners, known.local.loss(known.local.budgets), strict=True)
            worst, fitted = max(points, key=lambda pair: abs(pair[0].loss - pair[1]))
            yield (
                f"no law that falls and is convex explains the losses of {baseline} at scale {known.scale}: the best "
                f"misses its points by up to {abs(worst.loss - fitted):.4f} nats, at {worst.regime.label}, and "
                f"intervals are {known.local.misfit:.1f} times as wide as noise and tuning say"
            )


def _noise_doubts(winners: Sequence[Winner], noise: NoiseModel) -> Iterable[str]:
    """Regimes where nothing is known of the noise, and where it is assumed."""
    regimes = list(dict.fromkeys(winner.regime for winner in winners))
    silent = [regime.label for regime in regimes if noise.of(regime) is None]
    if silent:
        where = ", ".join(silent) if len(silent) <= SHOWN else f"{len(silent)} regimes"
        yield f"no seed replicates and no given sigma, hence no intervals and tie groups, at {where}"
    assumed = {spread.sigma for regime in regimes if (spread := noise.of(regime)) and spread.source == "assumed"}
    for sigma in sorted(assumed):
        yield f"no seed replicates: intervals and tie groups assume sigma = {sigma:g} nats, the paper ladder's"


def _speedup_doubts(speeds: Sequence[Speedup], baseline: str) -> Iterable[str]:
    """Speedups beyond what the baseline was trained for: under its law's floor, or outside its budgets."""
    floored = [f"{speed.optimizer} at {speed.regime.label}" for speed in speeds if "lower bound" in speed.flags]
    if floored:
        yield f"under the floor of the baseline's law, so the speedup is a lower bound: {', '.join(floored)}"
    beyond = [speed for speed in speeds if "extrapolated" in speed.flags]
    if beyond:
        runs: dict[tuple[str, str], set[float]] = defaultdict(set)
        for speed in beyond:
            if speed.settled_by is not None:
                runs[speed.regime[:2]].add(speed.settled_by)
        places = [RegimeKey(*place, ratio).label for place, ratios in runs.items() for ratio in sorted(ratios)]
        settled = f"; runs of {baseline} at {', '.join(places)} would settle them" if places else ""
        yield (
            f"{len(beyond)} speedups extrapolate the law of {baseline} beyond the budgets that it was trained "
            f"with{settled}"
        )


def _joint_doubts(joint: Sequence[JointFit]) -> Iterable[str]:
    """Joint fits that their own test rejects."""
    places = [(fit.scale or "all scales together", fit.excess) for fit in joint if "misfit" in fit.flags]
    if places:
        listed = ", ".join(f"{place} {excess:.1f}" for place, excess in places if excess is not None)
        yield (
            f"one factor per optimizer does not explain every loss (residuals over noise: {listed}): speedups differ "
            "between regimes, and the joint fit's intervals are widened by as much"
        )
