"""Where prepared corpora are kept, and how a folder of files appears there all at once or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from tuneopt.data.locks import acquire
from tuneopt.spec import InputError

CACHE_VARIABLE = "TUNEOPT_CACHE"


def cache_folder(cache_dir: Path | None = None) -> Path:
    """The cache: the argument, else the folder in ``TUNEOPT_CACHE``, else ``~/.cache/tuneopt``."""
    try:
        return Path(cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/tuneopt").expanduser().absolute()
    except RuntimeError:
        raise InputError(f"no home folder for the corpus cache; set {CACHE_VARIABLE} to a folder") from None


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


def publish(target: Path, build: Callable[[Path], object]) -> None:
    """Let ``build`` fill a new folder beside ``target``, then rename it; a target that appeared meanwhile stays."""
    temporary = _aside(target)
    temporary.mkdir()
    try:
        build(temporary)
        try:
            temporary.rename(target)
        except OSError:
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
    return target.with_name(f".{target.name}.building-{uuid.uuid4().hex}")
