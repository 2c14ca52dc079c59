"""A log for each trial beside its record: ``logs/<trial id>.jsonl``, an event a line.

A line is a JSON object with ``time`` (UTC, milliseconds), ``level``, ``event``, ``trial`` and what the event adds. The
worker that trains writes it, the driver adds what a dead worker cannot say. It is there for trials that failed as
well, which have no record. Nothing is computed from it, and what goes wrong with it never ends a trial. A kill can cut
the last line short; readers wait for its line feed, and a later writer's line then makes one line that is unreadable.

People read events in words (`describe`). A log may come from another release, or from a file that somebody edited: an
event that is not as expected is shown field by field, and control characters are spelt out, since they could steer a
terminal.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import stat
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuneopt.errors import in_words, visible, why
from tuneopt.ledger.files import LocalFiles
from tuneopt.ledger.store import Ledger

FOLDER = "logs"

LIMIT = 1 << 20
"""Bytes of a log beyond which only warnings, errors and the end are kept; at twice as many nothing more is."""

ENDS = ("end", "failed")
"""Events after which nothing is to come, unless the trial is started anew."""

UPLOAD_SECONDS = 10.0
"""Least time between two uploads to an object store; exceptions and the end go at once."""

BACK_OFF_SECONDS = 300.0
"""How long uploads pause after one that failed: a store that does not answer must not hold up training."""

_FIELD = 16_384
"""Characters of a single text that are kept, its beginning and end: a traceback may quote whole tensors."""

_log = logging.getLogger(__name__)


class TrialLog:
    """The log of one trial, for writing. No method raises: a log that cannot be written is said once, and that is all.

    In a folder every event is appended at once. On an object store, which knows no appending, the whole log is put
    again at curve points, at most every `UPLOAD_SECONDS`.
    """

    def __init__(self, ledger: Ledger, trial: str) -> None:
        self.ledger, self.trial = ledger, trial
        self.name = log_name(trial)
        self._content: bytearray | None = None  # all of the log, on an object store
        self._upload_after = 0.0
        self._complained = False

    @property
    def where(self) -> str:
        """The log's address."""
        return log_address(self.ledger, self.trial)

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        """Add an event; ``level`` is that of Python's logging in small letters, ``fields`` are plain JSON data."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        plain = {"time": now, "level": level, "event": event, "trial": self.trial, **fields}
        urgent = level in ("warning", "error") or event in ENDS
        try:
            line = json.dumps({name: _plain(value) for name, value in plain.items()}, allow_nan=False).encode() + b"\n"
            files = self.ledger.files
            self.ledger.mark()
            if isinstance(files, LocalFiles):
                _append(files.root / self.name, line, urgent)
            else:
                self._upload(line, urgent, last=event in (*ENDS, "error", "interrupted"))
        except Exception as error:  # whatever a file system may raise: training is worth more than its log
            if not self._complained:
                self._complained = True
                _log.warning(
                    "cannot write the log %s: %s",
                    self.where,
                    why(error) if isinstance(error, OSError) else in_words(error),
                    extra={"trial": self.trial, "log_failed": True},
                )

    def _upload(self, line: bytes, urgent: bool, last: bool) -> None:
        """Add a line to the log and put all of it where that is due; ``last`` lines are put at once."""
        if self._content is None:
            try:
                self._content = bytearray(self.ledger.files.read(self.name))
            except FileNotFoundError:
                self._content = bytearray()
        if _fits(len(self._content), urgent):
            self._content += line
        now = time.monotonic()
        if now >= self._upload_after or last:
            # The long pause is set first: if the put raises or takes minutes, the next events do not try again.
            self._upload_after = now + BACK_OFF_SECONDS
            self.ledger.files.replace(self.name, bytes(self._content))
            self._upload_after, self._complained = time.monotonic() + UPLOAD_SECONDS, False


class SilentLog(TrialLog):
    """Writes nothing: for all ranks of a trial but the first."""

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        """Nothing."""


def log_name(trial: str) -> str:
    """A log's name relative to the ledger's root."""
    return f"{FOLDER}/{trial}.jsonl"


def log_address(ledger: Ledger, trial: str) -> str:
    """Where the log of a trial is, as a path or an address, whether or not it is there."""
    place = ledger.uri if ledger.is_local else ledger.uri.partition("?")[0]  # what follows is how to reach a store
    return f"{place}/{log_name(trial)}"


def has_log(ledger: Ledger, trial: str) -> bool:
    """Whether a trial has a log: those recorded by earlier releases have none."""
    return ledger.files.exists(log_name(trial))


def logged_trials(ledger: Ledger) -> list[str]:
    """Ids of all trials that have a log, sorted."""
    return [name.removesuffix(".jsonl") for name in ledger.files.names(FOLDER) if name.endswith(".jsonl")]


def read_log(ledger: Ledger, trial: str, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The events of a trial's log from the byte ``offset`` on, and the offset after the last whole line.

    A line that is no JSON object comes as an event ``unreadable`` with its ``text``. Empty when there is no log.
    """
    try:
        data = ledger.files.read(log_name(trial))
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return [_event(line) for line in data[offset:end].splitlines() if line.strip()], max(offset, end)


def follow_log(ledger: Ledger, trial: str, pause: float = 1.0) -> Iterator[dict[str, Any]]:
    """Events as they come, from the first on, to the end of the trial (its ``end``, or a failure for good).

    ``pause`` is in seconds. Where the last event so far is an end, but the trial is started again later, it stops.
    """
    offset = 0
    while True:
        events, offset = read_log(ledger, trial, offset)
        yield from events
        if events and events[-1]["event"] in ENDS:
            return
        time.sleep(pause)


def _append(path: Path, line: bytes, urgent: bool) -> None:
    """Append in one write to a file opened with O_APPEND: lines of two processes of a machine never mix.

    Raises OSError for a link, which is not followed, and for what is no file: training would wait for a FIFO's reader.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file")
        if _fits(os.fstat(handle).st_size, urgent):
            os.write(handle, line)
    finally:
        os.close(handle)


def _fits(size: int, urgent: bool) -> bool:
    """Whether a log of so many bytes takes a line: the second half of the room is for what is urgent."""
    return size < LIMIT or (urgent and size < 2 * LIMIT)


def _event(line: bytes) -> dict[str, Any]:
    """A line as an event, with the keys that readers rely on, whatever stands in it."""
    try:
        plain = json.loads(line)
    except ValueError:
        plain = None
    if not isinstance(plain, dict) or not isinstance(plain.get("event"), str):
        return {"time": "", "level": "warning", "event": "unreadable", "text": line.decode(errors="replace")}
    return {"time": "", "level": "info", **plain}


def _plain(value: Any) -> Any:
    """JSON data of whatever was given: a number that is not finite becomes a word, long texts lose their middle."""
    if isinstance(value, str):
        half = _FIELD // 2
        left_out = f"\n[{len(value) - _FIELD} characters left out]\n"
        return value if len(value) <= _FIELD else value[:half] + left_out + value[-half:]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int) else str(value)


_HIDDEN = ("time", "level", "event", "trial")


def describe(event: Mapping[str, Any]) -> str:
    """One line for people, such as ``point: step 20 of 90, select 4.1231``; control characters are spelt out."""
    name = str(event["event"])
    maker = _MAKERS.get(name)
    try:
        text = maker(event) if maker else _by_field(event)
    except (KeyError, TypeError, ValueError):  # a log of another release
        text = _by_field(event)
    return visible(f"{name}: {text}" if text else name)


def line(event: Mapping[str, Any]) -> str:
    """A whole line for people, with its time, and the traceback below it where there is one."""
    level = str(event.get("level", "info"))
    head = f"{event.get('time', '')} {level:7} {describe(event)}"
    below = str(event.get("traceback", "")).rstrip()
    return f"{head}\n{visible(below, keep=chr(10))}" if below else head


def _start(event: Mapping[str, Any]) -> str:
    return f"{event['optimizer']} at {event['regime']}, process {event['pid']} on {event['host']}"


def _ready(event: Mapping[str, Any]) -> str:
    return f"on {event['device']} after {event['startup_seconds']:.1f} s"


def _resume(event: Mapping[str, Any]) -> str:
    return f"from step {event['step']} of {event['steps']}"


def _point(event: Mapping[str, Any]) -> str:
    losses = ", ".join(f"{name} {_loss(event[f'{name}_loss'])}" for name in ("train", "select", "report"))
    return f"step {event['step']} of {event['steps']}, {losses}, {event['seconds']:.1f} s"


def _end(event: Mapping[str, Any]) -> str:
    if "select_loss" not in event:  # the driver's word on a trial that a scheduler cut
        return _text(event)
    proof = {True: "proof passed", False: "proof FAILED", None: "no proof"}[event["proof_passed"]]
    return f"{event['status']}, select {_loss(event['select_loss'])}, report {_loss(event['report_loss'])}, {proof}"


def _text(event: Mapping[str, Any]) -> str:
    return str(event["text"]).strip()


def _by_field(event: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.items() if name not in (*_HIDDEN, "traceback"))


def _loss(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


_MAKERS = {
    "start": _start,
    "ready": _ready,
    "resume": _resume,
    "point": _point,
    "end": _end,
    "warning": _text,
    "error": _text,
    "failed": _text,
    "restart": _text,
    "interrupted": _text,
    "unreadable": _text,
}
