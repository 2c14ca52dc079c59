"""Everything at once: from a table of results to the document that ``tuneopt report --json`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tuneopt.analysis.best import Result, choose
from tuneopt.analysis.curves import training_flips
from tuneopt.analysis.flips import Flip, regime_flips
from tuneopt.analysis.noise import NoiseModel, measure
from tuneopt.analysis.ranking import Ranking, rankings
from tuneopt.analysis.runs import Rows, Run, read_runs
from tuneopt.analysis.scaling import describe
from tuneopt.analysis.speedup import BASELINE, DRAWS, LEVEL, BaselineLaw, Speedup, baseline_laws, speedups

if TYPE_CHECKING:
    import pyarrow as pa


def summary(
    source: pa.Table | Rows,
    *,
    curves: pa.Table | None = None,
    baseline: str = BASELINE,
    sigma: float | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Speedups, rankings, flips and warnings as plain data for JSON, without NaN or infinity.

    ``source`` is a ledger's table or rows that `read_runs` takes; ``curves`` (`Ledger.curves`) adds the flips during
    training. ``sigma`` (nats) replaces measured noise. Intervals hold ``level`` of the redrawn speedups and are null
    where no noise is known; so is ``tie_group``. Raises `InputError` for rows that are no results.
    """
    runs = read_runs(source)
    noise = measure(runs, sigma)
    results = choose(runs, noise)
    ranked = {ranking.regime: ranking for ranking in rankings(results, noise)}
    laws = baseline_laws(results, baseline)
    speeds = speedups(results, noise, baseline=baseline, level=level, draws=draws, seed=seed)
    flips = [*regime_flips(results, noise), *(training_flips(results, curves, noise) if curves is not None else ())]
    return {
        "speedups": [_speedup(speed, ranked[speed.regime]) for speed in speeds],
        "rankings": [_ranking(ranking) for ranking in ranked.values()],
        "flips": [_flip(flip) for flip in flips],
        "warnings": warnings(runs, results, noise, laws, speeds, baseline),
        "baseline": baseline,
        "level": level,
        "laws": [{"corpus": law.corpus, "scale": law.scale, **describe(law.law)} for law in laws],
    }


def _speedup(speed: Speedup, ranking: Ranking) -> dict[str, Any]:
    return {
        "optimizer": speed.optimizer,
        "scale": speed.regime.scale,
        "ratio": speed.regime.ratio,
        "speedup": speed.speedup,
        "low": speed.low,
        "high": speed.high,
        "tie_group": ranking.group_of(speed.optimizer),
        "corpus": speed.regime.corpus,
        "loss": speed.loss,
        "runs": speed.runs,
        "flags": list(speed.flags),
    }


def _ranking(ranking: Ranking) -> dict[str, Any]:
    noise = ranking.noise
    return {
        "scale": ranking.regime.scale,
        "ratio": ranking.regime.ratio,
        "order": list(ranking.order),
        "corpus": ranking.regime.corpus,
        "losses": list(ranking.losses),
        "tie_groups": None if ranking.groups is None else list(ranking.groups),
        "sigma": None if noise is None else noise.sigma,
        "sigma_source": None if noise is None else noise.source,
    }


def _flip(flip: Flip) -> dict[str, Any]:
    return {"kind": flip.kind, "pair": list(flip.pair), "where": flip.where, "significant": flip.significant}


def warnings(
    runs: Sequence[Run],
    results: Sequence[Result],
    noise: NoiseModel,
    laws: Sequence[BaselineLaw],
    speeds: Sequence[Speedup],
    baseline: str = BASELINE,
) -> list[str]:
    """What a reader must know before trusting the figures, one sentence each."""
    return [
        *_left_out(runs, results),
        *_baseline_gaps(results, laws, baseline),
        *_law_doubts(laws, noise, baseline),
        *_noise_doubts(results, noise),
        *_speedup_doubts(speeds),
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
    for optimizer, regime in sorted(there):
        variants = {run.variant for run in runs if (run.optimizer, run.regime) == (optimizer, regime) and run.config}
        if len({variant[:1] for variant in variants}) > 1 and all(len(variant) == 4 for variant in variants):
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
