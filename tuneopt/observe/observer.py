"""The stream of events of a run, as observers hear it: logs, trackers, displays and the heartbeat all listen here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from tuneopt.ledger import CurvePoint
from tuneopt.observe.state import RunState, TrialEnd, Worker
from tuneopt.observe.waiting import Wait
from tuneopt.spec import TrialSpec

_log = logging.getLogger(__name__)


class Observer:
    """Hears of a run in the driver; every method may be left out. One event at a time, never concurrently.

    What an observer raises is logged once and ends it: a run goes on without.
    """

    wants_points = False
    """Whether the whole curve is worth a look into the ledger when a trial ends; else ``points`` may miss the last."""

    def connecting(self) -> None:
        """Trials are to run, and their backend gets ready, which takes seconds and may be refused."""

    def begun(self, state: RunState) -> None:
        """Trials can run from now on: what is refused before leaves nothing behind."""

    def asked(self, spec: TrialSpec) -> None:
        """A trial is to run, and waits for its slot."""

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

    def waiting(self, reason: Wait) -> None:
        """Nothing has happened for long, and why."""

    def changed(self, state: RunState) -> None:
        """Called after each of the above; ``state`` has taken it in."""

    def close(self) -> None:
        """The run is over; trials that have not ended were interrupted."""


class EventStream:
    """Tells observers of one event after another; one that raises is left out from then on, with a warning."""

    def __init__(self, observers: Iterable[Observer], state: RunState) -> None:
        self.observers, self.state = list(observers), state
        self._lock = threading.RLock()  # the reason for a wait comes from a thread of its own

    @property
    def wants_points(self) -> bool:
        """Whether one of them wants every curve point."""
        return any(observer.wants_points for observer in self.observers)

    def connecting(self) -> None:
        """Tell that the backend gets ready. Nothing of the run has changed yet, so no observer looks at its state."""
        for observer in self.observers:
            observer.connecting()

    def tell(self, event: str, *about: Any) -> None:
        """Call the method named ``event`` of every observer, then `Observer.changed`."""
        with self._lock:
            for observer in list(self.observers):
                try:
                    getattr(observer, event)(*about)
                    observer.changed(self.state)
                except Exception as error:
                    self.observers.remove(observer)
                    _log.warning("%s is left out from now on: %s", type(observer).__name__, error)
