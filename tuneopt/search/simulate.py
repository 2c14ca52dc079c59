"""A backend without training: a whole sweep on a fake clock, with slots, durations, divergence and crashes.

It drives the same `Sweep` that real backends drive and asks it after every finished trial, so a sweep that behaves in
the simulator differs from a real one only in where the losses come from.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuneopt.search.outcome import Outcome
from tuneopt.search.state import SweepState
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError, TrialSpec

Evaluate = Callable[[TrialSpec], Outcome | float | None]
"""What a trial ends with: an outcome, a loss in nats per token for both splits, or None for divergence."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated trial, in fake seconds since the sweep began."""

    spec: TrialSpec
    slot: int
    started: float
    ended: float


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
        return max((run.ended for run in self.runs), default=0.0)

    @property
    def utilisation(self) -> float:
        """Busy slot seconds over all slot seconds; 1 when nothing ran."""
        busy = sum(run.ended - run.started for run in self.runs)
        return busy / (self.seconds * self.slots) if self.seconds else 1.0


def simulate(
    sweep: Sweep,
    evaluate: Evaluate,
    *,
    slots: int = 1,
    duration: Callable[[TrialSpec], float] = lambda spec: 1.0,
    crashes: Callable[[TrialSpec], bool] = lambda spec: False,
    known: Mapping[str, Outcome] | None = None,
) -> Simulation:
    """Run ``sweep`` to its end on ``slots`` slots, each trial taking ``duration`` fake seconds.

    A trial for which ``crashes`` is true leaves no outcome and is given up. ``known`` holds outcomes of an earlier run;
    their trials do not run again. Raises `InputError` for fewer than one slot.
    """
    if slots < 1:
        raise InputError(f"a sweep needs at least one slot, not {slots}")
    outcomes = dict(known or {})
    gave_up: set[str] = set()
    running: list[tuple[float, int, str, Run]] = []
    busy: set[str] = set()
    free = list(range(slots))
    runs: list[Run] = []
    now, launched = 0.0, 0
    while True:
        state = sweep.state(outcomes, gave_up)
        if state.finished:
            return Simulation(state, outcomes, frozenset(gave_up), tuple(runs), slots)
        for spec in state.pending:
            trial = sweep.trial_id(spec.hyperparameters, spec.seed)
            if free and trial not in busy:
                run = Run(spec, heapq.heappop(free), now, now + duration(spec))
                heapq.heappush(running, (run.ended, launched, trial, run))
                busy.add(trial)
                launched += 1
        now, _, trial, run = heapq.heappop(running)
        heapq.heappush(free, run.slot)
        busy.remove(trial)
        runs.append(run)
        if crashes(run.spec):
            gave_up.add(trial)
        else:
            outcomes[trial] = as_outcome(evaluate(run.spec))


def as_outcome(result: Outcome | float | None) -> Outcome:
    """The outcome that a loss, or None for divergence, stands for."""
    if isinstance(result, Outcome):
        return result
    return Outcome("diverged") if result is None else Outcome("completed", result, result)
