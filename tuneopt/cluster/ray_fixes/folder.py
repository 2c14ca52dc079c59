"""Where Ray on this machine keeps its own files, and who clears them away.

A local run gets a folder of its own under the system's temporary folder, and a small process, the janitor.
When the driver ends, however it ends, the janitor ends what is left of Ray's processes and removes the folder. Ray by
itself keeps every session's folder for ever (ray-project/ray, issue 41202), and its agents outlive a killed driver by a
minute (issues 2005 and 26118).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tuneopt.cluster.ray_fixes import janitor
from tuneopt.errors import why
from tuneopt.spec import InputError

LONGEST = 40
"""Characters of the parent folder: Ray's sockets lie below it, and a socket's path has at most 107 (issue 7724)."""


@contextlib.contextmanager
def scratch() -> Iterator[Path | None]:
    """A folder for Ray's files, cleared away after the block or the death of this process.

    None where the user chose one by ``RAY_TMPDIR``: that is theirs to clear. A run killed together with its janitor
    leaves its folder to the janitor of the next run.
    """
    if os.environ.get("RAY_TMPDIR"):
        _check_chosen(Path(os.environ["RAY_TMPDIR"]))
    if os.environ.get("RAY_TMPDIR") or os.name != "posix":
        yield None
        return
    parent = _own(_parent())
    folder = parent / f"{os.getpid()}-{janitor.born(os.getpid())}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    # Isolated and without site-packages: it is there in 20 ms and takes 9 MB.
    watching = subprocess.Popen(
        [sys.executable, "-I", "-S", janitor.__file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # Ctrl-C in the driver's terminal is not meant for it
    )
    try:
        yield folder
    finally:
        assert watching.stdin is not None
        with contextlib.suppress(OSError):
            watching.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            watching.wait(janitor.PATIENCE_SECONDS + 5)


def _check_chosen(folder: Path) -> None:
    """Raise `InputError` for a folder of the user's in which Ray's start would fail, in more words, after a while."""
    if not folder.is_absolute() or len(str(folder)) > LONGEST:
        raise InputError(f"RAY_TMPDIR {str(folder)!r} must be an absolute path of up to {LONGEST} characters")
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"RAY_TMPDIR {str(folder)!r} is no folder that this user may write to; choose another")


def _own(parent: Path) -> Path:
    """Make the folder that holds the sessions of this user; raises `InputError` where somebody else was there first."""
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Ray's files cannot be kept in {parent}: {why(error)}; set TMPDIR or RAY_TMPDIR to a short absolute path"
        ) from None
    facts = parent.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise InputError(f"{parent} is not a folder of this user alone; remove it, or set RAY_TMPDIR to one that is")
    return parent


def _parent() -> Path:
    """The folder of this user's sessions: below the temporary folder, or /tmp where that path is too long."""
    for folder in (tempfile.gettempdir(), "/tmp"):
        if len(folder) <= LONGEST - len("/tuneopt-ray-") - 6:
            return Path(folder) / f"tuneopt-ray-{os.getuid()}"
    return Path(tempfile.gettempdir()) / "tuneopt-ray"
