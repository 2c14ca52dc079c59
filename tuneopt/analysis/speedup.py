"""Speedup over a well-tuned baseline, with an interval.

At a scale, the baseline's losses over its ratios say how its loss falls with its budget. An optimizer that reaches a
loss with D tokens is worth the D_eff tokens at which the baseline reaches that loss; its speedup is D_eff / D (Wen et
al., arXiv 2509.02046, section 4). D_eff is read from what was measured around it: a law that falls and is convex in
log D, whose exponent may drift (`tuneopt.analysis.local_law`). The one power law over all budgets stands beside it.

The interval holds the noise between seeds, how well both sides were tuned, and that the law's form is not known: every
loss, the baseline's too, is redrawn with its error, laws are drawn that still explain them, and quantiles of the
speedups over these laws are taken.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri

from tuneopt.analysis.local_law import DRIFT, LocalLaw, draw_local, fit_local
from tuneopt.analysis.noise import FAMILY_RATE, Noise, NoiseModel, difference_noise
from tuneopt.analysis.runs import Array, RegimeKey
from tuneopt.analysis.scaling import LossLaw, fit
from tuneopt.analysis.winner import Winner, broken
from tuneopt.constants import BASELINE as BASELINE
from tuneopt.constants import ONE_SIDED_95
from tuneopt.search.noise import tuning_error
from tuneopt.search.study.brackets import bracketing_ratios
from tuneopt.spec import InputError

LEVEL = 0.9
"""Coverage of the intervals."""

DRAWS = 2000
"""Redrawn data sets: the ends of a 90% interval are then known to about 3% of its half-width."""

BEYOND = 1.02
"""D_eff counts as extrapolated when it lies outside the baseline's budgets by more than this factor."""

OUT_OF_REACH = 16.0
"""Times the baseline's longest run beyond which D_eff is not known: four doublings away no run says anything, and a
number such as 231 would be one of the law's tail. A speedup is a lower bound there, and an interval is open."""

BEYOND_BUDGETS = frozenset(("extrapolated", "lower bound", "no law"))
"""Flags of a speedup that rests on budgets which the baseline was never trained with."""

LEAST_ERROR = 1e-6
"""Nats that a loss is off by at least: what its last printed digit says, and no error of zero divides anything."""


@dataclass(frozen=True, slots=True)
class IntervalSettings:
    """Over whom speedups are taken, and how their intervals are drawn.

    ``level`` is the coverage, ``draws`` the redrawn data sets, ``seed`` that of the random numbers. ``tuning`` (nats)
    is how well configurations are tuned: nine of ten tuned losses lie so close to what their budget allows, on both
    sides of a comparison; None takes a choice to be as uncertain as one run. ``drift`` is how far the
    exponent of the baseline's law drifts; 0 takes one power law for true. Raises `InputError` for a level outside
    (0, 1), or a tuning or drift that is not 0 or more.
    """

    baseline: str = BASELINE
    level: float = LEVEL
    draws: int = DRAWS
    seed: int = 0
    tuning: float | None = None
    drift: float = DRIFT

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InputError(f"the level of an interval must lie between 0 and 1, not {self.level!r}; try 0.9")
        if self.tuning is not None and not (math.isfinite(self.tuning) and self.tuning >= 0):
            raise InputError(f"tuning must be a number of nats, 0 or more, not {self.tuning!r}; the study's is 0.003")
        if not (math.isfinite(self.drift) and self.drift >= 0):
            raise InputError(f"drift must be a number, 0 or more, not {self.drift!r}; try {DRIFT:g}")

    def tuning_error(self, sigma: float) -> float:
        """Standard deviation (nats) of how far a tuned loss lies from the others' quality of tuning.

        Configurations are chosen by runs whose noise is ``sigma`` (nats), most of them single, so that a choice is
        taken to be as uncertain as one run. Simulated tunings scatter by 0.3 to 0.7 sigma.
        """
        return tuning_error(sigma) if self.tuning is None else self.tuning / ONE_SIDED_95


DEFAULTS = IntervalSettings()


@dataclass(frozen=True, slots=True)
class Speedup:
    """D_eff / D of one optimizer in one regime.

    ``speedup`` is finite always: where the loss lies at or under the law's floor no budget of the baseline is known to
    reach it, and ``speedup`` is the largest value that is certain, at most what the baseline's longest run shows (flag
    ``lower bound``). ``low`` and ``high`` bound the interval at the asked level; ``low`` is None where no noise is
    known, ``high`` also where the interval is open above (flag ``open above``). ``effective_tokens`` is D_eff, None
    under the floor. Further flags: ``extrapolated`` (D_eff lies outside the budgets that the baseline was trained
    with), ``interpolated`` (the baseline has two ratios only, so the bend between them is the usual one of loss laws)
    and ``no law`` (the baseline's loss does not fall, or any speedup would explain a loss: ``speedup`` is no number
    then and stands as 0, but for the baseline's own).

    ``bound_low`` and ``bound_high`` hold whatever the form of the law, as long as it falls and is convex in log D and
    its fitted points are right; ``bound_high`` is None beyond the longest run. ``settled_by`` is the ratio at which
    one more run of the baseline would bracket an extrapolated D_eff, else None.
    """

    optimizer: str
    regime: RegimeKey
    loss: float  # nats per token, the mean over ``runs`` seeds
    runs: int
    speedup: float  # of tokens; 1 is the baseline's own, 0 stands where there is none
    low: float | None
    high: float | None
    effective_tokens: float | None
    flags: tuple[str, ...]
    bound_low: float | None = None
    bound_high: float | None = None
    settled_by: float | None = None  # a ratio

    @property
    def extrapolated(self) -> bool:
        """Whether the figure rests on budgets that the baseline was never trained with."""
        return bool(BEYOND_BUDGETS & set(self.flags))

    @property
    def inverted(self) -> tuple[float | None, float | None, float | None]:
        """The baseline's speedup over this optimizer with its interval; None for what is unknown or open."""
        value = self.speedup if self.effective_tokens else None  # a lower bound has no inverse that is known
        value, low, high = (
            1 / part if part is not None and part > 0 else None for part in (value, self.high, self.low)
        )
        return value, low, high


def above_one(low: float | None, flags: Collection[str]) -> bool:
    """Whether an interval that begins at ``low`` says that tokens are saved.

    A lower bound of 1 does: noise apart, the baseline's longest run is as long, and worse.
    """
    return low is not None and (low > 1 or (low == 1 and "lower bound" in flags))


@dataclass(frozen=True, slots=True)
class BaselineLaw:
    """The baseline's law at one scale of one corpus, and the results that it was fitted to, by budget.

    ``local`` is what speedups are read from; None where the loss does not fall with the budget. ``law`` is the one
    power law over all budgets, the published study's. ``errors`` are the standard deviations (nats) of the losses that
    ``local`` was fitted to. ``broken`` are regimes where the baseline ends far above the best
    (`tuneopt.analysis.winner.broken`): then ``local`` is None, for a law through such a run is one of no optimizer.
    """

    corpus: str
    scale: str
    law: LossLaw
    winners: tuple[Winner, ...]
    local: LocalLaw | None
    errors: tuple[float, ...]
    broken: tuple[RegimeKey, ...] = ()

    def loss(self, budgets: npt.ArrayLike) -> Array:
        """What the baseline reaches with ``budgets`` (tokens), in nats."""
        return (self.local or self.law).loss(budgets)

    def budget(self, loss: float) -> float:
        """D_eff in tokens: where the baseline reaches ``loss``; infinite where no budget is known to."""
        return float((self.local or self.law).budget(loss))


def baseline_laws(
    winners: Iterable[Winner], noise: NoiseModel, how: IntervalSettings = DEFAULTS
) -> tuple[BaselineLaw, ...]:
    """The law of each (corpus, scale) where the baseline has at least two ratios; means over more seeds weigh more."""
    winners = list(winners)
    far = broken(winners)
    groups: dict[tuple[str, str], list[Winner]] = defaultdict(list)
    for winner in winners:
        if winner.optimizer == how.baseline:
            groups[winner.regime.corpus, winner.regime.scale].append(winner)
    laws = []
    for (corpus, scale), members in groups.items():
        if len(members) > 1:
            known = baseline_law(corpus, scale, members, noise, how)
            steps = tuple(one.regime for one in known.winners if (one.regime, one.optimizer) in far)
            laws.append(replace(known, local=None, broken=steps) if steps else known)
    return tuple(laws)


def baseline_law(
    corpus: str, scale: str, members: Iterable[Winner], noise: NoiseModel, how: IntervalSettings = DEFAULTS
) -> BaselineLaw:
    """The law through the baseline's results ``members``, two at least, over what stands in their ``tokens``."""
    ordered = sorted(members, key=lambda winner: winner.tokens)
    budgets, losses = [winner.tokens for winner in ordered], [winner.loss for winner in ordered]
    law = fit(budgets, losses, [winner.runs for winner in ordered])
    errors = []
    for winner in ordered:
        spread = noise.of(winner.regime, winner.optimizer)
        sigma = 0.0 if spread is None else spread.sigma
        errors.append(max(math.hypot(sigma / math.sqrt(winner.runs), how.tuning_error(sigma)), LEAST_ERROR))
    local = fit_local(budgets, losses, errors, how.drift) if float(law.alpha) > 0 else None
    return BaselineLaw(corpus, scale, law, tuple(ordered), local, tuple(errors))


def falls(law: BaselineLaw, noise: NoiseModel) -> bool:
    """Whether a baseline's loss falls between any two budgets by more than noise explains; at all, where none is known.

    All pairs are one family (Bonferroni), for of many equal losses some come in the order of a law.
    """
    pairs = list(combinations(law.winners, 2))
    for before, after in pairs:
        spreads = [noise.of(one.regime, one.optimizer) for one in (before, after)]
        apart = 0.0
        if spreads[0] is not None and spreads[1] is not None:
            known = difference_noise(spreads[0], before.runs, spreads[1], after.runs)
            apart = known.quantile(1 - FAMILY_RATE / len(pairs)) * known.sigma
        if before.loss - after.loss > apart:
            return True
    return False


def speedups(winners: Sequence[Winner], noise: NoiseModel, how: IntervalSettings = DEFAULTS) -> tuple[Speedup, ...]:
    """The speedup of every winner at a scale where the baseline's loss falls by a law, the baseline itself included.

    The random numbers depend on the seed and a result's own place alone, so its interval does not change when others
    are added. A sigma that was measured with few replicates is itself redrawn (scaled inverse chi-square), which widens
    the intervals as Student's t does. The baseline's own results have speedup 1, with the interval of anybody who ends
    at the same loss.
    """
    speeds: list[Speedup] = []
    for known in baseline_laws(winners, noise, how):
        if known.local is None:
            continue
        here = [winner for winner in winners if winner.regime[:2] == (known.corpus, known.scale)]
        speeds += over_law(known, here, redrawn_law(known, noise, how), noise, how)
    return tuple(speeds)


def over_law(
    known: BaselineLaw,
    winners: Sequence[Winner],
    drawn: LocalLaw | None,
    noise: NoiseModel,
    how: IntervalSettings = DEFAULTS,
) -> tuple[Speedup, ...]:
    """The speedups of ``winners``, all of the law's corpus and scale, over one law and its draws (`redrawn_law`)."""
    return tuple(_speedup(winner, known, _redrawn(winner, drawn, noise, how), how) for winner in winners)


def redrawn_law(known: BaselineLaw, noise: NoiseModel, how: IntervalSettings = DEFAULTS) -> LocalLaw | None:
    """``how.draws`` laws of the baseline at one scale, as a batch; None without a law or where noise is unknown."""
    spreads = tuple(noise.of(winner.regime, winner.optimizer) for winner in known.winners)
    measured = tuple(spread for spread in spreads if spread is not None)
    if known.local is None or len(measured) < len(spreads):
        return None
    results = tuple((winner.tokens, winner.loss, winner.runs) for winner in known.winners)
    return _draws_of(known.corpus, known.scale, results, measured, known.errors, how)


@lru_cache(maxsize=16)
def _draws_of(
    corpus: str,
    scale: str,
    results: tuple[tuple[float, float, int], ...],
    spreads: tuple[Noise, ...],
    errors: tuple[float, ...],
    how: IntervalSettings,
) -> LocalLaw:
    """The draws through ``results`` (tokens, loss, runs): drawn once for all that is read from them in a report."""
    rng = np.random.default_rng([how.seed, _code(corpus, scale)])
    drawn = np.stack(
        [_perturbation(spread, runs, rng, how) for spread, (_, _, runs) in zip(spreads, results, strict=True)], axis=-1
    )
    budgets, losses = [tokens for tokens, _, _ in results], [loss for _, loss, _ in results]
    return draw_local(budgets, losses, errors, drawn, rng, how.drift)


def _perturbation(spread: Noise, runs: int, rng: np.random.Generator, how: IntervalSettings) -> Array:
    """What seeds and tuning may have added to a mean over ``runs`` seeds, in nats, (draws,)."""
    seeds = redrawn_sigma(spread, how.draws, how.seed) / math.sqrt(runs) * rng.standard_normal(how.draws)
    return np.asarray(seeds + how.tuning_error(spread.sigma) * rng.standard_normal(how.draws))


def _redrawn(winner: Winner, drawn: LocalLaw | None, noise: NoiseModel, how: IntervalSettings) -> Array | None:
    """The speedups of one result over drawn laws, (draws,); None where some noise is unknown."""
    spread = noise.of(winner.regime, winner.optimizer)
    if drawn is None or spread is None:
        return None
    corpus, scale, ratio = winner.regime
    rng = np.random.default_rng([how.seed, _code(corpus, scale, repr(ratio), winner.optimizer)])
    losses = winner.loss + _perturbation(spread, winner.runs, rng, how)
    return np.asarray(drawn.budget(losses) / winner.tokens)


def _speedup(winner: Winner, known: BaselineLaw, drawn: Array | None, how: IntervalSettings) -> Speedup:
    if known.local is None:
        return _without_law(winner, known)
    first, last = float(known.law.budgets[0]), float(known.law.budgets[-1])
    # The baseline is once as fast as itself, whatever its law misses its points by (`LocalLaw.misfit` tells).
    own = winner in known.winners
    effective = winner.tokens if own else known.budget(winner.loss)
    if effective > OUT_OF_REACH * last:
        effective = math.inf
    low, high = (None, None) if drawn is None else interval(drawn, how.level)
    if own:
        low, high = (None if low is None else min(low, 1.0)), (None if high is None else max(high, 1.0))
    if high is not None and high * winner.tokens > OUT_OF_REACH * last:
        high = None
    flags = ["interpolated"] if len(known.winners) == 2 else []
    if math.isfinite(effective) and effective > 0:
        speedup = effective / winner.tokens
        if not first / BEYOND <= effective <= last * BEYOND:
            flags.append("extrapolated")
    else:
        # Under the floor the baseline's longest run is still worse: its budget is the least that D_eff can be, unless
        # noise may have put it there. More is not said, whatever redrawn laws say: a loss gets there by luck as well,
        # and of the low ends that they gave two thirds held (`benchmarks/calibration.py`).
        shown = last / winner.tokens
        speedup = (min(low or shown, shown) if effective > 0 else low) or 0.0
        low = speedup if drawn is not None else None
        flags.append("lower bound" if effective > 0 else "no law")
    if drawn is not None and high is None:
        flags.append("open above")
        if (low or 0.0) * winner.tokens < first / OUT_OF_REACH:  # as few tokens would do as many: nothing is known
            flags = [flag for flag in flags if flag not in BEYOND_BUDGETS] + ["no law"]
    if "no law" in flags and not own:
        speedup, low, high = 0.0, None, None
    bounds = known.local.bounds(winner.loss)
    if own:
        bounds = winner.tokens, winner.tokens
    beyond = "extrapolated" in flags or "lower bound" in flags
    return Speedup(
        optimizer=winner.optimizer,
        regime=winner.regime,
        loss=winner.loss,
        runs=winner.runs,
        speedup=speedup,
        low=low,
        high=high,
        effective_tokens=effective if math.isfinite(effective) else None,
        flags=tuple(flags),
        bound_low=bounds[0] / winner.tokens if math.isfinite(bounds[0]) else None,
        bound_high=bounds[1] / winner.tokens if math.isfinite(bounds[1]) else None,
        settled_by=_settled_by(winner, known) if beyond else None,
    )


def _without_law(winner: Winner, known: BaselineLaw) -> Speedup:
    """A result over a baseline whose loss does not fall: its speedup is no number, and stands as 0; the own is 1."""
    return Speedup(
        optimizer=winner.optimizer,
        regime=winner.regime,
        loss=winner.loss,
        runs=winner.runs,
        speedup=float(winner in known.winners),
        low=None,
        high=None,
        effective_tokens=None,
        flags=("no law",),
    )


def _settled_by(winner: Winner, known: BaselineLaw) -> float | None:
    """The ratio of the baseline run that would bracket a result outside the budgets; None where none is foreseen."""
    tuned = {result.regime.ratio: result.loss for result in known.winners}
    if len({result.regime.scale for result in known.winners}) > 1:  # over sizes another ratio at one settles nothing
        return None
    asked = bracketing_ratios(tuned, [winner.loss])
    return asked[0] if asked else None


def interval(samples: Array, level: float) -> tuple[float | None, float | None]:
    """Equal-tailed quantiles of the draws (n,); None for an end that is infinite.

    There is no interpolation between draws, because a redrawn speedup may be infinite.
    """
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return (float(low) if np.isfinite(low) else None), (float(high) if np.isfinite(high) else None)


@lru_cache(maxsize=512)
def redrawn_sigma(noise: Noise, draws: int, seed: int) -> Array:
    """``draws`` sigmas (nats) of one estimate, the same whenever it is asked for: results that share it share them."""
    if noise.freedom is None:
        return np.full(draws, noise.sigma)
    # Which estimate it is, and not its digits: another machine adds up to other last bits, and would draw all anew.
    rng = np.random.default_rng([seed, _code(noise.source, noise.pool)])
    return np.asarray(noise.sigma * np.sqrt(noise.freedom / chdtri(noise.freedom, rng.uniform(1e-9, 1, draws))))


def _code(*parts: str) -> int:
    """A number for random generators that depends on nothing but these words."""
    return zlib.crc32("\n".join(parts).encode())
