"""Where a study stands: phases, certificates, what is spent against its limits, and how long the rest will take.

Everything follows from the queue, which knows every outcome, and from `RunUnderWay`, what a run in progress says of
itself. The time left is learned from the trials that ended: device seconds by regime, divided by the rate at which the
slots get through them, and never less than the longest chain of trials that wait for one another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.standing import Standing
from tuneopt.search.state import Best
from tuneopt.search.study.brackets import BRACKET
from tuneopt.search.study.comparison import BASELINE, SEEDS
from tuneopt.search.study.cost import limits_dict
from tuneopt.search.study.expected import Expected, expected
from tuneopt.search.study.matching import MATCH
from tuneopt.search.study.planner import Standings, StudyPlan
from tuneopt.search.study.spent import spent
from tuneopt.search.study.study import PHASES
from tuneopt.spec import Regime

ORDER = (*PHASES, SEEDS, BASELINE, BRACKET, MATCH)
"""All phases, in the order in which they end."""


USUAL_SECONDS = 120.0
"""A run's rate is told as if its slots had been busy for so long before it began. Its first minute goes into starting
and compiling: by that alone, one that went on after a kill and had seven minutes left was told of an hour."""


@dataclass(frozen=True, slots=True)
class RunUnderWay:
    """A run of a study in progress: its slots, and the fraction done of each running trial.

    ``seconds`` by the clock since the run began, in which trials of ``device_seconds`` together have ended: how much
    of a slot's time its trials get, starting and waiting included.
    """

    slots: int | None = None
    running: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    device_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Device seconds of trials in a second by the clock: the slots at first, more and more what the run shows."""
        if not self.slots:
            return 0.0
        busy = self.device_seconds + self.slots * USUAL_SECONDS
        return min(float(self.slots), busy / (self.seconds + USUAL_SECONDS))


@dataclass(frozen=True, slots=True)
class RegimeResult:
    """An optimizer in a regime: the sweep that stands for it, and what evening out its budget found in addition.

    ``best`` is the sweep's winner, or a configuration of ``match`` that beats it by more than the tolerance and was
    rerun with the same seeds. ``distance`` (Phase III with a star) is how far the prediction's loss lies above that of
    the sweep that began there, in nats.
    """

    optimizer: str
    regime: Regime
    phase: str
    standing: Standing
    best: Best | None
    attempts: int
    distance: float | None

    @property
    def certified(self) -> bool:
        """Whether its certificate holds at the asked resolution."""
        return self.standing.certified

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        best, certificate = self.best, self.standing.state.certificate
        return {
            "optimizer": self.optimizer,
            "phase": self.phase,
            "scale": self.regime.scale.name,
            "ratio": self.regime.ratio,
            "sweep": self.standing.task.id,
            "certificate": {**certificate.to_dict(), "state": self.standing.claim},
            "best": {
                "config": best.spec.config if best else None,
                "select_loss": best.select_loss if best else None,
                "select_mean": best.select_mean if best else None,
                "report_loss": best.report_loss if best else None,
                "report_error": best.report_error if best else None,
                "trial": best.trial if best else None,
                "seeds": best.seeds if best else 0,
            },
            "sigma": self.standing.state.sigma,
            "trials": len(self.standing.trials),
            "attempts": self.attempts,
            "distance": self.distance,
        }


def results(plan: StudyPlan, standings: Standings) -> tuple[RegimeResult, ...]:
    """The result of each optimizer and regime, in the order in which the study reaches them."""
    swept: dict[tuple[str, Regime], list[Standing]] = {}
    extra: dict[tuple[str, Regime], list[Standing]] = {}
    for standing in standings.values():
        into = extra if standing.task.phase == MATCH else swept
        into.setdefault((standing.task.optimizer, standing.task.sweep.regime), []).append(standing)
    found = []
    for (optimizer, regime), attempts in swept.items():
        last = attempts[-1]
        best = last.state.best
        for standing in extra.get((optimizer, regime), ()):
            rival = standing.state.best
            # A rival with fewer seeds than the winner may just be lucky: it waits for its reruns.
            if rival is None or not standing.finished or rival.seeds < last.task.sweep.replicates:
                continue
            if best is None or rival.select_loss < best.select_loss - last.state.tolerance:
                best = rival
        distance, descent = None, last.state.descent
        # The prediction is the start of a Phase III sweep with a star: how far the sweep went on from it.
        if last.task.phase == "III" and plan.study.star and last.finished and descent.incumbent_loss is not None:
            before = descent.path[0].loss_before if descent.path else descent.incumbent_loss
            distance = None if before is None else before - descent.incumbent_loss
        found.append(RegimeResult(optimizer, regime, last.task.phase, last, best, len(attempts), distance))
    return tuple(found)


def status_document(plan: StudyPlan, queue: SchedulerQueue, run: RunUnderWay | None = None) -> dict[str, Any]:
    """What ``study status --json`` prints; ``run`` is what is under way, if anything is."""
    # Everything but `run` follows from the records: a status can be asked for from anywhere, while a run goes on.
    run = run or RunUnderWay()
    standings = queue.standings
    found = results(plan, standings)
    expectations = expected(plan, standings)
    left = device_seconds_left(queue, standings, expectations, run)
    open_phases = [each.phase for each in expectations if each.remaining]
    open_phases += [standing.task.phase for standing in standings.values() if not standing.finished]
    phases = []
    for name in dict.fromkeys(each.phase for each in expectations):
        mine = [each for each in expectations if each.phase == name]
        certified = sum(each.certified and each.standing.finished for each in found if each.phase == name)
        phases.append(
            {
                "name": name,
                "regimes": len({(each.optimizer, each.regime) for each in mine}),
                "certificates": certified,
                "trials": sum(each.trials for each in mine),
                "ended": sum(each.done for each in mine),
            }
        )
    return {
        "study": plan.study.name,
        "phase": min(open_phases, key=ORDER.index, default="done"),
        "finished": queue.finished,
        "phases": phases,
        "trials": {
            "ended": len(queue.outcomes),
            "running": len(run.running),
            "expected": sum(each.trials for each in expectations),
            "reused": len(queue.reused),
            "diverged": queue.diverged,
        },
        "device_hours": queue.device_seconds / 3600,
        "limits": limits_dict(plan),
        "remaining_device_hours": None if left is None else left / 3600,
        "eta_seconds": 0.0 if queue.finished else seconds_left(plan, queue, standings, left, run),
        "running": _running(standings, run),
        "results": [each.to_dict() for each in found],
        "findings": [plan.finding(name, standings).to_dict(name) for name in plan.study.optimizers],
        "budget": [row.to_dict() for row in spent(standings, queue.outcomes, queue.seconds, queue.guesses)],
    }


def _running(standings: Standings, run: RunUnderWay) -> list[dict[str, Any]]:
    """The running trials with what they belong to and how far they are; what no sweep needs yet was launched ahead."""
    found: dict[str, dict[str, Any]] = {
        trial: {"trial": trial, "optimizer": None, "phase": None, "scale": None, "ratio": None, "fraction": fraction}
        for trial, fraction in run.running.items()
    }
    for standing in standings.values():
        task, regime = standing.task, standing.task.sweep.regime
        part = {"optimizer": task.optimizer, "phase": task.phase, "scale": regime.scale.name, "ratio": regime.ratio}
        for trial in standing.trials:
            if trial in found and found[trial]["optimizer"] is None:
                found[trial] |= part
    return list(found.values())


def pace(queue: SchedulerQueue, standings: Standings) -> Callable[[Regime], float] | None:
    """Device seconds of a trial by regime, learned from those that ended; None before any has.

    A regime with ended trials has their mean. For others a line through the known means, see `fit_line`.
    """
    # Trials that sweeps share count once: a mean is over trials, not over sweeps.
    took: dict[Regime, list[float]] = {}
    seen: set[str] = set()
    for standing in standings.values():
        for trial in standing.trials:
            if trial in queue.seconds and trial not in seen:
                seen.add(trial)
                took.setdefault(standing.task.sweep.regime, []).append(queue.seconds[trial])
    means = {regime: sum(seconds) / len(seconds) for regime, seconds in took.items() if sum(seconds) > 0}
    if not means:
        return None
    fixed, per_flop = fit_line([(float(regime.flops), mean, len(took[regime])) for regime, mean in means.items()])
    return lambda regime: means[regime] if regime in means else fixed + per_flop * regime.flops


def fit_line(points: Sequence[tuple[float, float, int]]) -> tuple[float, float]:
    """(seconds of any trial, seconds per FLOP) through (FLOPs, seconds, trials), neither below 0.

    Relative errors are fitted, so that short trials count as much as long ones, and weighed by the number of trials.
    """
    flops, seconds, trials = (np.array(each, float) for each in zip(*points, strict=True))
    weights = np.sqrt(trials) / seconds  # of errors in seconds, (regimes,)
    proportional = 0.0, float(trials @ seconds / (trials @ flops))
    if len(set(flops.tolist())) < 2:
        return proportional
    unit = flops.max()  # so that both columns are of one size
    rows = np.column_stack([weights, weights * flops / unit])
    (fixed, per_flop), *_ = np.linalg.lstsq(rows, weights * seconds, rcond=None)
    if fixed < 0 or per_flop < 0:
        # Neither can be below 0: the term that came out so is left out.
        return proportional if fixed < 0 else (float(trials @ seconds / trials.sum()), 0.0)
    return float(fixed), float(per_flop / unit)


@dataclass(frozen=True, slots=True)
class Outlook:
    """How far a study under way is, for a display.

    About ``remaining`` trials are still to come. ``low`` and ``high`` are seconds by the clock to the end: with every
    slot busy, and at the rate of the run so far; None before any trial has ended. ``losses`` are the lowest select
    losses (nats) by optimizer, in the regime of Phase I that most of them have reached.
    """

    remaining: int
    low: float | None
    high: float | None
    losses: Mapping[str, float]


def outlook(plan: StudyPlan, queue: SchedulerQueue, run: RunUnderWay) -> Outlook:
    """The outlook of a study in a queue, with what a run of it says of itself."""
    standings = queue.standings
    expectations = expected(plan, standings)
    left = device_seconds_left(queue, standings, expectations, run)
    ideal = RunUnderWay(run.slots, run.running)  # nothing known of its rate: all slots busy
    lows: dict[Regime, dict[str, float]] = {}
    for standing in standings.values():
        best = standing.state.progress.best_loss
        if best is not None and standing.task.phase == PHASES[0]:
            here = lows.setdefault(standing.task.sweep.regime, {})
            here[standing.task.optimizer] = min(best, here.get(standing.task.optimizer, best))
    return Outlook(
        remaining=sum(part.remaining for part in expectations),
        low=seconds_left(plan, queue, standings, left, ideal),
        high=seconds_left(plan, queue, standings, left, run),
        losses=max(lows.values(), key=len, default={}),
    )


def device_seconds_left(
    queue: SchedulerQueue, standings: Standings, expectations: Sequence[Expected], run: RunUnderWay
) -> float | None:
    """Device seconds of the trials still to come, less what the running ones have done; None before any has ended."""
    seconds = pace(queue, standings)
    if seconds is None:
        return None
    # A running trial counts as remaining until it ends; the part of it that is done is taken off again.
    left = sum(each.remaining * seconds(each.regime) for each in expectations if each.remaining)
    pending = {spec.id: spec.regime for standing in standings.values() for spec in standing.pending}
    done = sum(run.running[trial] * seconds(regime) for trial, regime in pending.items() if trial in run.running)
    return max(0.0, left - done)


def seconds_left(
    plan: StudyPlan, queue: SchedulerQueue, standings: Standings, left: float | None, run: RunUnderWay
) -> float | None:
    """Seconds by the clock until the end; None without slots, or before any trial has ended.

    All that is left at the rate of the run so far, and not less than the longest chain of trials that wait for one
    another.
    """
    seconds = pace(queue, standings)
    if left is None or seconds is None or not run.rate:
        return None
    # The last of a wave to end decides when the next begins: the least done of the pending trials.
    chains = (
        plan.chain(standing, seconds)
        - seconds(standing.task.sweep.regime) * min(run.running.get(each.id, 0.0) for each in standing.pending)
        for standing in standings.values()
        if not standing.finished and standing.pending
    )
    return max(left / run.rate, max(chains, default=0.0))
