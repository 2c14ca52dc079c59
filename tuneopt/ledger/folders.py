"""Folders of large files beside a ledger's records, such as kept weights: there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tuneopt.ledger.files import LocalFiles, RemoteFiles
from tuneopt.ledger.objects import Objects

if TYPE_CHECKING:
    from tuneopt.ledger.store import Ledger

LIST = "files.txt"
"""What an object store gets last: the names of a folder's files. Without it the folder is not there."""

_PIECE = 16 << 20


@contextlib.contextmanager
def new_folder(ledger: Ledger, name: str) -> Iterator[Path]:
    """An empty local folder to write files into; they are stored as ``name`` when the block ends without an error.

    A folder of that name that is there already is replaced.
    """
    if isinstance(ledger.files, LocalFiles):
        target = ledger.files.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}~", dir=target.parent))
        try:
            yield scratch
            _flush(scratch)
            shutil.rmtree(target, ignore_errors=True)
            scratch.chmod(0o755)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return
    assert isinstance(ledger.files, RemoteFiles)
    with tempfile.TemporaryDirectory(prefix="tuneopt-") as made:
        yield Path(made)
        objects = Objects(ledger.files)
        paths = sorted(Path(made).iterdir())
        objects.delete(f"{name}/{LIST}")
        for path in paths:
            with path.open("rb") as file, objects.writing(f"{name}/{path.name}") as stream:
                shutil.copyfileobj(file, stream, _PIECE)
        objects.replace(f"{name}/{LIST}", "\n".join(path.name for path in paths).encode())


def has_folder(ledger: Ledger, name: str) -> bool:
    """Whether the folder is there, whole."""
    if isinstance(ledger.files, LocalFiles):
        return (ledger.files.root / name).is_dir()
    return ledger.files.exists(f"{name}/{LIST}")


def fetch_folder(ledger: Ledger, name: str, target: Path) -> None:
    """Copy the folder's files into ``target``, which exists; raises FileNotFoundError where there is no such folder."""
    if isinstance(ledger.files, LocalFiles):
        for path in sorted((ledger.files.root / name).iterdir()):
            shutil.copyfile(path, target / path.name)
        return
    assert isinstance(ledger.files, RemoteFiles)
    objects = Objects(ledger.files)
    for word in objects.read(f"{name}/{LIST}").decode().splitlines():
        if Path(word).name != word or word.startswith("."):
            raise FileNotFoundError(f"{name}/{LIST} names {word!r}, which is no file of that folder")
        with objects.reading(f"{name}/{word}") as stream, (target / word).open("wb") as file:
            while piece := stream.read(_PIECE):
                file.write(piece)


def _flush(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems refuse to flush a folder
                os.fsync(handle)
        finally:
            os.close(handle)
