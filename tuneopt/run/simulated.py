"""A backend without training: sweeps on a fake clock, with slots, durations, divergence and crashes.

It drives the same plans that real backends drive and tells them of every finished trial, so sweeps that behave in the
simulator differ from real ones only in where the losses come from.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuneopt.search.outcome import Outcome
from tuneopt.search.plan import Ended
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.sweep import Sweep, SweepState
from tuneopt.spec import InputError, TrialSpec

Evaluate = Callable[[TrialSpec], Outcome | float | None]
"""What a trial ends with: an outcome, a loss in nats per token for both splits, or None for divergence."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated trial, in fake seconds since the first launch."""

    spec: TrialSpec
    slot: int
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Clock:
    """The runs of a simulation in the order they ended, and the slots they ran on."""

    runs: tuple[Run, ...]
    slots: int

    @property
    def seconds(self) -> float:
        """Fake seconds from the first launch to the end of the last trial."""
        return max((run.ended for run in self.runs), default=0.0)

    @property
    def busy(self) -> float:
        """Slot seconds that trials took."""
        return sum(run.ended - run.started for run in self.runs)

    @property
    def utilisation(self) -> float:
        """Busy slot seconds over all slot seconds; 1 when nothing ran."""
        return self.busy / (self.seconds * self.slots) if self.seconds else 1.0


@dataclass(frozen=True, slots=True)
class Simulation:
    """A finished sweep: its final state, every outcome by trial id, and the runs in the order they ended."""

    state: SweepState
    outcomes: Mapping[str, Outcome]
    gave_up: frozenset[str]
    runs: tuple[Run, ...]
    slots: int

    @property
    def trials(self) -> int:
        """Trials that ran, crashed ones included."""
        return len(self.runs)

    @property
    def waves(self) -> int:
        """Parallel waves, the confirmation included."""
        return self.state.progress.waves

    @property
    def seconds(self) -> float:
        """Fake seconds from the first launch to the end of the last trial."""
        return Clock(self.runs, self.slots).seconds

    @property
    def utilisation(self) -> float:
        """Busy slot seconds over all slot seconds; 1 when nothing ran."""
        return Clock(self.runs, self.slots).utilisation


def drive(
    pool: SchedulerQueue,
    evaluate: Evaluate,
    *,
    slots: int = 1,
    duration: Callable[[TrialSpec], float] = lambda spec: 1.0,
    crashes: Callable[[TrialSpec], bool] = lambda spec: False,
) -> Clock:
    """Run everything that ``pool`` hands out on ``slots`` slots, each trial taking ``duration`` fake seconds.

    A trial for which ``crashes`` is true leaves no outcome and is given up. Ends when the pool is finished or has
    reached a limit. Raises `InputError` for fewer than one slot.
    """
    if slots < 1:
        raise InputError(f"a sweep needs at least one slot, not {slots}")
    pool.slots = slots
    running: list[tuple[float, int, Run]] = []
    free = list(range(slots))
    runs: list[Run] = []
    now, launched = 0.0, 0
    while True:
        while free and (spec := pool.next()) is not None:
            run = Run(spec, heapq.heappop(free), now, now + duration(spec))
            heapq.heappush(running, (run.ended, launched, run))
            launched += 1
        if not running:
            return Clock(tuple(runs), slots)
        now, _, run = heapq.heappop(running)
        heapq.heappush(free, run.slot)
        runs.append(run)
        lost = crashes(run.spec)
        pool.tell(run.spec, None if lost else Ended(as_outcome(evaluate(run.spec)), run.ended - run.started))


def simulate(
    sweep: Sweep,
    evaluate: Evaluate,
    *,
    slots: int = 1,
    duration: Callable[[TrialSpec], float] = lambda spec: 1.0,
    crashes: Callable[[TrialSpec], bool] = lambda spec: False,
    known: Mapping[str, Outcome] | None = None,
) -> Simulation:
    """Run ``sweep`` alone to its end; the options are those of `drive`.

    ``known`` holds outcomes of an earlier run; their trials do not run again. Raises `InputError` for fewer than one
    slot.
    """
    earlier = known or {}
    pool = SchedulerQueue(OneSweep(sweep), known=lambda spec: Ended(earlier[spec.id]) if spec.id in earlier else None)
    clock = drive(pool, evaluate, slots=slots, duration=duration, crashes=crashes)
    state = pool.standings[sweep.id].state
    return Simulation(state, {**earlier, **pool.outcomes}, frozenset(pool.gave_up), clock.runs, slots)


def as_outcome(result: Outcome | float | None) -> Outcome:
    """The outcome that a loss, or None for divergence, stands for."""
    if isinstance(result, Outcome):
        return result
    return Outcome("diverged") if result is None else Outcome("completed", result, result)
