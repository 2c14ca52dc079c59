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

from tuneopt.analysis.noise import Noise, NoiseModel
from tuneopt.analysis.runs import Array, RegimeKey
from tuneopt.analysis.scaling import LossLaw, bent, fit
from tuneopt.analysis.winner import Winner
from tuneopt.spec import InputError

BASELINE = "adamw"

LEVEL = 0.9
"""Coverage of the intervals."""

DRAWS = 2000
"""Redrawn data sets: the ends of a 90% interval are then known to about 3% of its half-width."""

STEEPEST = 0.8
"""Exponent that bounds how far a law may bend where two ratios do not show it; laws of three or more, here and in the
published study, have 0.3 to 0.5."""

BEYOND = 1.02
"""D_eff counts as extrapolated when it lies outside the baseline's budgets by more than this factor."""


@dataclass(frozen=True, slots=True)
class IntervalSettings:
    """Over whom speedups are taken, and how their intervals are drawn.

    ``level`` is the coverage, ``draws`` the redrawn data sets, ``seed`` that of the random numbers. Raises
    `InputError` for a level outside (0, 1).
    """

    baseline: str = BASELINE
    level: float = LEVEL
    draws: int = DRAWS
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InputError(f"the level of an interval must lie between 0 and 1, not {self.level!r}; try 0.9")


DEFAULTS = IntervalSettings()


@dataclass(frozen=True, slots=True)
class Speedup:
    """D_eff / D of one optimizer in one regime.

    ``speedup`` is finite always: where the loss lies at or under the law's floor no budget of the baseline is known to
    reach it, and ``speedup`` is the largest value that is certain (flag ``lower bound``). ``low`` and ``high`` bound
    the interval at the asked level; ``low`` is None where no noise is known, ``high`` also where the interval is open
    above (flag ``open above``). ``effective_tokens`` is D_eff, None under the floor. Further flags: ``extrapolated``
    (D_eff lies outside the budgets that the baseline was trained with) and ``interpolated`` (the baseline has two
    ratios only, so a straight line in log D stands for the law, and the interval also holds what a law of exponent
    `STEEPEST` through both points says).
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

    @property
    def inverted(self) -> tuple[float | None, float | None, float | None]:
        """The baseline's speedup over this optimizer with its interval; None for what is unknown or open."""
        value = self.speedup if self.effective_tokens else None  # a lower bound has no inverse that is known
        value, low, high = (
            1 / part if part is not None and part > 0 else None for part in (value, self.high, self.low)
        )
        return value, low, high


@dataclass(frozen=True, slots=True)
class BaselineLaw:
    """The baseline's law at one scale of one corpus, and the results that it was fitted to, by budget."""

    corpus: str
    scale: str
    law: LossLaw
    winners: tuple[Winner, ...]


def baseline_laws(winners: Iterable[Winner], baseline: str = BASELINE) -> tuple[BaselineLaw, ...]:
    """The law of each (corpus, scale) where the baseline has at least two ratios; means over more seeds weigh more."""
    groups: dict[tuple[str, str], list[Winner]] = defaultdict(list)
    for winner in winners:
        if winner.optimizer == baseline:
            groups[winner.regime.corpus, winner.regime.scale].append(winner)
    laws = []
    for (corpus, scale), members in groups.items():
        ordered = sorted(members, key=lambda winner: winner.tokens)
        if len(ordered) > 1:
            budgets, losses = [winner.tokens for winner in ordered], [winner.loss for winner in ordered]
            law = fit(budgets, losses, [winner.runs for winner in ordered])
            laws.append(BaselineLaw(corpus, scale, law, tuple(ordered)))
    return tuple(laws)


def speedups(winners: Sequence[Winner], noise: NoiseModel, how: IntervalSettings = DEFAULTS) -> tuple[Speedup, ...]:
    """The speedup of every winner at a scale where the baseline has a law, the baseline itself included.

    The random numbers depend on the seed, corpus and scale alone, so a scale's intervals do not change when another
    scale is added. A sigma that was measured with few replicates is itself redrawn (scaled inverse chi-square), which
    widens the intervals as Student's t does.
    """
    speeds: list[Speedup] = []
    for known in baseline_laws(winners, how.baseline):
        here = [winner for winner in winners if winner.regime[:2] == (known.corpus, known.scale)]
        speeds += over_law(known, here, noise, how)
    return tuple(speeds)


def over_law(
    known: BaselineLaw, winners: Sequence[Winner], noise: NoiseModel, how: IntervalSettings = DEFAULTS
) -> tuple[Speedup, ...]:
    """The speedups of ``winners``, all of the law's corpus and scale, over one law.

    Here the form of the law is decided: what is to replace it has to give D_eff for a loss, and D_eff for each
    redrawn set of losses.
    """
    drawn = _redraw(known, list(winners), noise, how)
    return tuple(
        _speedup(winner, known, None if drawn is None else drawn[:, number], how.level)
        for number, winner in enumerate(winners)
    )


def _speedup(winner: Winner, known: BaselineLaw, drawn: Array | None, level: float) -> Speedup:
    budgets = known.law.budgets
    effective = float(known.law.budget(winner.loss))
    low, high = (None, None) if drawn is None else _interval(drawn, level)
    flags = ["interpolated"] if known.law.kind == "log-linear" else []
    if np.isfinite(effective) and effective > 0:
        speedup = effective / winner.tokens
        if not budgets[0] / BEYOND <= effective <= budgets[-1] * BEYOND:
            flags.append("extrapolated")
    else:
        # Under the floor the baseline's longest run is still worse: its budget is the least that D_eff can be.
        reached = budgets[-1] if effective > 0 else 0.0
        speedup = max(float(reached) / winner.tokens, low or 0.0)
        low = None if low is None else min(low, speedup)
        flags.append("lower bound" if effective > 0 else "no law")
    if drawn is not None and high is None:
        flags.append("open above")
    return Speedup(
        optimizer=winner.optimizer,
        regime=winner.regime,
        loss=winner.loss,
        runs=winner.runs,
        speedup=speedup,
        low=low,
        high=high,
        effective_tokens=effective if np.isfinite(effective) else None,
        flags=tuple(flags),
    )


def _interval(drawn: Array, level: float) -> tuple[float | None, float | None]:
    """Equal-tailed quantiles over the draws, the outermost of the laws (laws, draws).

    There is no interpolation between draws, because a redrawn speedup may be infinite.
    """
    lows, highs = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=-1, method="inverted_cdf")
    low, high = lows.min(), highs.max()
    return (float(low) if np.isfinite(low) else None), (float(high) if np.isfinite(high) else None)


def _redraw(known: BaselineLaw, here: list[Winner], noise: NoiseModel, how: IntervalSettings) -> Array | None:
    """Speedups under redrawn losses, shape (laws, results, draws); None when some noise is unknown.

    Two ratios allow two laws: the straight line, and the most bent one.
    """
    # By identity: the baseline is fitted and judged with one and the same redrawn loss, which makes its speedup near 1
    # as certain as it is.
    everyone = {id(winner): winner for winner in (*known.winners, *here)}
    spreads = {key: noise.of(winner.regime) for key, winner in everyone.items()}
    if any(spread is None for spread in spreads.values()):
        return None
    rng = np.random.default_rng([how.seed, zlib.crc32(f"{known.corpus}\n{known.scale}".encode())])
    sigmas = redrawn_sigmas([spread for spread in spreads.values() if spread is not None], how.draws, rng)
    losses = {
        key: winner.loss + sigma / np.sqrt(winner.runs) * rng.standard_normal(how.draws)
        for (key, winner), sigma in zip(everyone.items(), sigmas, strict=True)
    }
    base = known.winners
    drawn = np.stack([losses[id(winner)] for winner in base], axis=-1)  # (draws, budgets)
    laws = fit([winner.tokens for winner in base], drawn, [winner.runs for winner in base])
    every = [laws, bent(laws, STEEPEST)] if laws.kind == "log-linear" else [laws]
    return np.array([[law.budget(losses[id(winner)]) / winner.tokens for winner in here] for law in every])


def redrawn_sigmas(spreads: Sequence[Noise], draws: int, rng: np.random.Generator) -> list[Array]:
    """``draws`` sigmas for each of ``spreads``; equal spreads share theirs, for it is one estimate."""
    drawn: dict[Noise, Array] = {}
    for noise in spreads:
        if noise not in drawn:
            drawn[noise] = np.full(draws, noise.sigma)
            if noise.freedom is not None:
                uniform = rng.uniform(1e-9, 1, draws)
                drawn[noise] = np.asarray(noise.sigma * np.sqrt(noise.freedom / chdtri(noise.freedom, uniform)))
    return [drawn[noise] for noise in spreads]
