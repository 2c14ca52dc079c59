"""What a running study has under way, written beside its ledger every few seconds, for whoever asks meanwhile.

``tuneopt study status`` is another process, often on another machine: the ledger is all that it shares with the run.
The file is no record. Losing it loses nothing, and one that stopped beating counts as left by a run that is gone.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from datetime import UTC, datetime
from typing import Any, Self

from tuneopt import checked
from tuneopt.ledger import Ledger
from tuneopt.ledger.record import number
from tuneopt.observe.observer import Observer
from tuneopt.observe.state import RunState
from tuneopt.search.study.status import RunUnderWay

SECONDS = 5.0
"""How often a running study writes down what is under way."""

STALE_SECONDS = 60.0
"""Age at which what a study last wrote down counts as left by a run that is gone: a dozen beats, for slow stores."""


class Heartbeat(Observer):
    """Writes from a thread of its own, because trials may say nothing for hours; a file that cannot be written waits.

    It begins when trials can run, so that a run which is refused leaves nothing behind; leaving its context says that
    the run is over. ``spent`` are the device seconds of the trials that earlier runs ended.
    """

    def __init__(self, ledger: Ledger, study: str, title: str, spent: float) -> None:
        self._ledger, self._path, self._title, self._spent = ledger, f"studies/{study}.json", title, spent
        self._plain: dict[str, Any] = {"running": {}, "slots": 0, "seconds": 0.0, "device_seconds": 0.0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if not self._thread.is_alive():
            return
        self._over.set()
        self._thread.join()
        self._write({**self._plain, "running": {}, "over": True})

    def begun(self, state: RunState) -> None:
        """Begin to write."""
        self._thread.start()

    def changed(self, state: RunState) -> None:
        """Take in a moment of the run; it is written with the next beat."""
        self._plain = {
            "running": {trial: heard.fraction for trial, heard in state.running.items()},
            "slots": state.slots,
            "seconds": state.elapsed,
            "device_seconds": state.plan.device_seconds - self._spent,
        }

    def _beat(self) -> None:
        while not self._over.is_set():
            self._write(self._plain)
            self._over.wait(SECONDS)

    def _write(self, plain: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"study": self._title, "at": now, "over": False, **plain})
        with contextlib.suppress(OSError):  # the next beat, or the records themselves, tell it
            self._ledger.files.replace(self._path, text.encode() + b"\n")


def read_moment(ledger: Ledger, study: str) -> RunUnderWay | None:
    """What a run of the study that is under way wrote down last; None when there is none.

    A trial whose record has come since runs no longer.
    """
    try:
        plain = checked.parse_object(ledger.files.read(f"studies/{study}.json"), "what a study has under way")
        age = time.time() - datetime.fromisoformat(plain["at"]).timestamp()
        if plain["over"] or age > STALE_SECONDS:
            return None
        running = {
            str(trial): number("done", part) for trial, part in plain["running"].items() if not ledger.has(trial)
        }
        slots = checked.whole("slots", plain["slots"] or 0) or None
        times = (number(name, plain[name]) for name in ("seconds", "device_seconds"))
        return RunUnderWay(slots, running, *times)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
