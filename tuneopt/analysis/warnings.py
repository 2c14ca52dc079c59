"""What a reader must know before trusting the figures, one sentence each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tuneopt.analysis.best import Result
from tuneopt.analysis.joint import JointFit
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.speedup import BASELINE, BaselineLaw, Speedup


def warnings(
    runs: Sequence[Run],
    results: Sequence[Result],
    noise: NoiseModel,
    laws: Sequence[BaselineLaw],
    speeds: Sequence[Speedup],
    baseline: str = BASELINE,
    joint: Sequence[JointFit] = (),
) -> list[str]:
    """The doubts about an analysis: what was left out, laws, noise, speedups, and the joint fit's misfit."""
    return [
        *_left_out(runs, results),
        *_baseline_gaps(results, laws, baseline),
        *_law_doubts(laws, noise, baseline),
        *_noise_doubts(results, noise),
        *_speedup_doubts(speeds),
        *_joint_doubts(joint),
    ]


def _left_out(runs: Sequence[Run], results: Sequence[Result]) -> Iterable[str]:
    unproven = [run for run in runs if run.status == "unproven"]
    if unproven:
        names = Counter(run.optimizer for run in unproven)
        listed = ", ".join(f"{name} {count}" for name, count in sorted(names.items()))
        yield f"left out because the proof of the optimizer is missing or failed: {listed} trials"
    there = {(result.optimizer, result.regime) for result in results}
    for optimizer, regime in sorted({(run.optimizer, run.regime) for run in runs} - there):
        yield f"{optimizer} has no comparable run at {regime.label} and is not ranked there"
    variants: dict[tuple[str, RegimeKey], set[tuple[object, ...]]] = defaultdict(set)
    for run in runs:
        variants[run.optimizer, run.regime].add(run.variant)
    for optimizer, regime in sorted(there):
        known = variants[optimizer, regime]
        if len({variant[:1] for variant in known}) > 1 and all(len(variant) == 4 for variant in known):
            yield f"the runs of {optimizer} at {regime.label} mix compute precisions"


def _baseline_gaps(results: Sequence[Result], laws: Sequence[BaselineLaw], baseline: str) -> Iterable[str]:
    fitted = {(law.corpus, law.scale) for law in laws}
    for corpus, scale in dict.fromkeys(result.regime[:2] for result in results):
        if (corpus, scale) in fitted:
            continue
        ratios = sum(result.optimizer == baseline and result.regime[:2] == (corpus, scale) for result in results)
        has = "no result" if ratios == 0 else "one ratio only"
        yield f"no speedups at scale {scale}: {baseline} has {has} there, and a loss law needs two (better three)"


def _law_doubts(laws: Sequence[BaselineLaw], noise: NoiseModel, baseline: str) -> Iterable[str]:
    for known in laws:
        if known.law.kind == "log-linear":
            yield f"{baseline} has two ratios at scale {known.scale}: speedups there interpolate linearly in log D"
        if float(known.law.alpha) <= 0:
            yield f"the loss of {baseline} does not fall with its budget at scale {known.scale}: no speedup is meant"
        spreads = [noise.of(result.regime) for result in known.results]
        sigma = max((spread.sigma for spread in spreads if spread is not None), default=None)
        residual = float(known.law.residual)
        if sigma is not None and residual > 2 * sigma:
            yield (
                f"the loss law of {baseline} at scale {known.scale} misses its points by {residual:.4f} nats, "
                f"more than twice the noise of {sigma:.4f}"
            )


def _noise_doubts(results: Sequence[Result], noise: NoiseModel) -> Iterable[str]:
    regimes = list(dict.fromkeys(result.regime for result in results))
    silent = [regime.label for regime in regimes if noise.of(regime) is None]
    if silent:
        yield f"no seed replicates and no given sigma, hence no intervals and tie groups, at {', '.join(silent)}"
    assumed = {spread.sigma for regime in regimes if (spread := noise.of(regime)) and spread.source == "assumed"}
    for sigma in sorted(assumed):
        yield f"no seed replicates: intervals and tie groups assume sigma = {sigma:g} nats, the paper ladder's"


def _speedup_doubts(speeds: Sequence[Speedup]) -> Iterable[str]:
    floored = [f"{speed.optimizer} at {speed.regime.label}" for speed in speeds if "lower bound" in speed.flags]
    if floored:
        yield f"under the floor of the baseline's law, so the speedup is a lower bound: {', '.join(floored)}"
    extrapolated = sum("extrapolated" in speed.flags for speed in speeds)
    if extrapolated:
        yield f"{extrapolated} speedups extrapolate the baseline's law beyond the budgets that it was trained with"


def _joint_doubts(joint: Sequence[JointFit]) -> Iterable[str]:
    places = [(fit.scale or "all scales together", fit.excess) for fit in joint if "misfit" in fit.flags]
    if places:
        listed = ", ".join(f"{place} {excess:.1f}" for place, excess in places if excess is not None)
        yield (
            f"one factor per optimizer does not explain every loss (residuals over noise: {listed}): speedups differ "
            "between regimes, and the joint fit's intervals are widened by as much"
        )
