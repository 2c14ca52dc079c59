"""How many sequences a forward pass takes, and which ZeRO stage: what fits into the devices at hand.

A specification names a micro-batch size because it orders floating-point sums. How many sequences a *pass* takes is a
matter of where the trial runs, like the number of ranks: it changes the order of sums and nothing else, and the record
names it. On CPUs a pass takes what the specification says, so results stay the same to the bit; on CUDA the largest
that fits, by the model of memory first, then by a trial pass (`WarmModels.prepare`), unless a `ParallelConfig` says how
many.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import torch

from tuneopt.optim.info import BUILT_IN
from tuneopt.spec import OwnModel, TrialSpec
from tuneopt.training.config import ParallelConfig
from tuneopt.training.memory import Memory, chunk_tokens, memory, stage_for

USABLE = 0.92
"""Share of a device's memory that is planned with; the rest is for the context, libraries and fragments."""

PASS_TOKENS = 2**16
"""Tokens of a pass at most: beyond, kernels of any scale here keep a device busy and only memory grows."""

JUDGED_TOKENS = 2**13
"""Tokens of the pass by which stages are judged: enough to keep a device busy; what is left lets passes grow."""

ALLOCATOR = "expandable_segments:True"
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""What CUDA's allocator is told, and where a user tells it something else."""

UNKNOWN_STATE_BYTES = 12.0
"""Bytes of state per parameter assumed of an optimizer from outside; the trial pass shows where that is too little."""


def set_up_memory(device: torch.device, share: float) -> None:
    """Let CUDA's allocator grow its segments, and hold this process to its ``share`` of the device.

    Passes of many sizes leave gaps in segments of fixed size, and each step would search for room anew. Without a limit
    the workers that share a device would size their passes by the same free memory. A user's own settings stay.
    """
    if not any(os.environ.get(name) for name in ALLOCATOR_VARIABLES):
        torch.cuda.memory._set_allocator_settings(ALLOCATOR)
    torch.cuda.set_per_process_memory_fraction(share, device)


def available_bytes(device: torch.device, reused: int = 0, share: float = 1.0) -> int:
    """Bytes of a CUDA device that a trial may plan with: what is free, and ``reused`` ones that are in use already.

    At most its ``share`` of the device, less what else this process holds.
    """
    gc.collect()  # a trial that ended may wait for it
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    # What the allocator keeps and no tensor uses is free for this process, though the driver counts it as taken.
    idle = torch.cuda.memory_reserved(device) - allocated
    return int(USABLE * min(free + idle + reused, share * total - allocated + reused))


def pass_sizes(
    spec: TrialSpec, parallel: ParallelConfig, device: torch.device, available: Callable[[], int]
) -> list[int]:
    """Sequences that a rank's pass may take, in the order in which they are to be tried; each divides its share.

    ``available`` tells the bytes that are free for it, equal on all ranks. Raises `InputError` where the batch does not
    divide among the ranks.
    """
    named = parallel.micro_batch(spec)
    # Of a model of a user's own no memory is predicted: its passes take what the specification says.
    if parallel.sequences is not None or device.type != "cuda" or isinstance(spec.regime.scale, OwnModel):
        return [named]
    return sizes_within(spec, parallel, available())


def sizes_within(spec: TrialSpec, parallel: ParallelConfig, available: int) -> list[int]:
    """Divisors of a rank's share, largest first, whose step needs at most ``available`` bytes; at least the size 1."""
    # Only divisors: gradients of a step are means over passes of one size.
    share = spec.batch // parallel.ranks
    most = min(share, max(1, PASS_TOKENS // spec.regime.scale.seq_len))
    sizes = [size for size in range(most, 0, -1) if share % size == 0]
    return [size for size in sizes if step_memory(spec, parallel, size).device <= available] or sizes[-1:]


def step_memory(spec: TrialSpec, parallel: ParallelConfig, size: int, *, on_cpu: bool = False) -> Memory:
    """What a rank needs at its peak when a pass takes ``size`` sequences, on a CUDA device unless ``on_cpu``."""
    scale, vocab_size = spec.regime.scale, spec.regime.corpus.vocab_size
    return memory(
        scale,
        vocab_size,
        spec.optimizer,
        _state_bytes(spec.optimizer),
        precision=spec.precision,
        micro_batch=size,
        ranks=parallel.ranks,
        zero=parallel.zero,
        offload=parallel.offload,
        checkpointing=parallel.checkpointing,
        head_chunk=chunk_tokens(size * scale.seq_len, vocab_size),
        passes=spec.batch // parallel.ranks // size,
        on_cpu=on_cpu,
        compiled=spec.compile and parallel.zero < 3 and not on_cpu,  # stage 3 runs as it is written
    )


def reserved_bytes(spec: TrialSpec, parallel: ParallelConfig, size: int) -> int:
    """Bytes that are held while a pass runs, apart from weights and the pass: a trial pass has to leave room for them.

    Optimizer state, communication, and the gradients of the passes before.
    """
    need = step_memory(spec, parallel, size)
    return need.state + need.buffers + need.reduction + (need.gradients if need.accumulates else 0)


def chosen_stage(
    spec: TrialSpec,
    ranks: int,
    *,
    offload: bool = False,
    checkpointing: bool = False,
    sequences: int | None = None,
    available: int | None = None,
) -> int:
    """The ZeRO stage for ``spec`` on ``ranks`` devices of this machine when nobody says: the lowest that fits.

    ``available`` are the bytes of one device, by default of the smallest GPU, or an equal share of the free memory.
    """
    scale, vocab_size = spec.regime.scale, spec.regime.corpus.vocab_size
    if isinstance(scale, OwnModel):
        return 1 if offload else 0  # which is refused by name
    # A stage is judged by a pass that keeps a device busy, not by the smallest: that would shard nothing and run
    # slowly.
    share = max(1, spec.batch // ranks)
    size = sequences or max(1, min(share, JUDGED_TOKENS // scale.seq_len))
    return stage_for(
        scale,
        vocab_size,
        spec.optimizer,
        _state_bytes(spec.optimizer),
        available or _bytes_of_each(ranks),
        ranks=ranks,
        precision=spec.precision,
        micro_batch=size,
        checkpointing=checkpointing,
        head_chunk=chunk_tokens(size * scale.seq_len, vocab_size),
        offload=offload,
        on_cpu=not torch.cuda.is_available(),
    )


def _state_bytes(optimizer: str) -> float:
    """Bytes of optimizer state per parameter."""
    listed = {entry.name: entry.state_bytes_per_parameter for entry in BUILT_IN}.get(optimizer)
    return UNKNOWN_STATE_BYTES if listed is None else listed


def _bytes_of_each(ranks: int) -> int:
    """Bytes that each rank of this machine can plan with before any of them has started."""
    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        return int(USABLE * min(torch.cuda.get_device_properties(device).total_memory for device in devices))
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):  # not Linux
        pages = os.sysconf("SC_PHYS_PAGES")
    return int(USABLE * os.sysconf("SC_PAGE_SIZE") * pages) // ranks
