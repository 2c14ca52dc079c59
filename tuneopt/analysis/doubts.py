"""What a reader must know before trusting figures: one sentence about each doubt.

Doubts are about what was left out, and about a broken run, a law, the noise, a speedup or a fit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from itertools import pairwise

from tuneopt.analysis.coordinates import Edge
from tuneopt.analysis.frontier import MISFIT, Frontier, compute, is_likely
from tuneopt.analysis.joint import JointFit
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.regimes import ONE_BUDGET
from tuneopt.analysis.runs import RegimeKey, TrainingRun
from tuneopt.analysis.speedup import BASELINE, BaselineLaw, Speedup, falls
from tuneopt.analysis.statements import SHOWN
from tuneopt.analysis.winner import Winner, by_regime, far_above, torn

ROUNDED = 4
"""Results that all have few digits before they are taken for rounded: the last digit of one in ten is 0."""

UNEQUAL = 4
"""So many times the baseline's configurations are no equal tuning."""


def warnings(
    runs: Sequence[TrainingRun],
    winners: Sequence[Winner],
    noise: NoiseModel,
    laws: Sequence[BaselineLaw],
    speeds: Sequence[Speedup],
    baseline: str = BASELINE,
    joint: Sequence[JointFit] = (),
    frontiers: Sequence[Frontier] = (),
    edges: Sequence[Edge] = (),
    raced: bool = False,
) -> list[str]:
    """The doubts about an analysis: what was left out, laws, noise, speedups, and the joint fit's misfit.

    ``raced`` says whether optimizers are also compared by what a target loss takes.
    """
    several = len({winner.regime.corpus for winner in winners}) > 1
    return [
        *_left_out(runs, winners),
        *_diverged(runs, winners),
        *_uneven(runs, winners),
        *_torn(winners),
        *_far_above(winners),
        *_baseline_gaps(winners, laws, baseline, frontiers, several),
        *([] if raced else _scattered(winners, laws, several)),
        *_baseline_edges(edges, winners, baseline),
        *_untuned(runs, winners, baseline),
        *_law_doubts(laws, noise, baseline, several),
        *_noise_doubts(runs, winners, noise),
        *_rounded(runs, winners, noise),
        *_speedup_doubts(speeds, baseline),
        *_joint_doubts(joint, several),
    ]


def _left_out(runs: Sequence[TrainingRun], winners: Sequence[Winner]) -> Iterable[str]:
    """Runs and optimizers that no figure holds, and precisions that were mixed."""
    unproven = Counter(run.optimizer for run in runs if run.status == "unproven")
    if unproven:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(unproven.items()))
        yield f"left out because the proof of the optimizer is missing or failed: {listed} trials"
    there = {(winner.optimizer, winner.regime) for winner in winners}
    gone: dict[str, list[RegimeKey]] = defaultdict(list)
    for optimizer, regime in sorted({(run.optimizer, run.regime) for run in runs} - there):
        gone[optimizer].append(regime)
    for optimizer, regimes in gone.items():
        why = "" if optimizer in unproven else ": all of them diverged"
        yield f"{optimizer} is not ranked at {_places(regimes)}, where it has no comparable run{why}"
    precisions: dict[RegimeKey, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        if run.precision and (run.optimizer, run.regime) in there:
            precisions[run.regime][run.optimizer].add(run.precision)
    for regime, own in sorted(precisions.items()):
        mixed = sorted(optimizer for optimizer, known in own.items() if len(known) > 1)
        for optimizer in mixed:
            yield f"the runs of {optimizer} at {regime.label} mix compute precisions"
        if not mixed and len(set().union(*own.values())) > 1:
            listed = ", ".join(f"{optimizer} {min(known)}" for optimizer, known in sorted(own.items()))
            yield f"the optimizers at {regime.label} were trained in different compute precisions: {listed}"


def _diverged(runs: Sequence[TrainingRun], winners: Sequence[Winner]) -> Iterable[str]:
    """Results whose configuration diverged with other seeds: means over what was left look as sure as any."""
    settings = {run.trial: run.setting for run in runs}
    lost = Counter(run.setting for run in runs if run.status == "diverged")
    counts: dict[str, dict[RegimeKey, tuple[int, int]]] = defaultdict(dict)
    for one in winners:
        setting = settings.get(one.trials[0])
        if setting is not None and setting in lost:
            counts[one.optimizer][one.regime] = lost[setting], lost[setting] + one.runs
    for optimizer, own in counts.items():
        gone, every = map(sum, zip(*own.values(), strict=True))
        yield (
            f"{gone} of {every} runs with the configuration that stands for {optimizer} at {_places(list(own))} "
            f"diverged, and its {'loss there leaves' if len(own) == 1 else 'losses there leave'} them out"
        )


def _uneven(runs: Sequence[TrainingRun], winners: Sequence[Winner]) -> Iterable[str]:
    """Budgets that differ under one stated ratio, and FLOPs that no model of the size takes."""
    wide = {}
    for regime, members in by_regime(winners).items():
        tokens = [one.tokens for one in members]
        if max(tokens) > min(tokens) * (1 + ONE_BUDGET):
            wide[regime] = max(tokens) / min(tokens) - 1
    if wide:
        yield (
            f"the optimizers at {_places(list(wide))} have one ratio by name, and budgets that differ by up to "
            f"{max(wide.values()):.1%}: a lower loss there may be one of more tokens"
        )
    factors: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.status == "completed" and run.flops and run.parameters:
            factor = run.flops / compute(run.parameters, run.tokens)
            if not is_likely(factor):
                factors[run.optimizer].append(factor)
    if factors:
        every = sorted(factor for own in factors.values() for factor in own)
        names = sorted(factors)
        listed = ", ".join(names) if len(names) <= SHOWN else f"{len(names)} optimizers"
        times = " to ".join(dict.fromkeys(f"{factor:.0e}" for factor in (every[0], every[-1])))
        yield (
            f"the FLOPs of {listed} are {times} times 6 N D, as in another unit: speedups in compute go by 6 N D, and "
            "costs in FLOPs say nothing"
        )


def _torn(winners: Sequence[Winner]) -> Iterable[str]:
    """Means over seeds of which one ended far from the others."""
    odd = torn(winners)
    apart: dict[str, list[Winner]] = defaultdict(list)
    for one in winners:
        if (one.regime, one.optimizer) in odd:
            apart[one.optimizer].append(one)
    for optimizer, own in apart.items():
        places, nats = _places([one.regime for one in own]), _span([one.spread for one in own])
        yield (
            f"the seeds of {optimizer} at {places} end {nats} nats apart, unlike those of other results: one of them "
            "is a broken run or a loss of another kind, and their mean says little"
        )


def _far_above(winners: Sequence[Winner]) -> Iterable[str]:
    """Results a nat or more above the best of their regime, or below all others: what trained at all ends nearer."""
    above: dict[str, dict[RegimeKey, float]] = defaultdict(dict)
    below: dict[str, dict[RegimeKey, float]] = defaultdict(dict)
    for (regime, optimizer), nats in far_above(winners).items():
        (above if nats > 0 else below)[optimizer][regime] = abs(nats)
    if len(above) <= SHOWN:
        for optimizer, own in above.items():
            what = "a broken run" if len(own) == 1 else "broken runs"
            yield (
                f"{optimizer} at {_places(list(own))} ends {_span(own.values())} nats above the best there: {what}, "
                "a loss of another kind, or an optimizer that hardly trains, and what rests on it says little"
            )
    else:
        every = [nats for own in above.values() for nats in own.values()]
        yield (
            f"{len(every)} results of {len(above)} optimizers end {_span(every)} nats above the best of their regimes: "
            "broken runs, losses of another kind, or optimizers that hardly train, and what rests on them says little"
        )
    for optimizer, own in below.items():
        yield (
            f"{optimizer} at {_places(list(own))} ends {_span(own.values())} nats below everybody else there, and far "
            "from what it reaches next to it: a broken figure or a loss of another kind, and what rests on it says "
            "little"
        )


def _span(values: Collection[float]) -> str:
    """The smallest and the largest of values (nats), with three digits."""
    least, most = (f"{pick(values):.3g}" for pick in (min, max))
    return least if least == most else f"{least} to {most}"


def _scale(corpus: str, scale: str, several: bool) -> str:
    """A scale by name, with its corpus where there are several."""
    return f"{corpus} {scale}".strip() if several else scale


def _places(regimes: Sequence[RegimeKey]) -> str:
    """Regimes by name while they are few."""
    if len(regimes) > SHOWN:
        return f"{len(regimes)} regimes"
    return " and ".join(filter(None, (", ".join(one.label for one in regimes[:-1]), regimes[-1].label)))


def _scattered(winners: Sequence[Winner], laws: Sequence[BaselineLaw], several: bool) -> Iterable[str]:
    """Scales without a law whose optimizers were trained with budgets of their own, so that few meet in any regime."""
    fitted = {(law.corpus, law.scale) for law in laws if law.local is not None}
    budgets: dict[tuple[str, str], Counter[RegimeKey]] = defaultdict(Counter)
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for winner in winners:
        budgets[winner.regime[:2]][winner.regime] += 1
        names[winner.regime[:2]].add(winner.optimizer)
    for place, regimes in budgets.items():
        most, of = max(regimes.values()), len(names[place])
        if place not in fitted and of > 2 and 2 * most < of:
            yield (
                f"the {of} optimizers at scale {_scale(*place, several)} have results with {len(regimes)} budgets, "
                + (
                    f"at most {most} of them with the same one, and losses are compared there only"
                    if most > 1
                    else "no two of them with the same one, and no losses are compared"
                )
                + ": --target NATS compares what a loss takes"
            )


def _baseline_gaps(
    winners: Sequence[Winner],
    laws: Sequence[BaselineLaw],
    baseline: str,
    frontiers: Sequence[Frontier],
    several: bool,
) -> Iterable[str]:
    """Scales without speedups, and why; a baseline that nobody ran is named with who was run."""
    names = sorted({winner.optimizer for winner in winners})
    if winners and baseline not in names:
        listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        other = f": name another baseline with --baseline ({listed})" if len(names) > 1 else ""
        yield f"there is no result of {baseline}, so no speedups{other}"
        return
    fitted = {(law.corpus, law.scale) for law in laws}
    reasons: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for corpus, scale in dict.fromkeys(winner.regime[:2] for winner in winners):
        if (corpus, scale) not in fitted:
            own = any(winner.optimizer == baseline and winner.regime[:2] == (corpus, scale) for winner in winners)
            reasons["one ratio only" if own else "no result"].append((corpus, scale))  # of two ratios a law is fitted
    reached = {one.regime[:2] for front in frontiers for one in front.speedups if one.optimizer != baseline}
    for has, places in reasons.items():
        scales = [_scale(*place, several) for place in places]
        where = f"scale {scales[0]}" if len(scales) == 1 else f"scales {', '.join(scales)}"
        instead = "; over its sizes there are speedups in compute" if reached >= set(places) else ""
        need = f"a loss law needs two (better three){instead}"
        yield f"no speedups at {where}: {baseline} has {has} there, and {need}"


def _baseline_edges(edges: Sequence[Edge], winners: Sequence[Winner], baseline: str) -> Iterable[str]:
    """A baseline whose best value has nothing run beyond it; where nothing else was run at all, nobody can tell."""
    own = [edge for edge in edges if edge.optimizer == baseline and edge.tried > 1]
    if own and any(winner.optimizer != baseline for winner in winners):
        names = sorted({edge.coordinate for edge in own})
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        count, of = len({edge.regime for edge in own}), sum(winner.optimizer == baseline for winner in winners)
        yield (
            f"the best {listed} of {baseline} {'is' if len(names) == 1 else 'are'} on an edge of what was "
            f"tried in {count} of {of} regimes: its loss may be lower beyond it, and what others gain over it less"
        )


def _untuned(runs: Sequence[TrainingRun], winners: Sequence[Winner], baseline: str) -> Iterable[str]:
    """A baseline with far fewer configurations than a rival: the best of many is lower by tuning, and by luck."""
    tried: dict[RegimeKey, dict[str, set[object]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        tried[run.regime][run.optimizer].add(run.setting)
    most: dict[str, int] = {}
    places, own = [], 0
    for regime, members in by_regime(winners).items():
        counts = {one.optimizer: len(tried[regime][one.optimizer]) for one in members}
        base = counts.pop(baseline, 0)
        favoured = {name: count for name, count in counts.items() if base and count >= UNEQUAL * base}
        if favoured:
            places.append(regime)
            own = max(own, base)
            most |= {name: max(count, most.get(name, 0)) for name, count in favoured.items()}
    if places:
        listed = ", ".join(f"{name} up to {count}" for name, count in [*most.items()][:SHOWN])
        few = "1 configuration" if own == 1 else f"at most {own} configurations"
        yield (
            f"{baseline} was run with {few} at {_places(places)}, and others with far more ({listed}): what they gain "
            "over it may be their tuning"
        )


def _law_doubts(laws: Sequence[BaselineLaw], noise: NoiseModel, baseline: str, several: bool) -> Iterable[str]:
    """Laws through two points, laws that do not fall, and losses that no falling convex law explains."""
    for known in laws:
        name = _scale(known.corpus, known.scale, several)
        if len(known.winners) == 2:
            yield f"{baseline} has two ratios at scale {name}: the bend of its law is a usual one, not measured"
        if known.local is not None and not falls(known, noise):
            yield (
                f"the loss of {baseline} does not fall with its budget at scale {name} by more than noise explains: a "
                "speedup there is a bound or not known"
            )
        # Where the law does not fall at all, that is the reason, whatever is broken besides: it is said below.
        if known.broken and float(known.law.alpha) > 0:
            places = ", ".join(regime.label for regime in known.broken)
            yield (
                f"no speedups at scale {name}: a law through what {baseline} reaches at {places}, a nat or more "
                "from the others there or from seed to seed, would be one of no optimizer"
            )
        elif known.local is None:
            rise, lower, upper = max(
                ((after.loss - before.loss, before, after) for before, after in pairwise(known.winners)),
                key=lambda step: step[0],
            )
            how = f"rises by {rise:.3g} nats" if rise > 0 else "stays the same"
            yield (
                f"no speedups at scale {name}: the loss of {baseline} does not fall with its budget there (from "
                f"{lower.regime.ratio:g}x to {upper.regime.ratio:g}x it {how})"
            )
        elif known.local.misfit > MISFIT and all(noise.of(one.regime, one.optimizer) for one in known.winners):
            points = zip(known.winners, known.local.loss(known.local.budgets), strict=True)
            worst, fitted = max(points, key=lambda pair: abs(pair[0].loss - pair[1]))
            yield (
                f"no law that falls and is convex explains the losses of {baseline} at scale {name}: the best "
                f"misses its points by up to {abs(worst.loss - fitted):.4f} nats, at {worst.regime.label}, and "
                f"intervals are {known.local.misfit:.1f} times as wide as noise and tuning say"
            )


def _noise_doubts(runs: Sequence[TrainingRun], winners: Sequence[Winner], noise: NoiseModel) -> Iterable[str]:
    """Regimes whose noise is unknown or assumed.

    Replicates that all end alike show none: their losses were rounded or copied, or the seed changed nothing.
    """
    seeds: dict[object, set[int]] = defaultdict(set)
    for run in runs:
        if run.status == "completed":
            seeds[run.setting].add(run.seed)
    repeated = {run.regime.corpus for run in runs if len(seeds[run.setting]) > 1}
    groups: dict[tuple[bool, float | None], list[RegimeKey]] = defaultdict(list)
    for regime in dict.fromkeys(winner.regime for winner in winners):
        spread = noise.of(regime)
        if spread is None or spread.source == "assumed":
            groups[regime.corpus in repeated, None if spread is None else spread.sigma].append(regime)
    for (equal, sigma), regimes in groups.items():
        why = "all seeds of a configuration end at exactly the same loss" if equal else "no seed replicates"
        if sigma is None:
            yield f"{why}, and no sigma is given, hence no intervals and tie groups, at {_places(regimes)}"
        else:
            there = "" if len(regimes) == len({one.regime for one in winners}) else f" at {_places(regimes)}"
            yield f"{why}{there}: intervals and tie groups assume sigma = {sigma:g} nats, the paper ladder's"


def _rounded(runs: Sequence[TrainingRun], winners: Sequence[Winner], noise: NoiseModel) -> Iterable[str]:
    """Losses that were rounded by more than seeds move them, which replicates do not show."""
    ends = {run.report_loss for run in runs if run.report_loss is not None}
    digits = max((max(0, -int(Decimal(repr(loss)).normalize().as_tuple().exponent)) for loss in ends), default=0)
    most = 0.5 * 10.0**-digits
    if (
        len(winners) >= ROUNDED
        and len(ends) > 1
        and any(spread.sigma < most for one in winners if (spread := noise.of(one.regime)))
    ):
        yield (
            f"losses have at most {digits} digit{'' if digits == 1 else 's'} behind the point: rounding alone moves "
            f"each by up to {most:g} nats, and neither intervals nor tie groups allow for it"
        )


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
        several = len(beyond) > 1
        what, it = (f"{len(beyond)} speedups extrapolate", "them") if several else ("1 speedup extrapolates", "it")
        word = "a run" if len(places) == 1 else "runs"
        count = sum(speed.settled_by is not None for speed in beyond)
        it = it if count == len(beyond) else f"{count} of them"
        settled = f"; {word} of {baseline} at {', '.join(places)} would settle {it}" if places else ""
        yield f"{what} the law of {baseline} beyond the budgets that it was trained with{settled}"


def _joint_doubts(joint: Sequence[JointFit], several: bool) -> Iterable[str]:
    """Joint fits that their own test rejects."""
    places = [
        (_scale(fit.corpus, fit.scale or "all scales together", several), fit.excess)
        for fit in joint
        if "misfit" in fit.flags
    ]
    if places:
        listed = ", ".join(f"{place} {excess:.1f}" for place, excess in places if excess is not None)
        yield (
            f"one factor per optimizer does not explain every loss (residuals over noise: {listed}): speedups differ "
            "between regimes, and the joint fit's intervals are widened by as much"
        )
