"""How the command line shows log records: as lines of text, or as lines of JSON for a collector."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

from tuneopt.spec import InputError, nearest

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
            self.handleError(record)


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
