"""Where prepared corpora are kept, and how files and folders appear there all at once or not at all.

A corpus is built under a hidden name beside its place and renamed when it is whole. One process builds at a time, the
others wait for its lock and then find the corpus. The rename does not need the lock: it keeps work from being done
twice, and where a file system knows no locks the first folder that appears stays.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

FIRST_SECONDS = 30.0
"""How long a process waits before it says for whom."""

EVERY_SECONDS = 300.0
"""How often it says so from then on."""

_LOCKS = Path("/proc/locks")

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def only_process(target: Path) -> Iterator[bool]:
    """Wait until no other process builds ``target``. Gives False where the file system knows no locks.

    A long wait is logged. The kernel drops the lock with its process, so a killed build blocks nobody.
    """
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        acquire(lock, f"{target.name!r} in {target.parent}")
    except NotImplementedError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def write_whole(path: Path, text: str) -> None:
    """Write a small file: a reader, or who comes after a kill, sees the old content or the new one, never a part.

    Where that fails, what was written is removed, and the error names ``path``.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        error.filename, error.filename2 = str(path), None
        raise


def publish(target: Path, build: Callable[[Path], object]) -> None:
    """Let ``build`` fill a new folder beside ``target``, then rename it; a target that appeared meanwhile stays."""
    temporary = _aside(target)
    temporary.mkdir()
    try:
        build(temporary)
        try:
            temporary.rename(target)
        except OSError:  # where there are no locks, another process may have been faster; its content is the same
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(target: Path) -> None:
    """Remove a folder at once for others (a rename), then its files; maps that are open stay readable."""
    if target.exists():
        aside = _aside(target)
        target.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Remove what killed builds of ``target`` left behind; only for the process that holds the lock."""
    for path in target.parent.glob(f".{target.name}.building-*"):
        shutil.rmtree(path, ignore_errors=True)


def _aside(target: Path) -> Path:
    """A hidden name beside the target, on the same file system, which no other build has."""
    return target.with_name(f".{target.name}.building-{uuid.uuid4().hex}")


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
    """The process that holds the lock on a file, as Linux tells it; None where that cannot be known.

    A line of /proc/locks names the file by device and inode, and the process by its number in this container: 0 for one
    outside. Lines with an arrow are of processes that wait.
    """
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
