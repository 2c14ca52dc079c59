"""Speedup over a well-tuned baseline, with an interval.

At a scale, the baseline's losses over its ratios give L(D) = alpha * D^-B + beta. An optimizer that reaches a loss with
D tokens is worth the D_eff tokens at which the baseline's law reaches that loss; its speedup is D_eff / D (Wen et al.,
arXiv 2509.02046, section 4). The interval is a parametric bootstrap: every loss, the baseline's too, is redrawn with
the noise between seeds, the law is fitted anew, and quantiles of the redrawn speedups are taken, so that the fit's own
uncertainty is inside.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

from tuneopt.analysis.best import Result
from tuneopt.analysis.noise import Noise, NoiseModel
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.scaling import Array, Law, fit
from tuneopt.spec import InputError

BASELINE = "adamw"
LEVEL = 0.9
DRAWS = 2000

BEYOND = 1.02
"""D_eff counts as extrapolated when it lies outside the baseline's budgets by more than this factor."""


@dataclass(frozen=True, slots=True)
class Speedup:
    """D_eff / D of one optimizer in one regime.

    ``speedup`` is finite always: where the loss lies at or under the law's floor no budget of the baseline is known to
    reach it, and ``speedup`` is the largest value that is certain (flag ``lower bound``). ``low`` and ``high`` bound
    the interval at the asked level; ``low`` is None where no noise is known, ``high`` also where the interval is open
    above (flag ``open above``). ``effective_tokens`` is D_eff, None under the floor. Further flags: ``extrapolated``
    (D_eff lies outside the budgets that the baseline was trained with) and ``interpolated`` (the baseline has two
    ratios only, so a straight line in log D stands for the law).
    """

    optimizer: str
    regime: RegimeKey
    loss: float
    runs: int
    speedup: float
    low: float | None
    high: float | None
    effective_tokens: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BaselineLaw:
    """The baseline's law at one scale of one corpus, and the results that it was fitted to, by budget."""

    corpus: str
    scale: str
    law: Law
    results: tuple[Result, ...]


def baseline_laws(results: Iterable[Result], baseline: str = BASELINE) -> tuple[BaselineLaw, ...]:
    """The law of each (corpus, scale) where the baseline has at least two ratios; means over more seeds weigh more."""
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        if result.optimizer == baseline:
            groups[result.regime.corpus, result.regime.scale].append(result)
    laws = []
    for (corpus, scale), members in groups.items():
        ordered = sorted(members, key=lambda result: result.tokens)
        if len(ordered) > 1:
            law = fit(*_points(ordered))
            laws.append(BaselineLaw(corpus, scale, law, tuple(ordered)))
    return tuple(laws)


def speedups(
    results: Sequence[Result],
    noise: NoiseModel,
    *,
    baseline: str = BASELINE,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Speedup, ...]:
    """The speedup of every result at a scale where the baseline has a law, the baseline itself included.

    ``level`` is the coverage of the intervals, ``draws`` the redrawn data sets per scale. The random numbers depend on
    ``seed``, corpus and scale alone, so a scale's intervals do not change when another scale is added. A sigma that was
    measured with few replicates is itself redrawn (scaled inverse chi-square), which widens the intervals as Student's
    t does. Raises `InputError` for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"the level of an interval must lie between 0 and 1, not {level!r}; try 0.9")
    found: list[Speedup] = []
    for known in baseline_laws(results, baseline):
        here = [result for result in results if result.regime[:2] == (known.corpus, known.scale)]
        drawn = _redraw(known, here, noise, draws, seed)
        found += [
            _speedup(result, known, None if drawn is None else drawn[number], level)
            for number, result in enumerate(here)
        ]
    return tuple(found)


def _speedup(result: Result, known: BaselineLaw, drawn: Array | None, level: float) -> Speedup:
    budgets = known.law.budgets
    effective = float(known.law.budget(result.loss))
    low, high = (None, None) if drawn is None else _interval(drawn, level)
    flags = ["interpolated"] if known.law.kind == "log-linear" else []
    if np.isfinite(effective) and effective > 0:
        speedup = effective / result.tokens
        if not budgets[0] / BEYOND <= effective <= budgets[-1] * BEYOND:
            flags.append("extrapolated")
    else:
        # Under the floor the baseline's longest run is still worse: its budget is the least that D_eff can be.
        reached = budgets[-1] if effective > 0 else 0.0
        speedup = max(float(reached) / result.tokens, low or 0.0)
        low = None if low is None else min(low, speedup)
        flags.append("lower bound" if effective > 0 else "no law")
    if drawn is not None and high is None:
        flags.append("open above")
    return Speedup(
        optimizer=result.optimizer,
        regime=result.regime,
        loss=result.loss,
        runs=result.runs,
        speedup=speedup,
        low=low,
        high=high,
        effective_tokens=effective if np.isfinite(effective) else None,
        flags=tuple(flags),
    )


def _interval(drawn: Array, level: float) -> tuple[float | None, float | None]:
    """Equal-tailed quantiles without interpolation, because a redrawn speedup may be infinite."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return (float(low) if np.isfinite(low) else None), (float(high) if np.isfinite(high) else None)


def _redraw(known: BaselineLaw, here: list[Result], noise: NoiseModel, draws: int, seed: int) -> Array | None:
    """Speedups under redrawn losses, shape (results, draws); None when some noise is unknown."""
    everyone = {id(result): result for result in (*known.results, *here)}
    spreads = {key: noise.of(result.regime) for key, result in everyone.items()}
    if any(spread is None for spread in spreads.values()):
        return None
    rng = np.random.default_rng([seed, zlib.crc32(f"{known.corpus}\n{known.scale}".encode())])
    scales: dict[Noise, Array] = {}
    losses = {}
    for key, result in everyone.items():
        spread = spreads[key]
        assert spread is not None
        if spread not in scales:
            scales[spread] = _sigmas(spread, draws, rng)
        losses[key] = result.loss + scales[spread] / np.sqrt(result.runs) * rng.standard_normal(draws)
    budgets, _, weights = _points(known.results)
    laws = fit(budgets, np.stack([losses[id(result)] for result in known.results], axis=-1), weights)
    return np.stack([laws.budget(losses[id(result)]) / result.tokens for result in here])


def _sigmas(noise: Noise, draws: int, rng: np.random.Generator) -> Array:
    if noise.freedom is None:
        return np.full(draws, noise.sigma)
    uniform = rng.uniform(1e-9, 1, draws)
    return np.asarray(noise.sigma * np.sqrt(noise.freedom / chdtri(noise.freedom, uniform)))


def _points(results: Sequence[Result]) -> tuple[list[float], list[float], list[float]]:
    return (
        [result.tokens for result in results],
        [result.loss for result in results],
        [float(result.runs) for result in results],
    )
