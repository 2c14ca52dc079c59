"""What a ledger holds that no run will ever need: found, named, and removed when asked.

While a trial runs, its newest two checkpoints stay; when its record is written, its checkpoints go. What can be left
over is of processes that died at the wrong moment, and of trials that nobody asks for any more. Records, logs and kept
weights are never left over.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneopt.checked import NewerSchemaError
from tuneopt.ledger.damage import strays
from tuneopt.ledger.store import Ledger

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that may go: a file, or a folder (its name ends in a slash) with all that is in it."""

    name: str
    bytes: int
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def leftovers(ledger: Ledger, older_than: float | None = None) -> list[Leftover]:
    """Checkpoints of recorded trials, and temporary files of dead writers.

    With ``older_than`` (seconds) also the checkpoints of unfinished trials that nobody has written to for so long: a
    trial that is asked for again then begins at its first step.
    """
    interrupted = [Leftover(name, 0, "left behind by an interrupted write") for name in strays(ledger.files)]
    return [*_checkpoints(ledger, older_than), *interrupted]


def remove(ledger: Ledger, unneeded: list[Leftover]) -> None:
    """Remove what `leftovers` found."""
    for one in unneeded:
        if one.name.endswith("/"):
            ledger.files.delete_tree(one.name.rstrip("/"))
        else:
            ledger.files.delete(one.name)


def clean_cache(ledger: Ledger, folder: Path, *, dry_run: bool) -> list[Leftover]:
    """Checkpoints in a machine's own cache of trials that a remote ledger holds by now; removed unless ``dry_run``.

    Beside a local ledger the cache holds no checkpoints: there trials write them into the ledger's own folder.
    """
    unneeded = []
    for path in sorted(folder.iterdir()) if folder.is_dir() and not ledger.is_local else ():
        if path.is_dir() and ledger.has(path.name) and _is_sound(ledger, path.name):
            size = 0
            for file in path.rglob("*"):
                with contextlib.suppress(OSError):  # the trial's own process may be removing them too
                    size += file.stat().st_size if file.is_file() else 0
            unneeded.append(Leftover(f"{path}/", size, "the trial has its record"))
            if not dry_run:
                shutil.rmtree(path, ignore_errors=True)
    return unneeded


def _checkpoints(ledger: Ledger, older_than: float | None) -> Iterator[Leftover]:
    """Folders of checkpoints that may go; the age of one is that of its newest file."""
    recorded, now = set(ledger.ids()), time.time()
    sizes: dict[str, int] = {}
    newest: dict[str, float] = {}
    for name, size, changed in ledger.files.tree(CHECKPOINTS):
        trial = name.split("/")[0]
        sizes[trial] = sizes.get(trial, 0) + size
        newest[trial] = max(newest.get(trial, 0.0), changed)
    for trial in sorted(sizes):
        if trial in recorded and _is_sound(ledger, trial):
            yield Leftover(f"{CHECKPOINTS}/{trial}/", sizes[trial], "the trial has its record")
        elif older_than is not None and now - newest[trial] > older_than:
            days = (now - newest[trial]) / 86400
            yield Leftover(f"{CHECKPOINTS}/{trial}/", sizes[trial], f"unfinished, and untouched for {days:.1f} days")


def _is_sound(ledger: Ledger, trial: str) -> bool:
    """Whether a trial's record is whole: one that is damaged runs again, from its checkpoints."""
    try:
        return ledger.sound(trial) is not None
    except NewerSchemaError:
        return False
