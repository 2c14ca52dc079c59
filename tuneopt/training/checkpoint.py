"""Checkpoints of one trial: atomic, the newest two kept, loaded without executing pickled code.

One process writes one file (`CheckpointStore.save`), ranks under ZeRO a folder with a part each (`write_parts`), whose
tensors are whole. Both are read by anybody: a trial may go on with another number of ranks. Two processes may write one
trial's checkpoints at once, as after a driver that was killed and started again: each file is one process' own until it
is whole, and what either of them wrote is good for both.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch

from tuneopt.errors import NoRoomError, lasting, no_room
from tuneopt.training.config import pause_seconds
from tuneopt.training.mirror import KEPT, Mirror
from tuneopt.training.ranks import Ranks

_SHARE = 20
"""Checkpoints come so seldom that writing them takes at most this part of the run: a twentieth."""

_ATTEMPTS = 5
"""How often a file is begun anew whose folder another process removed meanwhile."""

_NAME = re.compile(r"step-(\d{9})(\.pt)?")


class CheckpointStore:
    """The checkpoints of one trial in one folder, and their copies in an object store where there is a ``mirror``.

    A file appears under its final name only when it is complete and on disk. The newest ``KEPT`` stay, so a file that
    a dying disk truncated still leaves its predecessor to go on from.
    """

    def __init__(self, folder: Path, mirror: Mirror | None = None) -> None:
        self.folder = folder
        self.mirror = mirror
        self.last_seconds = 0.0
        self.last_bytes = 0
        self._least = pause_seconds()

    @property
    def pause(self) -> float:
        """Seconds from one checkpoint to the next: what is lost at most when the process dies."""
        return max(self._least, _SHARE * self.last_seconds)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            return sorted({int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))})
        return []

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write ``state`` (tensors and plain containers) for ``step`` and drop what is older than the newest two.

        Raises `NoRoomError` where the disk is full; what was there before stays as it was.
        """
        began = time.perf_counter()
        final = self._path(step)
        for attempt in range(_ATTEMPTS):
            temporary = final.with_suffix(f".{os.getpid()}.tmp")  # a name of its own: two processes may write one step
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.last_bytes = _write(temporary, state)
                temporary.replace(final)  # after the data is on disk, so that a reader finds a whole file or none
                break
            except FileNotFoundError:  # another process ended this trial and cleared it away
                if attempt == _ATTEMPTS - 1:
                    raise
            except BaseException as error:
                temporary.unlink(missing_ok=True)
                if no_room(error):
                    raise NoRoomError(self.folder) from None
                raise
        self.drop_old()  # only now: until here the older ones were all there was
        self.last_seconds = time.perf_counter() - began
        return final

    def load_newest(self, device: torch.device) -> tuple[int, dict[str, Any]] | None:
        """The newest readable checkpoint as (step, state), or None; a damaged one is passed over."""
        if self.mirror:  # another machine may have come further
            self.mirror.fetch(self.folder, newer_than=max(self.steps(), default=-1))
        for step in reversed(self.steps()):
            try:
                if self._path(step).exists():
                    return step, _load(self._path(step), map_location=device)
                return step, self._joined(step)
            except OSError as error:
                if not lasting(error):  # a store that does not answer now: an older checkpoint would lose steps
                    raise
            except Exception:  # torch raises many types for damaged archives
                continue
        return None

    def _joined(self, step: int) -> dict[str, Any]:
        """The parts of a checkpoint that several ranks wrote, as one; tensors stay on disk until they are read."""
        folder = self._path(step).with_suffix("")
        # Mapped, not read: each rank touches what it owns and no more.
        first = _load(folder / part_name(0), map_location="cpu", mmap=True)
        for rank in range(1, first["parts"]):
            part = _load(folder / part_name(rank), map_location="cpu", mmap=True)
            first["model"] |= part["model"]
            first["state"] |= part["state"]
        state: dict[str, Any] = first
        return state

    def drop_old(self) -> None:
        """Remove all but the newest ``KEPT``, once the newest is complete; its copy goes out from here."""
        steps = self.steps()
        for old in steps[:-KEPT]:
            self._path(old).unlink(missing_ok=True)
            shutil.rmtree(self._path(old).with_suffix(""), ignore_errors=True)
        if self.mirror and steps:
            file = self._path(steps[-1])
            self.mirror.send(steps[-1], file if file.exists() else file.with_suffix(""))

    def clear(self) -> None:
        """Remove the trial's checkpoints, once its record is safe."""
        if self.mirror:
            self.mirror.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.pt"


class _Noting:
    """A file that keeps the error that ended a write: torch turns it into one of its own, without the reason."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _load(path: Path, **how: Any) -> dict[str, Any]:
    """What a file of a checkpoint holds; ValueError for what is no plain file: a FIFO would be waited for."""
    if not path.is_file():
        raise ValueError(f"{path} is no plain file")
    loaded: dict[str, Any] = torch.load(path, weights_only=True, **how)
    return loaded


def _write(path: Path, state: dict[str, Any]) -> int:
    """Write a file down to the disk; its size in bytes."""
    with path.open("wb") as file:
        noting = _Noting(file)
        try:
            torch.save(state, cast("IO[bytes]", noting))
        except RuntimeError:
            if noting.error:
                raise noting.error from None
            raise
        file.flush()
        os.fsync(file.fileno())  # else a rename could outlive the data when the machine goes down
        return file.tell()


def write_parts(
    store: CheckpointStore, step: int, count: int, part: Callable[[int], dict[str, Any]], ranks: Ranks
) -> None:
    """Write a checkpoint of ``step``, of which every rank gives ``part(0)`` to ``part(count - 1)``; all ranks together.

    Parts are made one after another, so that one at a time needs memory, and go into a folder that all ranks can see.
    It appears under its final name when all parts are complete and on disk; the newest two stay.
    """
    began = time.perf_counter()
    final = store.folder / f"step-{step:09d}"
    temporary = final.with_suffix(".tmp")
    if ranks.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    ranks.barrier()  # nobody writes into a folder that rank 0 is about to remove
    written = 0
    for number in range(count):
        path = temporary / part_name(number * ranks.world + ranks.rank)
        with path.open("wb") as file:
            torch.save({**_compact(part(number)), "parts": count * ranks.world}, file)
            file.flush()
            os.fsync(file.fileno())
        written += path.stat().st_size
    sizes: list[int] = ranks.gather(written)  # waits for all: the folder is whole from here on
    if ranks.rank == 0:
        shutil.rmtree(final, ignore_errors=True)
        temporary.replace(final)
        store.drop_old()
    ranks.barrier()  # no rank trains on while what it would go on from may not be there yet
    store.last_seconds = time.perf_counter() - began
    store.last_bytes = sum(sizes)


def _compact(value: Any) -> Any:
    """The same containers with tensors that own their memory: a saved view would bring all of its storage along."""
    if isinstance(value, torch.Tensor):
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        return value.detach() if whole else value.detach().clone()
    if isinstance(value, dict):
        return {key: _compact(inner) for key, inner in value.items()}
    return value


def part_name(rank: int) -> str:
    """The file of one rank in the folder of a checkpoint."""
    return f"rank-{rank:05d}.pt"


def by_position(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's part of a checkpoint in the form of `torch.optim.Optimizer.state_dict`.

    ZeRO saves state by parameter name (``state``), the others by position (``optimizer``).
    """
    if "optimizer" in saved:
        positional: dict[str, Any] = saved["optimizer"]
        return positional
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    # Parameters that had no gradient yet have no state, under either form.
    state = {position: saved["state"][name] for position, name in enumerate(names) if name in saved["state"]}
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def by_name(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """The optimizer's part of a checkpoint as state of each parameter by its name; inverse of `by_position`."""
    if "state" in saved:
        named: dict[str, dict[str, Any]] = saved["state"]
        return named
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    positional = saved["optimizer"]["state"]
    return {name: positional[position] for position, name in enumerate(names) if position in positional}
