"""The state of a run: which trials run, how far they are, what has ended. It is fed by the run's stream of events.

Displays and the heartbeat read it after every event; a thread that wonders why a run waits reads it at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tuneopt.ledger import CurvePoint
from tuneopt.search.plan import Plan, PlanProgress
from tuneopt.spec import TrialSpec

LOOK_SHARE = 0.05
"""Share of the driver's time that may go into working out how far a plan is, just to show it: with many sweeps a look
costs more than the events between two looks."""


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """How a trial ended. ``status``: ``completed``, ``diverged``, ``cut`` (by a scheduler) or ``failed``."""

    status: str
    select_loss: float | None = None
    report_loss: float | None = None
    seconds: float = 0.0
    """Seconds inside training and evaluation, in this run alone."""
    error: str = ""
    """The last line of what a failed trial raised."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Where a trial runs."""

    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """What was heard of a trial that has its slot; times are those of the state's clock, in seconds."""

    spec: TrialSpec
    began: float
    last: float | None = None
    """When its last curve point came; None before the first."""
    fraction: float = 0.0
    first_fraction: float = 0.0
    """How far it was at its first report of this run: beyond zero when it was resumed."""
    gap: float = 0.0
    """The longest time between two reports so far."""
    select_loss: float | None = None
    worker: Worker | None = None


class RunState:
    """A run of ``plan`` under way; ``slots`` is 0 until it is known that trials can run.

    ``done`` holds the trials that ended in this run, ``failed`` the last line of the error of those that were given up,
    ``busy`` the seconds inside training and evaluation by trial.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self.plan, self.clock = plan, clock
        self.slots = 0
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        self.busy: dict[str, float] = {}
        self.busy_seconds = 0.0
        self._began = clock()
        self._running: dict[str, RunningTrial] = {}
        self._lock = threading.Lock()
        self._progress, self._next_look = PlanProgress(), 0.0

    @property
    def running(self) -> dict[str, RunningTrial]:
        """The trials that have their slots, by id, as they are now; may be asked from any thread."""
        with self._lock:
            return dict(self._running)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self._began

    @property
    def progress(self) -> PlanProgress:
        """How far the plan is, looked up as often as that stays cheap."""
        began = time.perf_counter()
        if began >= self._next_look:
            self._progress = self.plan.progress()
            now = time.perf_counter()
            self._next_look = now + (now - began) / LOOK_SHARE
        return self._progress

    def look_again(self) -> None:
        """Let the next look at `progress` be a fresh one, whatever it costs: the last one that people see stays."""
        self._next_look = 0.0

    def started(self, spec: TrialSpec) -> None:
        """A trial got its slot."""
        with self._lock:
            self._running[spec.id] = RunningTrial(spec, self.clock())

    def points(self, spec: TrialSpec, points: Sequence[CurvePoint], worker: Worker | None = None) -> None:
        """A trial reported; a report that was under way when the trial ended changes nothing."""
        now = self.clock()
        with self._lock:
            trial = self._running.get(spec.id)
            if trial is None:
                return
            fraction = points[-1].step / spec.steps
            self._running[spec.id] = replace(
                trial,
                last=now,
                fraction=fraction,
                first_fraction=fraction if trial.last is None else trial.first_fraction,
                gap=max(trial.gap, now - (trial.began if trial.last is None else trial.last)),
                select_loss=points[-1].select_loss,
                worker=worker or trial.worker,
            )

    def took(self, trial: str, seconds: float) -> None:
        """A trial has spent ``seconds`` inside training and evaluation so far, in this run."""
        self.busy_seconds += seconds - self.busy.get(trial, 0.0)
        self.busy[trial] = seconds

    def left(self, trial: str) -> None:
        """A trial gave its slot back, at its end or to wait for another worker."""
        with self._lock:
            self._running.pop(trial, None)
