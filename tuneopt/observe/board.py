"""Which trials run, since when, and when each was last heard of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tuneopt.ledger import CurvePoint
from tuneopt.observe.observer import Observer, TrialEnd, Worker
from tuneopt.spec import TrialSpec


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of a running trial; times are those of the board's clock, in seconds."""

    spec: TrialSpec
    began: float
    last: float | None = None
    """When its last curve point came; None before the first."""
    fraction: float = 0.0
    first_fraction: float = 0.0
    """How far it was at its first report of this run: beyond zero when it was resumed."""
    gap: float = 0.0
    """The longest time between two reports so far."""
    worker: Worker | None = None


class Board(Observer):
    """Keeps what was heard of the running trials, for a look from another thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._held: dict[str, Heard] = {}
        self._lock = threading.Lock()

    def look(self) -> dict[str, Heard]:
        """The running trials by id, as they are now."""
        with self._lock:
            return dict(self._held)

    def started(self, spec: TrialSpec) -> None:
        """A trial got its slot."""
        with self._lock:
            self._held[spec.id] = Heard(spec, self.clock())

    def points(self, spec: TrialSpec, points: Sequence[CurvePoint], worker: Worker | None = None) -> None:
        """A trial reported."""
        now = self.clock()
        with self._lock:
            held = self._held.get(spec.id)
            if held is None:
                return
            fraction = points[-1].step / spec.steps
            gap = max(held.gap, now - (held.began if held.last is None else held.last))
            first = fraction if held.last is None else held.first_fraction
            self._held[spec.id] = replace(
                held, last=now, fraction=fraction, first_fraction=first, gap=gap, worker=worker or held.worker
            )

    def ended(self, spec: TrialSpec, end: TrialEnd) -> None:
        """A trial is over."""
        self._forget(spec)

    def reused(self, spec: TrialSpec) -> None:
        """A trial was recorded already."""
        self._forget(spec)

    def restarted(self, spec: TrialSpec, error: str) -> None:
        """A trial waits for a worker again."""
        self._forget(spec)

    def _forget(self, spec: TrialSpec) -> None:
        with self._lock:
            self._held.pop(spec.id, None)
