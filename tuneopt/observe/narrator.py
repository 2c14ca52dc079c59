"""What a driver says of its trials through `logging`, and what it adds to the log of a trial whose worker cannot."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tuneopt.ledger import CurvePoint, Ledger
from tuneopt.ledger.logs import TrialLog, log_address
from tuneopt.observe.observer import Observer
from tuneopt.observe.state import TrialEnd, Worker
from tuneopt.observe.waiting import Wait
from tuneopt.spec import TrialSpec

log = logging.getLogger("tuneopt.trials")
"""Everything said here carries ``trial``, ``optimizer``, ``scale`` and ``ratio`` as attributes of its record."""

_waiting = logging.getLogger("tuneopt.waiting")


class Narrator(Observer):
    """Logs each trial's way: ends and beginnings at level INFO, curve points at DEBUG, failures at WARNING.

    What killed a worker, or interrupted the run, goes into the trial's own log as well, unless the process that trains
    is this one and says so itself (``writes=False``).
    """

    def __init__(self, ledger: Ledger, writes: bool = True) -> None:
        self.ledger, self.writes = ledger, writes
        self._open: dict[str, TrialSpec] = {}

    def started(self, spec: TrialSpec) -> None:
        """A trial got its slot."""
        self._open[spec.id] = spec
        log.info("started", extra={**about(spec), "event": "started"})

    def points(self, spec: TrialSpec, points: Sequence[CurvePoint], worker: Worker | None = None) -> None:
        """The newest curve points."""
        # Points come by the thousand; nothing is formatted unless somebody reads them.
        if log.isEnabledFor(logging.DEBUG):
            for point in points:
                figures = {"step": point.step, "steps": spec.steps, "select_loss": point.select_loss}
                shown = "not finite" if point.select_loss is None else f"{point.select_loss:.4f}"
                log.debug(
                    "step %d of %d, select loss %s", point.step, spec.steps, shown,
                    extra={**about(spec), "event": "point", **figures},
                )  # fmt: skip

    def ended(self, spec: TrialSpec, end: TrialEnd) -> None:
        """A trial ended; a failed one with the place of its log."""
        self._open.pop(spec.id, None)
        facts = {**about(spec), "event": "ended", "status": end.status, "seconds": round(end.seconds, 3)}
        if end.status == "failed":
            address = log_address(self.ledger, spec.id)
            self._write(spec.id, "failed", "error", end.error)
            log.warning("failed: %s; its log: %s", end.error, address, extra={**facts, "log": address})
            return
        loss = "" if end.select_loss is None else f", select loss {end.select_loss:.4f}"
        log.info(
            "%s%s", end.status, loss,
            extra={**facts, "select_loss": end.select_loss, "report_loss": end.report_loss},
        )  # fmt: skip
        if end.status == "cut":  # the worker was stopped before it could say so
            TrialLog(self.ledger, spec.id).write("end", "info", text="the scheduler stopped it", by="driver")

    def reused(self, spec: TrialSpec) -> None:
        """A trial was recorded already."""
        self._open.pop(spec.id, None)
        log.info("recorded already", extra={**about(spec), "event": "reused"})

    def restarted(self, spec: TrialSpec, error: str) -> None:
        """A trial is started again."""
        self._write(spec.id, "restart", "warning", error)
        log.warning("starts again, because %s", error, extra={**about(spec), "event": "restarted"})

    def waiting(self, reason: Wait) -> None:
        """Why the run waits."""
        _waiting.warning("waiting: %s", reason, extra={"event": "waiting", "reason": reason.kind})

    def close(self) -> None:
        """Say in the logs of interrupted trials why they end there."""
        for trial in self._open:
            if not self.ledger.has(trial):
                text = "the run ended first; the same command goes on from the trial's last checkpoint"
                self._write(trial, "interrupted", "warning", text)
        self._open.clear()

    def _write(self, trial: str, event: str, level: str, text: str) -> None:
        if self.writes:
            TrialLog(self.ledger, trial).write(event, level, text=text, by="driver")


def about(spec: TrialSpec) -> Mapping[str, Any]:
    """The attributes that name a trial in every log record about it."""
    regime = spec.regime
    return {"trial": spec.id, "optimizer": spec.optimizer, "scale": regime.scale.name, "ratio": regime.ratio,
            "seed": spec.seed}  # fmt: skip
