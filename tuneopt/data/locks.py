"""Waiting for a lock of another process, and saying so when it takes long."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from filelock import BaseFileLock, Timeout

FIRST_SECONDS = 30.0
"""How long a process waits before it says for whom."""

EVERY_SECONDS = 300.0
"""How often it says so from then on."""

_LOCKS = Path("/proc/locks")

_log = logging.getLogger(__name__)


def acquire(lock: BaseFileLock, what: str, first: float = FIRST_SECONDS, every: float = EVERY_SECONDS) -> None:
    """Take ``lock``, however long that takes; a wait for ``what`` is logged as a warning that names the holder."""
    pause = first
    while True:
        try:
            lock.acquire(timeout=pause)
            return
        except Timeout:
            pause = every
            pid = holder(Path(lock.lock_file))
            _log.warning("waiting: %s is being built by %s", what, f"process {pid}" if pid else "another process")


def holder(path: Path) -> int | None:
    """The process that holds the lock on a file, as Linux tells it; None where that cannot be known."""
    try:
        status = path.stat()
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) > 5 and "->" not in words and words[5] == place:
            return int(words[4]) if words[4].isdigit() and words[4] != "0" else None
    return None
