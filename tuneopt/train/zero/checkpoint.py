"""Checkpoints that several ranks write: each its own tensors, whole, so that any number of ranks can read them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch

from tuneopt.train.checkpoint import CheckpointStore, part_name
from tuneopt.train.distributed import Ranks


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
    ranks.barrier()
    written = 0
    for number in range(count):
        path = temporary / part_name(number * ranks.world + ranks.rank)
        with path.open("wb") as file:
            torch.save({**_compact(part(number)), "parts": count * ranks.world}, file)
            file.flush()
            os.fsync(file.fileno())
        written += path.stat().st_size
    sizes: list[int] = ranks.gather(written)
    if ranks.rank == 0:
        shutil.rmtree(final, ignore_errors=True)
        temporary.replace(final)
        store.drop_old()
    ranks.barrier()
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
