"""The simulated backend: a fake clock over loss surfaces, with slots, durations, divergence and crashes.

It runs every plan that real backends run, and nothing is trained: a whole study takes seconds. What differs is where
the losses come from, and that time passes at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tuneopt.observe.state import TrialEnd
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import RunController, run
from tuneopt.search.plan import Ended, Outcome, Plan
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.state import SweepState
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError, TrialSpec

Evaluate = Callable[[TrialSpec], Outcome | float | None]
"""What a trial ends with: an outcome, a loss in nats per token for both splits, or None for divergence."""

POINTS = 20
"""Curve points of a simulated trial, where somebody judges trials by them."""


@dataclass(frozen=True, slots=True)
class SimulatedTrial:
    """One trial on the fake clock, in seconds since the first launch."""

    spec: TrialSpec
    slot: int
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Clock:
    """The trials of a simulation in the order they ended, and the slots they ran on."""

    runs: tuple[SimulatedTrial, ...]
    slots: int

    @property
    def seconds(self) -> float:
        """Fake seconds from the first launch to the end of the last trial."""
        return max((run.ended for run in self.runs), default=0.0)

    @property
    def utilisation(self) -> float:
        """Busy slot seconds over all slot seconds; 1 when nothing ran."""
        busy = sum(run.ended - run.started for run in self.runs)
        return busy / (self.seconds * self.slots) if self.seconds else 1.0


MOST_SLOTS = 1_000_000
"""Slots of a simulation at most: each takes memory, and no machine has as many."""


class SimulatedBackend:
    """Ends each trial after ``duration`` fake seconds as ``evaluate`` says.

    A trial for which ``crashes`` is true leaves no outcome and is given up. ``curve`` gives the select loss of a trial
    at a fraction of its steps, for plans that judge trials by it. ``clock`` says afterwards what ran when. Raises
    `InputError` for fewer than one slot, and for more than `MOST_SLOTS`.
    """

    remote = False

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        slots: int = 1,
        duration: Callable[[TrialSpec], float] = lambda spec: 1.0,
        crashes: Callable[[TrialSpec], bool] = lambda spec: False,
        curve: Callable[[TrialSpec, float], float | None] | None = None,
    ) -> None:
        if slots < 1:
            raise InputError(f"a sweep needs at least one slot, not {slots}")
        if slots > MOST_SLOTS:
            raise InputError(f"a simulation has {MOST_SLOTS:,} slots at most, not {slots:,}; give fewer")
        self.evaluate, self.slots, self.duration, self.crashes, self.curve = evaluate, slots, duration, crashes, curve
        self.clock = Clock((), slots)

    @contextmanager
    def connect(self, plan: Plan, options: RunOptions) -> Iterator[int]:
        """The slots; nothing is started."""
        yield self.slots

    def drive(self, controller: RunController) -> None:
        """Let the fake clock jump from one event to the next."""
        # A heap of (when, in which order begun, curve point, trial). Equal times come in the order of the launches.
        events: list[tuple[float, int, int, SimulatedTrial]] = []
        free = list(range(controller.state.slots))
        ended: list[SimulatedTrial] = []
        points = POINTS if controller.plan.judges and self.curve else 1
        now, launched = 0.0, 0

        def push(order: int, point: int, trial: SimulatedTrial) -> None:
            done = trial.ended if point == points else trial.started + (trial.ended - trial.started) * point / points
            heapq.heappush(events, (done, order, point, trial))

        while True:
            while free and (spec := controller.ask()) is not None:
                controller.started(spec)
                push(launched, 1, SimulatedTrial(spec, heapq.heappop(free), now, now + self.duration(spec)))
                launched += 1
            if not events:
                break
            now, order, point, trial = heapq.heappop(events)
            spec, seconds = trial.spec, now - trial.started
            # The same trial comes back at each of its curve points, or at its end alone where nobody judges by points.
            if point < points:
                assert self.curve is not None
                fraction = point / points
                if controller.goes_on(spec, fraction, self.curve(spec, fraction), seconds):
                    push(order, point + 1, trial)
                    continue
                controller.cut(spec, seconds)
            elif self.crashes(spec):
                controller.failed(spec, "it crashed")
            else:
                outcome = as_outcome(self.evaluate(spec))
                end = TrialEnd(outcome.status, outcome.select_loss, outcome.report_loss, seconds)
                controller.ended(spec, end, Ended(outcome, seconds))
            heapq.heappush(free, trial.slot)  # the lowest free one is taken first: a simulation repeats itself
            ended.append(SimulatedTrial(spec, trial.slot, trial.started, now))
        self.clock = Clock(tuple(ended), controller.state.slots)


@dataclass(frozen=True, slots=True)
class Simulation:
    """A finished sweep: its final state, every outcome by trial id, and the trials in the order they ended."""

    state: SweepState
    outcomes: Mapping[str, Outcome]
    gave_up: frozenset[str]
    clock: Clock

    @property
    def trials(self) -> int:
        """Trials that ran, crashed ones included."""
        return len(self.clock.runs)

    @property
    def waves(self) -> int:
        """Parallel waves, the confirmation included."""
        return self.state.progress.waves


def simulate(
    sweep: Sweep,
    evaluate: Evaluate,
    *,
    slots: int = 1,
    duration: Callable[[TrialSpec], float] = lambda spec: 1.0,
    crashes: Callable[[TrialSpec], bool] = lambda spec: False,
    known: Mapping[str, Outcome] | None = None,
) -> Simulation:
    """Run ``sweep`` alone to its end; ``known`` holds outcomes of an earlier run, whose trials do not run again.

    The other options are those of `SimulatedBackend`.
    """
    earlier = known or {}
    plan = SchedulerQueue(OneSweep(sweep), known=lambda spec: Ended(earlier[spec.id]) if spec.id in earlier else None)
    backend = SimulatedBackend(evaluate, slots=slots, duration=duration, crashes=crashes)
    run(plan, backend, RunOptions())
    state = plan.standings[sweep.id].state
    return Simulation(state, {**earlier, **plan.outcomes}, frozenset(plan.gave_up), backend.clock)


def as_outcome(result: Outcome | float | None) -> Outcome:
    """The outcome that a loss, or None for divergence, stands for."""
    if isinstance(result, Outcome):
        return result
    return Outcome("diverged") if result is None else Outcome("completed", result, result)
