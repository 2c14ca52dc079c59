"""Folders of large files beside a ledger's records, such as kept weights: there whole, or not at all.

In a local ledger a folder is filled under a temporary name and renamed. An object store knows no rename: there the
files are put one by one, and `LIST`, which names them, is put last and deleted first. Without the list the folder is
not there, whatever files are.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tuneopt.ledger.durable import flush
from tuneopt.ledger.files import LocalFiles, RemoteFiles
from tuneopt.ledger.store import Ledger
from tuneopt.paths import scratch_folder, temporary_folder

LIST = "files.txt"
"""What an object store gets last: the names of a folder's files, a line each."""

_PIECE = 16 << 20
"""Bytes that are copied at a time."""


@contextlib.contextmanager
def new_folder(ledger: Ledger, name: str) -> Iterator[Path]:
    """An empty local folder to write files into; they are stored as ``name`` when the block ends without an error.

    A folder of that name that is there already is replaced. The old one goes before the new one appears, so a kill
    between the two leaves neither: what is kept here can be made again.
    """
    files = ledger.files
    if isinstance(files, LocalFiles):
        target = files.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target.parent, ".unfinished-") as scratch:  # same file system: a rename
            yield scratch
            for path in (*scratch.iterdir(), scratch):  # contents before names, as in `LocalFiles`
                flush(path)
            shutil.rmtree(target, ignore_errors=True)
            scratch.chmod(0o755)  # it was made for this user alone
            scratch.rename(target)
        return
    assert isinstance(files, RemoteFiles)
    with temporary_folder("folder") as made:
        yield made
        paths = sorted(made.iterdir())
        files.delete(f"{name}/{LIST}")
        for path in paths:
            with path.open("rb") as file, files.writing(f"{name}/{path.name}") as stream:
                shutil.copyfileobj(file, stream, _PIECE)
        files.replace(f"{name}/{LIST}", "\n".join(path.name for path in paths).encode())


def has_folder(ledger: Ledger, name: str) -> bool:
    """Whether the folder is there, whole."""
    if isinstance(ledger.files, LocalFiles):
        return (ledger.files.root / name).is_dir()
    return ledger.files.exists(f"{name}/{LIST}")


def fetch_folder(ledger: Ledger, name: str, target: Path) -> None:
    """Copy the folder's files into ``target``, which exists; raises FileNotFoundError where there is no such folder."""
    files = ledger.files
    if isinstance(files, LocalFiles):
        for path in sorted((files.root / name).iterdir()):
            shutil.copyfile(path, target / path.name)
        return
    assert isinstance(files, RemoteFiles)
    for word in files.read(f"{name}/{LIST}").decode().splitlines():
        if Path(word).name != word or word.startswith("."):  # a list from elsewhere must not write outside ``target``
            raise FileNotFoundError(f"{name}/{LIST} names {word!r}, which is no file of that folder")
        with files.reading(f"{name}/{word}") as stream, (target / word).open("wb") as file:
            shutil.copyfileobj(stream, file, _PIECE)
