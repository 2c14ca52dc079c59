"""What a ledger holds that no run will ever need: found, named, and removed when asked.

While a trial runs, its newest two checkpoints stay; when its record is written, its checkpoints go. What can be left
over is of processes that died at the wrong moment, and of trials that nobody asks for any more.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.ledger.store import Ledger

CHECKPOINTS = "checkpoints"
_FOLDERS = ("trials", "sweeps", "runs", "studies", "leases", "compacted", ".")


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that may go: a file, or a folder with all that is in it."""

    name: str
    bytes: int
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.name, "bytes": self.bytes, "why": self.why}


def leftovers(ledger: Ledger, older_than: float | None = None) -> list[Leftover]:
    """Checkpoints of recorded trials, and temporary files of dead writers.

    With ``older_than`` (seconds) also the checkpoints of unfinished trials that nobody has written to for so long: a
    trial that is asked for again then begins at its first step.
    """
    return [*_checkpoints(ledger, older_than), *_strays(ledger)]


def remove(ledger: Ledger, found: list[Leftover]) -> None:
    """Remove what `leftovers` found."""
    for each in found:
        if each.name.endswith("/"):
            ledger.files.delete_tree(each.name.rstrip("/"))
        else:
            ledger.files.delete(each.name)


def clean_cache(ledger: Ledger, folder: Path, *, dry_run: bool) -> list[Leftover]:
    """Checkpoints in a machine's own cache of trials that a remote ledger holds by now; removed unless ``dry_run``."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() and not ledger.is_local else ():
        if path.is_dir() and ledger.has(path.name):
            size = sum(_size(file) for file in path.rglob("*"))
            found.append(Leftover(f"{path}/", size, "the trial has its record"))
            if not dry_run:
                shutil.rmtree(path, ignore_errors=True)
    return found


def _checkpoints(ledger: Ledger, older_than: float | None) -> Iterator[Leftover]:
    recorded, now = set(ledger.ids()), time.time()
    sizes: dict[str, int] = {}
    newest: dict[str, float] = {}
    for name, size, changed in ledger.files.tree(CHECKPOINTS):
        trial = name.split("/")[0]
        sizes[trial] = sizes.get(trial, 0) + size
        newest[trial] = max(newest.get(trial, 0.0), changed)
    for trial in sorted(sizes):
        if trial in recorded:
            yield Leftover(f"{CHECKPOINTS}/{trial}/", sizes[trial], "the trial has its record")
        elif older_than is not None and now - newest[trial] > older_than:
            days = (now - newest[trial]) / 86400
            yield Leftover(f"{CHECKPOINTS}/{trial}/", sizes[trial], f"unfinished, and untouched for {days:.1f} days")


def _strays(ledger: Ledger) -> Iterator[Leftover]:
    for folder in _FOLDERS:
        for name in ledger.files.stray(folder):
            path = name if folder == "." else f"{folder}/{name}"
            yield Leftover(path, 0, "left behind by an interrupted write")


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0
