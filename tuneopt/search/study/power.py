"""What a plan will be able to tell apart, before anything runs: in nats, and as a speedup.

Two optimizers are compared by the means of their winners' seeds. The noise model says which difference of such means is
found with 95% confidence. Which configurations were chosen is uncertain too, and no seeds mend that: it counts besides,
as it does in the intervals of a report. The slope of the baseline's loss over log tokens turns nats into a factor of
tokens. All are what is known beforehand: replicates of the ledger and a law for the noise, measured or published losses
for the slope.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuneopt.constants import CONFIDENCE, NANO_LOSS, ONE_SIDED_95
from tuneopt.search.noise import Cell, NoiseRegime, SpreadModel, tuning_error
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.study import PHASES
from tuneopt.search.study.surfaces import published_points
from tuneopt.spec import SCALES, Regime

HALVING = 4
"""Times as many seeds that halve a resolution: it falls with the root of their number."""


LARGEST_SPEEDUP = 100.0
"""A factor of tokens beyond anything claimed: there the baseline's loss hardly falls, and says nothing in tokens."""

MEASURED, LAW = "replicates in the ledger", "a law over model size, good to a factor of four"
"""Where a sigma is from."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Nats by which the baseline's loss falls while log tokens grow by one, and where that is known from, in words."""

    nats: float
    origin: str


@dataclass(frozen=True, slots=True)
class Power:
    """What a comparison of two winners in a regime will tell apart.

    A difference of ``nats`` between the two configurations is found with ``confidence`` as often as not (power one
    half), one of ``tuned_nats`` between the optimizers: another tuning would have ended on others. Where two
    configurations of one optimizer are compared, both are the same. ``speedup`` and ``tuned_speedup`` are the
    factors of tokens that they stand for, None where no slope is known or a factor is above `LARGEST_SPEEDUP`. With
    ``halving_seeds`` seeds instead of ``seeds`` the nats halve, not the tuned ones; that takes ``halving_trials``
    trials more. ``sigma`` (nats, of one run) is the larger of the two optimizers'.
    """

    optimizer: str
    baseline: str
    scale: str
    ratio: float
    seeds: int
    sigma: float
    sigma_from: str
    nats: float
    speedup: float | None
    slope_from: str
    confidence: float
    halving_seeds: int
    halving_trials: int
    tuned_nats: float
    tuned_speedup: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def slope(regime: Regime, measured: Mapping[float, float] | None = None) -> Slope | None:
    """How steeply the baseline's loss falls at a regime; None where nothing is known.

    ``measured`` holds its losses (nats) by ratio at this scale. Without two of them the published study's AdamW stands
    for it, at the nearest size of the ladder, or on the nano ladder what was measured here (`NANO_LOSS`).
    """
    if measured and len(measured) > 1 and (nats := _chord(measured, regime.ratio)) is not None:
        return Slope(nats, "the baseline's runs in the ledger")
    if regime.scale.ladder == "nano":
        _, alpha, exponent, unit = NANO_LOSS
        return Slope(exponent * alpha * (regime.tokens / unit) ** -exponent, "AdamW at nano-65k, as measured")
    points = [point for point in published_points("adamw") if SCALES[point.scale].ladder == regime.scale.ladder]
    if not points:
        return None
    size = regime.scale.parameters
    nearest = min({point.scale for point in points}, key=lambda name: abs(math.log(SCALES[name].parameters / size)))
    nats = _chord({point.ratio: point.loss for point in points if point.scale == nearest}, regime.ratio)
    return None if nats is None else Slope(nats, f"AdamW at {nearest} in the published study")


def _chord(losses: Mapping[float, float], ratio: float) -> float | None:
    """The slope between the two known ratios nearest to ``ratio``; None where the loss does not fall."""
    near = sorted(sorted(losses, key=lambda known: abs(math.log(known / ratio)))[:2])
    nats = (losses[near[0]] - losses[near[1]]) / math.log(near[1] / near[0])
    return nats if nats > 0 else None


def power(
    noise: SpreadModel, regime: Regime, baseline: str, optimizer: str, seeds: int, steep: Slope | None, cells: int = 2
) -> Power:
    """What the means of ``seeds`` seeds of an optimizer and the baseline tell apart.

    ``cells`` is how many means of this kind the plan has: to halve a resolution, all of them need the seeds.
    """
    place = NoiseRegime(float(regime.scale.parameters), regime.ratio)
    one, other = Cell(baseline, place), Cell(optimizer, place)
    spreads = [noise.spread(*cell) for cell in (one, other)]
    widest = max(spreads, key=lambda spread: spread.sigma)
    nats = noise.resolution(one, seeds, other, seeds)
    chosen = [0.0, 0.0] if one == other else [tuning_error(spread.sigma) for spread in spreads]
    tuned = math.hypot(nats, *(ONE_SIDED_95 * error for error in chosen))
    return Power(
        optimizer=optimizer,
        baseline=baseline,
        scale=regime.scale.name,
        ratio=regime.ratio,
        seeds=seeds,
        sigma=widest.sigma,
        sigma_from="replicates in the ledger"
        if widest.replicates
        else "a law over model size, good to a factor of four",
        nats=nats,
        speedup=_factor(nats, steep),
        slope_from="" if steep is None else steep.origin,
        confidence=CONFIDENCE,
        halving_seeds=HALVING * seeds,
        halving_trials=(HALVING - 1) * seeds * cells,
        tuned_nats=tuned,
        tuned_speedup=_factor(tuned, steep),
    )


def _factor(nats: float, steep: Slope | None) -> float | None:
    """The factor of tokens that a difference stands for; None without a slope, or with one too flat."""
    if steep is None or nats / steep.nats > math.log(LARGEST_SPEEDUP):
        return None
    return math.exp(nats / steep.nats)


def study_power(plan: StudyPlan, noise: SpreadModel) -> tuple[Power, ...]:
    """What a study will tell apart in each of its regimes: the pair of optimizers that noise covers most.

    The baseline is AdamW where it is compared, else the first optimizer. With one optimizer its configurations are what
    is told apart. A regime whose ladder has no known losses has no ``speedup``.
    """
    study = plan.study
    names = list(study.optimizers)
    baseline = study.comparison.baseline if study.comparison else "adamw" if "adamw" in names else names[0]
    others = [name for name in names if name != baseline] or [baseline]
    seeds = study.comparison.seeds if study.comparison else study.replicates
    regimes = dict.fromkeys(regime for phase in PHASES for regime in plan.regimes(phase))
    return tuple(
        weakest([power(noise, regime, baseline, name, seeds, slope(regime), len(names)) for name in others])
        for regime in regimes
    )


def weakest(powers: Sequence[Power]) -> Power:
    """The comparison that will tell least apart."""
    return max(powers, key=lambda each: each.nats)
