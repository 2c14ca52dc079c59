"""Checkpoints that several ranks write: each its own tensors, whole, so that any number of ranks can read them."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import torch

from tuneopt.train.checkpoint import CheckpointStore, part_name
from tuneopt.train.distributed import Ranks


def write_part(store: CheckpointStore, step: int, part: dict[str, Any], ranks: Ranks) -> None:
    """Write this rank's ``part`` of the checkpoint of ``step``; all ranks together, into a folder that all can see.

    The folder appears under its final name when all parts are complete and on disk; the newest two stay.
    """
    began = time.perf_counter()
    final = store.folder / f"step-{step:09d}"
    temporary = final.with_suffix(".tmp")
    if ranks.rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    ranks.barrier()
    path = temporary / part_name(ranks.rank)
    with path.open("wb") as file:
        torch.save({**_compact(part), "parts": ranks.world}, file)
        file.flush()
        os.fsync(file.fileno())
    sizes: list[int] = ranks.gather(path.stat().st_size)
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
