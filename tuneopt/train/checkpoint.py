"""Checkpoints of one trial: atomic, the newest two kept, loaded without executing pickled code."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import torch

KEPT = 2
_NAME = re.compile(r"step-(\d{9})\.pt")


class CheckpointStore:
    """The checkpoints of one trial in one folder.

    A file appears under its final name only when it is complete and on disk. The newest ``KEPT`` stay, so a file that
    a dying disk truncated still leaves its predecessor to go on from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last_seconds = 0.0
        self.last_bytes = 0

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)))

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write ``state`` (tensors and plain containers) for ``step`` and drop what is older than the newest two."""
        began = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self._path(step)
        temporary = final.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)
        for old in self.steps()[:-KEPT]:
            self._path(old).unlink(missing_ok=True)
        self.last_seconds = time.perf_counter() - began
        self.last_bytes = final.stat().st_size
        return final

    def load_newest(self, device: torch.device) -> tuple[int, dict[str, Any]] | None:
        """The newest readable checkpoint as (step, state), or None; a damaged one is passed over."""
        for step in reversed(self.steps()):
            with contextlib.suppress(Exception):  # torch raises many types for damaged archives
                return step, torch.load(self._path(step), map_location=device, weights_only=True)
        return None

    def clear(self) -> None:
        """Remove the trial's checkpoints, once its record is safe."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"
