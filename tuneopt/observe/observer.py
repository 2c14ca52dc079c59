"""What can be watched of a run: the one interface of logs, trackers and the account of waiting."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tuneopt.ledger import CurvePoint
from tuneopt.spec import TrialSpec

_log = logging.getLogger(__name__)


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


class Observer:
    """Hears of a run's trials, in the driver; every method may be left out. One trial at a time, never concurrently.

    What an observer raises is logged once and ends it: a run goes on without (`Observers`).
    """

    wants_points = False
    """Whether the whole curve is worth a look into the ledger when a trial ends; else ``points`` may miss the last."""

    def started(self, spec: TrialSpec) -> None:
        """A trial got its slot; its worker prepares it, or finds that it is recorded already."""

    def points(self, spec: TrialSpec, points: Sequence[CurvePoint], worker: Worker | None = None) -> None:
        """Curve points, those of earlier processes first when a trial is resumed; some may come twice."""

    def ended(self, spec: TrialSpec, end: TrialEnd) -> None:
        """A trial ended for good."""

    def reused(self, spec: TrialSpec) -> None:
        """A started trial turned out to be recorded already; nothing was trained."""

    def restarted(self, spec: TrialSpec, error: str) -> None:
        """A trial's worker died or raised, and the trial is started again, from its last checkpoint."""

    def close(self) -> None:
        """The run is over; trials that have not ended were interrupted."""


class Observers(Observer):
    """Several observers as one; one that raises is left out from then on, with a warning."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self.held = list(observers)

    @property
    def wants_whole_curves(self) -> bool:
        """Whether one of them wants every point."""
        return any(observer.wants_points for observer in self.held)

    def started(self, spec: TrialSpec) -> None:
        """Tell all."""
        self._tell("started", spec)

    def points(self, spec: TrialSpec, points: Sequence[CurvePoint], worker: Worker | None = None) -> None:
        """Tell all."""
        self._tell("points", spec, points, worker)

    def ended(self, spec: TrialSpec, end: TrialEnd) -> None:
        """Tell all."""
        self._tell("ended", spec, end)

    def reused(self, spec: TrialSpec) -> None:
        """Tell all."""
        self._tell("reused", spec)

    def restarted(self, spec: TrialSpec, error: str) -> None:
        """Tell all."""
        self._tell("restarted", spec, error)

    def close(self) -> None:
        """Tell all."""
        self._tell("close")

    def _tell(self, method: str, *arguments: Any) -> None:
        for observer in list(self.held):
            try:
                getattr(observer, method)(*arguments)
            except Exception as error:
                self.held.remove(observer)
                _log.warning("%s is left out from now on: %s", type(observer).__name__, error)
