"""Everything at once: from runs to every figure of the analysis, computed once and held together.

The order matters: noise first, then the winners that it cannot tell apart, and from these everything else. To add a
figure, compute it in `analyse` and give it a field of `Analysis`; `tuneopt.analysis.document` prints it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneopt.analysis.cells import folded
from tuneopt.analysis.circumstances import Circumstance, circumstances
from tuneopt.analysis.coordinates import CoordinateScaling, Edge, coordinate_scaling, edges
from tuneopt.analysis.costs import Budget, Cost, ParetoPoint, budgets, costs, paces, pareto, uneven_clocks
from tuneopt.analysis.doubts import warnings
from tuneopt.analysis.fairness import Transfer, Undertuned, transfers, undertuned
from tuneopt.analysis.findings import Finding, findings
from tuneopt.analysis.frontier import Frontier, frontier_doubts, frontiers
from tuneopt.analysis.hyper_laws import HyperLaw, hyper_laws
from tuneopt.analysis.inputs import Inputs
from tuneopt.analysis.joint import JointFit, joint_fits
from tuneopt.analysis.noise import NoiseModel, measure
from tuneopt.analysis.ranking import Flip, Ranking, rankings, regime_flips
from tuneopt.analysis.runs import Curves, RegimeKey, Role, TrainingRun
from tuneopt.analysis.sensitivity import Star, stars
from tuneopt.analysis.speedup import (
    BASELINE,
    DRAWS,
    LEVEL,
    BaselineLaw,
    IntervalSettings,
    Speedup,
    baseline_laws,
    falls,
    speedups,
)
from tuneopt.analysis.statements import Statement, noise_line, statements
from tuneopt.analysis.targets import ToTarget, to_target
from tuneopt.analysis.training import TrainingOrder, orders, training_flips
from tuneopt.analysis.winner import Winner, broken, far_above, winners
from tuneopt.parallel import in_parallel
from tuneopt.spec import InputError, nearest


@dataclass(frozen=True, eq=False)
class Analysis:
    """All that is computed from one source; each part is described where its class is.

    Page, JSON document and tables read these values, so they cannot disagree. Winners are ordered by model size,
    regime and optimizer, and everything that has one entry for each of them is in their order.

    - ``noise``: the spread between seeds by regime; ``winners``: the configuration that stands for each optimizer
    - ``laws``: the baseline's L(D) by scale; ``speedups``: D_eff / D over it; ``joint``: one law for all optimizers
    - ``frontiers``: speedups in compute where each scale has one ratio; ``targets``: what a target loss takes
    - ``rankings``, ``flips``: who leads, and where that changes; ``orders``: what a cut during training would have done
    - ``transfer``, ``undertuned``: what unequal tuning does; ``budgets``, ``edges``: how equal it was
    - ``stars``, ``coordinates``, ``hyper_laws``: hyperparameters; ``costs``, ``pareto``: seconds, FLOPs and bytes
    - ``circumstances``: what else differs between the winners, such as schedules
    - ``statements``, ``noise_line``, ``findings``, ``warnings``: sentences
    """

    inputs: Inputs
    baseline: str
    level: float
    noise: NoiseModel
    winners: tuple[Winner, ...]
    laws: tuple[BaselineLaw, ...]
    speedups: tuple[Speedup, ...]
    joint: tuple[JointFit, ...]
    rankings: tuple[Ranking, ...]
    statements: tuple[Statement, ...]
    noise_line: str
    circumstances: tuple[Circumstance, ...]
    findings: tuple[Finding, ...]
    flips: tuple[Flip, ...]
    orders: tuple[TrainingOrder, ...]
    transfer: tuple[Transfer, ...]
    undertuned: tuple[Undertuned, ...]
    budgets: tuple[Budget, ...]
    edges: tuple[Edge, ...]
    stars: tuple[Star, ...]
    coordinates: tuple[CoordinateScaling, ...]
    hyper_laws: tuple[HyperLaw, ...]
    costs: tuple[Cost, ...]
    pareto: tuple[ParetoPoint, ...]
    frontiers: tuple[Frontier, ...]
    targets: tuple[ToTarget, ...]
    warnings: tuple[str, ...]


def _short(sentence: str, regimes: Collection[RegimeKey]) -> str:
    """A sentence in which regimes go by scale and ratio alone where all are of one corpus: its name tells nothing."""
    corpora = {regime.corpus for regime in regimes}
    if len(corpora) != 1 or corpora == {""}:
        return sentence
    (corpus,) = corpora
    for scale in {regime.scale for regime in regimes}:
        sentence = sentence.replace(f"{corpus} {scale}/", f"{scale}/")
    return sentence


def _advised(
    speeds: Sequence[Speedup], best: Sequence[Winner], runs: Sequence[TrainingRun], baseline: str
) -> tuple[Speedup, ...]:
    """The speedups, where no run is asked for that would settle a result far from all others, or that diverged before.

    Where a longer run of the baseline is asked for anyway, it does in place of the one that diverged.
    """
    far = far_above(best).keys() | broken(best)
    there = {one.regime for one in best if one.optimizer == baseline}
    failed = {run.regime for run in runs if run.optimizer == baseline} - there
    asked: dict[tuple[str, str], set[float]] = defaultdict(set)
    for one in speeds:
        if one.settled_by is not None and (one.regime, one.optimizer) not in far:
            asked[one.regime[:2]].add(one.settled_by)

    def ratio(one: Speedup) -> float | None:
        if one.settled_by is None or (one.regime, one.optimizer) in far:
            return None
        sound = [ratio for ratio in sorted(asked[one.regime[:2]]) if one.regime._replace(ratio=ratio) not in failed]
        longest = max((regime.ratio for regime in there if regime[:2] == one.regime[:2]), default=0.0)
        beyond = [ratio for ratio in sound if ratio >= one.settled_by > longest] or [
            ratio for ratio in reversed(sound) if ratio <= one.settled_by < longest]  # fmt: skip
        return beyond[0] if beyond else None

    return tuple(replace(one, settled_by=ratio(one)) for one in speeds)


def baseline_of(inputs: Inputs, wanted: str | None) -> str:
    """The baseline as its runs spell it, `BASELINE` where none is wanted; case and separators do not matter.

    Raises `InputError` for a baseline without any run.
    """
    if wanted is None:
        return BASELINE
    names = sorted({run.optimizer for run in inputs.runs} | {trial.optimizer for trial in inputs.trials})
    found = [name for name in names if folded(name) == folded(wanted)]
    if not found:
        raise InputError(f"there is no run of the baseline {wanted!r}; {nearest(wanted, names)}")
    return wanted if wanted in found else found[0]


def analyse(
    inputs: Inputs,
    *,
    baseline: str = BASELINE,
    sigma: float | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
    near: float | None = None,
    targets: Sequence[float] = (),
    tuning: float | None = None,
) -> Analysis:
    """Every figure of a source.

    A run's role says what it decides (`tuneopt.analysis.runs.Role`): winners come from candidates, noise from
    candidates and replicates, and all runs fill stars, transfers, the under-tuned baseline, orders among trials and
    budgets. ``sigma`` (nats) replaces measured noise, ``level`` is the coverage of the intervals, ``draws`` the redrawn
    data sets, ``near`` (nats) what counts as near-optimal, ``targets`` the losses (nats) that optimizers race to, in
    place of those that a table names. ``tuning`` (nats) is how well configurations were tuned, by default as
    uncertain as one run (`IntervalSettings`). Raises `InputError` for a level outside (0, 1), a sigma,
    threshold or target that is not positive, or a tuning below 0.
    """
    how = IntervalSettings(baseline, level, draws, seed, tuning)
    if near is not None and not near > 0:
        raise InputError(f"the near-optimal threshold must be a positive number of nats, not {near!r}; try 0.007")
    for target in targets:
        if not 0 < target < math.inf:
            raise InputError(f"a target loss must be a positive number of nats, not {target!r}; try 3.28")
    if targets and inputs.trials and not inputs.runs:
        raise InputError(
            "the results are a log of races, which say when their own target was reached; leave the target out"
        )
    runs = inputs.runs
    curves = Curves({run.trial: run.curve for run in runs})
    # Trials that a sweep only passed through decide nothing here: its incumbent speaks for it.
    judged = [run for run in runs if run.role is not Role.EXPLORED]
    noise = measure(judged, sigma)
    best = winners(judged, noise)  # after the noise, because near-equal configurations are told by it
    ranked = rankings(best, noise)
    laws = baseline_laws(best, noise, how)
    far = broken(best)  # broken runs: they change no order, and no law goes through them
    sound = [one for one in best if (one.regime, one.optimizer) not in far]
    flat = {(law.corpus, law.scale) for law in laws if not law.broken and not falls(law, noise)}

    def over_baseline() -> tuple[tuple[Speedup, ...], tuple[Undertuned, ...]]:  # both read one set of drawn laws
        return _advised(speedups(best, noise, how), best, runs, baseline), undertuned(best, runs, laws, noise, how)

    def turned() -> tuple[Flip, ...]:
        during = training_flips(best, curves, noise, runs=runs) if curves else ()
        return (*regime_flips(sound, noise), *during)

    def by_value() -> tuple[tuple[Star, ...], tuple[CoordinateScaling, ...], tuple[HyperLaw, ...]]:
        around = stars(best, runs, noise, near)
        return around, coordinate_scaling(best, around), hyper_laws(best, around, level, runs)

    # What takes longest and needs nothing of each other, the longest first.
    parts: tuple[Callable[[], Any], ...] = (
        lambda: orders(best, ranked, runs, curves, noise) if curves else (),
        lambda: transfers(best, runs, laws),
        over_baseline,
        by_value,
        lambda: joint_fits([one for one in sound if one.regime[:2] not in flat], noise, how),
        turned,
        lambda: paces(best, runs),
        lambda: edges(best, runs),
        lambda: findings(best, ranked, noise, how, curves),
    )
    ordered, given, (speeds, weak), (around, scaled, valued), joint, flips, clocks, ends, found = in_parallel(
        lambda part: part(), parts, least=2
    )
    stated = statements(best, ranked, speeds, noise, how)
    spent = costs(best, runs, speeds, baseline, clocks)
    fronts = frontiers(best, runs, noise, how)
    places = {run.regime for run in runs}
    raced = to_target(judged, inputs.trials, noise, tuple(targets) or inputs.targets)
    return Analysis(
        inputs=inputs,
        baseline=baseline,
        level=level,
        noise=noise,
        winners=best,
        laws=laws,
        speedups=speeds,
        joint=joint,
        rankings=ranked,
        statements=tuple(replace(one, sentence=_short(one.sentence, places)) for one in stated),
        noise_line=_short(noise_line(best, stated, noise), places),
        circumstances=circumstances(best),
        findings=found,
        flips=flips,
        orders=ordered,
        transfer=given,
        undertuned=weak,
        budgets=budgets(runs, by_regime=True),
        edges=ends,
        stars=around,
        coordinates=scaled,
        hyper_laws=valued,
        costs=spent,
        pareto=pareto(best, spent),
        frontiers=fronts,
        targets=raced,
        warnings=tuple(
            _short(warning, places)
            for warning in (
                *inputs.doubts,
                *warnings(judged, best, noise, laws, speeds, baseline, joint, fronts, ends, bool(raced)),
                *frontier_doubts(fronts, noise, baseline),
                *uneven_clocks(clocks),
            )
        ),
    )
