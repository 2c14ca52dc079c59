"""What `tuneopt.ledger.files` does on a local disk, step by step: flush, name, and look at what stands there.

Nothing here knows what a ledger is. Why the steps come in their order is said at the head of `files`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from pathlib import Path

from tuneopt.errors import InputError
from tuneopt.paths import other_kind

_STRAY_AFTER = 3600.0
"""Seconds after which a temporary file of another machine counts as left behind: its writer cannot be asked for, and
no write of a small file takes an hour."""


class NoPlainFileError(InputError):
    """Something else stands where a ledger has a file; ``what`` names it, and nothing of it was read."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name} is {what}, not a file; move it away")
        self.name, self.what = name, what


def oddity(path: Path) -> str:
    """What stands at a path in place of a plain file; empty for a file, a link to one, and nothing at all."""
    try:
        kind = other_kind(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link to itself"
        raise
    return "a link to nothing" if not kind and path.is_symlink() and not path.exists() else kind


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably: a record in a folder whose own name is lost is lost too."""
    if folder.is_dir():
        return
    missing = [folder]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    folder.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):  # a new folder's own entry must reach the disk as well
        flush(made.parent)


def flush(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems (CIFS, FUSE mounts) refuse to flush a folder
            os.fsync(handle)
    finally:
        os.close(handle)


def rename_if_absent(temporary: Path, target: Path) -> bool:
    """First writer wins where hard links are not supported: check and rename under a lock that dies with its holder."""
    import fcntl  # not on Windows, whose NTFS has hard links

    with (target.parent / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return False
        temporary.rename(target)
        return True


def abandoned(path: Path) -> bool:
    """Whether the writer of a temporary file is dead: by its process on this machine, by the file's age elsewhere."""
    host, process = [*path.name.split("~"), "", ""][1:3]
    if host == socket.gethostname() and process.isdigit():
        try:
            os.kill(int(process), 0)  # signal 0 only asks whether the process is there
        except ProcessLookupError:
            return True
        except PermissionError:  # it is there, and another user's
            pass
        return False
    return time.time() - path.stat().st_mtime > _STRAY_AFTER
