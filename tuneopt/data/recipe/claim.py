"""Whose folder it is: one process at a time prepares in it, and one recipe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tuneopt.data.corpus import Corpus, open_corpus
from tuneopt.data.manifest import MANIFEST_FILE
from tuneopt.spec import InputError


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a corpus; False where that cannot be seen."""
    try:
        return (folder / MANIFEST_FILE).is_file()
    except OSError:
        return False


@contextmanager
def sole_preparation(folder: Path, work: Path) -> Iterator[None]:
    """Hold the lock of a folder that this makes; raises `InputError` for one that is in use or cannot be written."""
    lock = FileLock(work / "lock")
    try:
        if folder.exists() and not work.exists() and any(folder.iterdir()) and not is_finished(folder):
            raise InputError(f"{folder} is not empty, and holds no corpus; give another folder with --out")
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process prepares a corpus in {folder}; wait for it, or give another --out") from None
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}; give another folder with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def remove_leftovers(folder: Path, work: Path) -> None:
    """Remove what a preparation that was killed behind its manifest left."""
    if work.is_dir():
        with suppress(InputError), sole_preparation(folder, work):  # the corpus is whole, whoever may write there
            shutil.rmtree(work, ignore_errors=True)


def finished(folder: Path, key: str) -> Corpus:
    """The corpus that is there; raises `InputError` for one of another recipe, or of files that changed."""
    corpus = open_corpus(folder)
    if (corpus.manifest.recipe or {}).get("identity") != key:
        raise InputError(
            f"{folder} holds a corpus of another recipe, or of files that changed since; "
            "give another folder with --out, or delete this one"
        )
    return corpus


def claim(work: Path, key: str, folder: Path) -> None:
    """Note whose folder this is; what another recipe left there without a finished shard is removed."""
    path = work / "identity"
    if path.exists() and path.read_text(encoding="utf-8") == key:
        return
    if not any(work.glob("round-*.json")):
        for left in work.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != "lock":
                left.unlink()
        write(path, key)
    else:
        raise InputError(
            f"{folder} holds an unfinished corpus of another recipe, or of files that changed since; "
            "give another folder with --out, or delete this one"
        )


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(f"{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
