"""Asks now and then why a run waits, and says it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tuneopt.observe.waiting import PATIENCE, Wait

_log = logging.getLogger("tuneopt.waiting")


@dataclass(frozen=True, slots=True)
class Times:
    """When a wait is told: after ``first`` seconds, then every ``every`` seconds; looked at every ``beat``."""

    first: float = PATIENCE
    every: float = 300.0
    beat: float = 5.0


class WaitTimer:
    """A thread that calls ``ask`` every few seconds and logs the reason for waiting that it gives, at level WARNING.

    ``ask`` gets the patience in seconds and answers a reason or None. A reason of another kind is told at once, one
    that lasts every five minutes, and one that went away and came back anew.
    """

    def __init__(self, ask: Callable[[float], Wait | None], times: Times | None = None) -> None:
        self.ask, self.times = ask, times or Times()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="why-waiting")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(timeout=1.0)  # a look at a lost cluster may hang; the thread dies with the process

    def _run(self) -> None:
        kind, said = "", 0.0
        while not self._over.wait(self.times.beat):
            try:
                reason = self.ask(self.times.first)
            except Exception:
                _log.debug("could not find out why the run waits", exc_info=True)
                continue
            now = time.monotonic()
            if reason is None:
                kind = ""
            elif not self._over.is_set() and (reason.kind != kind or now - said >= self.times.every):
                kind, said = reason.kind, now
                _log.warning("waiting: %s", reason, extra={"event": "waiting", "reason": reason.kind})
