"""What a driver says of its trials through `logging`, and how the command line shows it: as text, or as lines of JSON.

`Narrator` also adds to the log of a trial what its worker cannot say, because it is dead.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tuneopt.ledger import CurvePoint, Ledger
from tuneopt.ledger.logs import TrialLog, log_address
from tuneopt.observe.observer import Observer
from tuneopt.observe.state import TrialEnd, Worker
from tuneopt.observe.waiting import Wait
from tuneopt.spec import InputError, TrialSpec, nearest
from tuneopt.streams import open_closed

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


LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "log_failed"}
"""Attributes that every log record has; what else a record has was given by ``extra``."""


def configure(level: str | None, form: str, write: Callable[[str], object]) -> bool:
    """Show the records of ``tuneopt`` from ``level`` on as ``form``; whether a display may run meanwhile.

    Ray's errors are shown in the same form while trials run; as text without their tracebacks, unless a level was asked
    for: what they mean for a trial is said of the trial, and its own log has the traceback.

    ``text`` goes through ``write``, from level ``warning`` on unless said otherwise; ``json`` goes to stderr, from
    ``info`` on, an object a line and nothing else between. Raises `InputError` for unknown names. May be called again.
    """
    if form not in FORMATS:
        raise InputError(f"--log-format {form!r} is unknown; {nearest(form, FORMATS)}")
    chosen = level or ("info" if form == "json" else "warning")
    if chosen not in LEVELS:
        raise InputError(f"--log-level {chosen!r} is unknown; {nearest(chosen, LEVELS)}")
    formatter = JsonLines() if form == "json" else TextLines(terse=("ray",) if level is None else ())
    handler = Shown(formatter, _to_stderr if form == "json" else write)
    logger = logging.getLogger("tuneopt")
    # A second call, as in tests and notebooks, replaces what the first one set up.
    for old in [held for held in logger.handlers if isinstance(held, Shown)]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(chosen.upper())
    return form == "text"


class Shown(logging.Handler):
    """Hands formatted records to a function; one that fails is dropped, since there is nowhere to say so."""

    def __init__(self, formatter: logging.Formatter, write: Callable[[str], object]) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            self.write(self.format(record))
        except Exception:
            open_closed()  # an optimizer of a user's own may have closed stderr
            with contextlib.suppress(Exception):
                self.write(self.format(record))


class TextLines(logging.Formatter):
    """``18:05:09 warning trial 0a1b2c3d4e5f6071: failed: ...``; local time."""

    def __init__(self, terse: Collection[str] = ()) -> None:
        super().__init__()
        self.terse = terse
        """Families of loggers whose tracebacks are left out."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below where there is one."""
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        trial = getattr(record, "trial", None)
        named = f"trial {trial}: " if trial else ""
        text = f"{clock} {record.levelname.lower()} {named}{record.getMessage()}"
        whole = record.exc_info and record.name.partition(".")[0] not in self.terse
        return f"{text}\n{_traceback(record)}" if whole else text


class JsonLines(logging.Formatter):
    """One JSON object per record: ``time`` (UTC), ``level``, ``logger``, ``message``, and what ``extra`` gave."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        plain: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        plain |= {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in plain}
        if record.exc_info:
            plain["traceback"] = _traceback(record)
        return json.dumps(plain, default=str)


def _traceback(record: logging.LogRecord) -> str:
    return "".join(traceback.format_exception(*record.exc_info)).rstrip() if record.exc_info else ""


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
