"""Checkpoints of one trial: atomic, the newest two kept, loaded without executing pickled code.

One process writes one file, several ranks write a folder with a part each (`tuneopt.train.zero`). Both are read by
anybody: a trial may go on with another number of ranks.
"""

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
_NAME = re.compile(r"step-(\d{9})(\.pt)?")


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
        return sorted({int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))})

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
        self.drop_old()
        self.last_seconds = time.perf_counter() - began
        self.last_bytes = final.stat().st_size
        return final

    def load_newest(self, device: torch.device) -> tuple[int, dict[str, Any]] | None:
        """The newest readable checkpoint as (step, state), or None; a damaged one is passed over."""
        for step in reversed(self.steps()):
            with contextlib.suppress(Exception):  # torch raises many types for damaged archives
                if self._path(step).exists():
                    return step, torch.load(self._path(step), map_location=device, weights_only=True)
                return step, self._joined(step)
        return None

    def _joined(self, step: int) -> dict[str, Any]:
        """The parts of a checkpoint that several ranks wrote, as one; tensors stay on disk until they are read."""
        folder = self._path(step).with_suffix("")
        first = torch.load(folder / part_name(0), map_location="cpu", weights_only=True, mmap=True)
        for rank in range(1, first["parts"]):
            part = torch.load(folder / part_name(rank), map_location="cpu", weights_only=True, mmap=True)
            first["model"] |= part["model"]
            first["state"] |= part["state"]
        state: dict[str, Any] = first
        return state

    def drop_old(self) -> None:
        """Remove all but the newest ``KEPT``."""
        for old in self.steps()[:-KEPT]:
            self._path(old).unlink(missing_ok=True)
            shutil.rmtree(self._path(old).with_suffix(""), ignore_errors=True)

    def clear(self) -> None:
        """Remove the trial's checkpoints, once its record is safe."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"


def part_name(rank: int) -> str:
    """The file of one rank in the folder of a checkpoint."""
    return f"rank-{rank:05d}.pt"


def by_position(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's part of a checkpoint in the form of `torch.optim.Optimizer.state_dict`.

    Ranks save state by parameter name (``state``), one process by position (``optimizer``).
    """
    if "optimizer" in state:
        found: dict[str, Any] = state["optimizer"]
        return found
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    by_name = state["state"]
    held = {position: by_name[name] for position, name in enumerate(names) if name in by_name}
    return {"state": held, "param_groups": optimizer.state_dict()["param_groups"]}


def by_name(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """The optimizer's part of a checkpoint as state of each parameter by its name; inverse of `by_position`."""
    if "state" in state:
        found: dict[str, dict[str, Any]] = state["state"]
        return found
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    held = state["optimizer"]["state"]
    return {name: held[position] for position, name in enumerate(names) if position in held}
