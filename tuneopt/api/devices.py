"""What a study's trials need of devices, where they are placed, and whether they compile their model.

A plan must be quick and run anywhere, a laptop without the study's GPUs among them. So memory comes from a model of
training over shapes (`tuneopt.training.memory`). Whether a trial compiles is part of what it is, so that it is
decided before any runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from tuneopt.api.own_models import scale_named
from tuneopt.run.options import RunOptions, check_batches
from tuneopt.spec import InputError, OwnModel, Scale
from tuneopt.training.config import ParallelConfig

if TYPE_CHECKING:
    from tuneopt.search.study.cost import TrialShape
    from tuneopt.search.study.study import Study
    from tuneopt.search.sweep import Sweep

ADAMW_STATE_BYTES = 8.0
"""State bytes per parameter of an optimizer that says nothing of its own: two moments in fp32, as most rules keep
(docs/optimizers.md)."""


@cache
def state_bytes(optimizer: str) -> float:
    """Bytes of optimizer state per parameter, weights and gradients not counted."""
    from tuneopt.optim import info

    # Rather too much than too little for an optimizer that is silent: a study that stops for want of memory cost hours.
    known = {entry.name: entry.state_bytes_per_parameter for entry in info()}
    return known.get(optimizer) or ADAMW_STATE_BYTES


def peak_bytes(asked: TrialShape) -> int:
    """Bytes that the fullest device of a trial needs, by `tuneopt.training.memory`; host memory of offload left out."""
    from tuneopt.training.memory import chunk_tokens, memory

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
        on_cpu=asked.scale.ladder == "nano",  # where that ladder trains; a plan cannot know, and it fits anyway
    ).device


def slots_here(options: RunOptions, scale: str) -> tuple[int, str]:
    """How many trials at a scale `tune` would run at once on this machine, and what to say where it can run none."""
    ranks = options.parallel[scale].ranks if scale in options.parallel else 1
    room, missing = float(os.cpu_count() or 1), ""
    if options.gpus_per_trial:
        import torch

        count = torch.cuda.device_count()
        room = count / options.gpus_per_trial + 1e-9  # ten tenths of a GPU are a whole one
        if int(room) < ranks:
            asked = f"{ranks * options.gpus_per_trial:g} GPU{'s' * (ranks * options.gpus_per_trial != 1)}"
            missing = f"a trial takes {asked} and this machine has {count}; the time is that of one trial after another"
    slots = max(1, int(room) // ranks)
    return min(slots, options.max_concurrent or slots), missing


def placements(study: Study) -> dict[str, ParallelConfig]:
    """Where a study's trials train, by scale; raises `InputError` where a batch does not divide among the ranks."""
    if not study.placement:
        return {}
    from tuneopt.search.study.cost import batches

    # Every batch of every optimizer is tried before anything runs: a study that stops half-way for one has cost hours.
    parallel = {}
    for scale, devices in study.placement.items():
        parallel[scale] = ParallelConfig(devices.ranks, devices.zero, devices.offload)
        parallel[scale].check_model(study.scale(scale))
        for optimizer in study.optimizers:
            check_batches(parallel[scale], scale, batches(study, optimizer))
    return parallel


def placement_of(
    ranks: int, zero: int | None, offload: bool, checkpointing: bool = False, scale: str | Scale = ""
) -> ParallelConfig | None:
    """Where a trial runs; None for one plain process. Raises `InputError` for what cannot be.

    Without a stage ``zero``, several ranks share the optimizer state of large scales (stage 1), as `train` does, and of
    no others: devices are the cluster's, so their memory is not known here. Stage 2 would average gradients in every
    pass of a step instead of the last.
    """
    if zero is None:
        from tuneopt.training.memory import SHARDED

        shape = scale_named(scale) if scale else None
        large = shape is not None and not isinstance(shape, OwnModel) and shape.parameters >= SHARDED
        zero = 1 if offload or (ranks > 1 and large) else 0
    if ranks == 1 and zero == 0 and not offload and not checkpointing:  # then nothing depends on how batches divide
        return None
    return ParallelConfig(ranks, zero, offload, checkpointing)


def placed(sweep: Sweep, placement: ParallelConfig | None) -> dict[str, ParallelConfig]:
    """``placement`` for the trials of a sweep, by their scale; raises `InputError` where a batch does not divide."""
    if placement is None:
        return {}
    placement.check_model(sweep.regime.scale)
    scale = sweep.regime.scale.name
    axis = sweep.space.by_name.get("train_batch_size")
    batches = axis.values if axis else [sweep.space.value(sweep.space.start, "train_batch_size")]
    check_batches(placement, scale, batches)
    return {scale: placement}


def compiles(asked: bool | None) -> bool:
    """Whether trials compile; None asks for it where it is possible. Raises `InputError` where it is not."""
    from tuneopt.training.kernels import has_compiler

    if asked is False or has_compiler():  # the quick answers, without torch
        return asked is not False
    from tuneopt.training.building import can_compile  # a GPU needs no C++ compiler; asking for one takes torch

    if asked and not can_compile():
        raise InputError("--compile needs a C++ compiler; install g++ or leave it out")
    return can_compile()


def compiles_at(asked: bool | None, scales: Iterable[Scale]) -> bool:
    """As `compiles`; a model of a user's own compiles on demand alone, because nobody knows whether it can."""
    return compiles(False if asked is None and any(isinstance(scale, OwnModel) for scale in scales) else asked)
