"""What a study's trials need of devices: the memory model of training, asked for by shapes; imports no torch."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuneopt.search.study.cost import TrialShape
    from tuneopt.search.study.study import Study
    from tuneopt.train.config import ParallelConfig

ADAMW_STATE_BYTES = 8.0
"""State bytes per parameter of an optimizer that says nothing of its own."""


@cache
def state_bytes(optimizer: str) -> float:
    """Bytes of optimizer state per parameter."""
    from tuneopt.optim import info

    known = {entry.name: entry.state_bytes_per_parameter for entry in info()}
    return known.get(optimizer) or ADAMW_STATE_BYTES


def peak_bytes(asked: TrialShape) -> int:
    """Bytes that the fullest device of a trial needs, by `tuneopt.train.memory`; host memory of offload left out."""
    from tuneopt.train.chunks import chunk_tokens
    from tuneopt.train.memory import memory

    devices = asked.devices
    return memory(
        asked.scale,
        asked.vocabulary,
        asked.optimizer,
        state_bytes(asked.optimizer),
        precision=asked.precision,
        micro_batch=asked.sequences,
        ranks=devices.ranks,
        zero=devices.zero,
        offload=devices.offload,
        head_chunk=chunk_tokens(asked.sequences * asked.scale.seq_len, asked.vocabulary),
    ).device


def placements(study: Study) -> dict[str, ParallelConfig]:
    """Where a study's trials train, by scale; raises `InputError` where a batch does not divide among the ranks."""
    if not study.placement:
        return {}
    from tuneopt.cluster.placing import check_batches
    from tuneopt.search.study.cost import batches
    from tuneopt.train.config import ParallelConfig

    found = {}
    for scale, devices in study.placement.items():
        found[scale] = ParallelConfig(devices.ranks, devices.zero, devices.offload)
        for optimizer in study.optimizers:
            check_batches(found[scale], scale, batches(study, optimizer))
    return found
