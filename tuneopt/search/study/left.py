"""How long the rest of a study will take, from what its trials have taken so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tuneopt.search.study.chains import urgency

if TYPE_CHECKING:
    from tuneopt.search.queue import SchedulerQueue
    from tuneopt.search.standing import Standing
    from tuneopt.search.study.expect import Expected
    from tuneopt.search.study.planner import StudyPlan
    from tuneopt.spec import Regime


@dataclass(frozen=True, slots=True)
class Moment:
    """A run of a study under way: its slots, and the fraction done of each running trial.

    ``seconds`` by the clock since the run began, in which trials of ``device_seconds`` together have ended: how much
    of a slot's time its trials get, starting and waiting included.
    """

    slots: int | None = None
    running: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    device_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Device seconds of trials that end in a second; the slots, until as many trials as slots can have ended."""
        if not self.slots:
            return 0.0
        return min(float(self.slots), self.device_seconds / self.seconds) if self.device_seconds else float(self.slots)


def pace(pool: SchedulerQueue, standings: Mapping[str, Standing]) -> Callable[[Regime], float] | None:
    """Device seconds of a trial by regime, learned from those that ended; None before any has.

    A regime with ended trials has their mean. For others a line through the known means: a time that every trial takes
    and one for each FLOP, neither below 0, fitted by relative errors so that short trials count as much as long ones.
    """
    took: dict[Regime, list[float]] = {}
    seen: set[str] = set()
    for standing in standings.values():
        for trial in standing.trials:
            if trial in pool.seconds and trial not in seen:
                seen.add(trial)
                took.setdefault(standing.task.sweep.regime, []).append(pool.seconds[trial])
    means = {regime: sum(each) / len(each) for regime, each in took.items() if sum(each) > 0}
    if not means:
        return None
    fixed, each = _line([(float(regime.flops), mean, len(took[regime])) for regime, mean in means.items()])
    return lambda regime: means[regime] if regime in means else fixed + each * regime.flops


def _line(points: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """(seconds of any trial, seconds per FLOP) through (FLOPs, seconds, trials), relative errors weighed by trials."""
    flops, seconds, trials = (np.array(each, float) for each in zip(*points, strict=True))
    weights = np.sqrt(trials) / seconds
    proportional = 0.0, float(trials @ seconds / (trials @ flops))
    if len(set(flops.tolist())) < 2:
        return proportional
    unit = flops.max()  # so that both columns are of one size
    rows = np.column_stack([weights, weights * flops / unit])
    (fixed, each), *_ = np.linalg.lstsq(rows, weights * seconds, rcond=None)
    if fixed < 0 or each < 0:
        return proportional if fixed < 0 else (float(trials @ seconds / trials.sum()), 0.0)
    return float(fixed), float(each / unit)


def device_seconds_left(
    pool: SchedulerQueue, standings: Mapping[str, Standing], expectations: Sequence[Expected], moment: Moment
) -> float | None:
    """Device seconds of the trials still to come, less what the running ones have done; None before any has ended."""
    seconds = pace(pool, standings)
    if seconds is None:
        return None
    left = sum(each.remaining * seconds(each.regime) for each in expectations if each.remaining)
    regimes = {
        spec.id: spec.regime
        for standing in standings.values()
        for spec in standing.pending
        if spec.id in moment.running
    }
    return max(0.0, left - sum(moment.running[trial] * seconds(regime) for trial, regime in regimes.items()))


def seconds_left(
    plan: StudyPlan, pool: SchedulerQueue, standings: Mapping[str, Standing], left: float | None, moment: Moment
) -> float | None:
    """Seconds by the clock until the end; None without slots, or before any trial has ended.

    All that is left at the rate of the run so far, and not less than the longest chain of trials that wait for one
    another.
    """
    seconds = pace(pool, standings)
    if left is None or seconds is None or not moment.rate:
        return None
    chains = (
        urgency(plan.study, plan.regimes, seconds, standing)
        - seconds(standing.task.sweep.regime) * min(moment.running.get(each.id, 0.0) for each in standing.pending)
        for standing in standings.values()
        if not standing.finished and standing.pending
    )
    return max(left / moment.rate, max(chains, default=0.0))
