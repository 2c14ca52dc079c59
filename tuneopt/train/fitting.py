"""How many sequences a forward pass takes: a trial's micro-batch, or the largest that the device holds.

A specification names a micro-batch because it orders floating-point sums. How many sequences a *pass* takes is a matter
of where the trial runs, like the number of ranks: it changes the order of sums and nothing else, and the record names
it. On CPUs a pass takes what the specification says, so results stay the same to the bit; on CUDA the largest that
fits, by the model of memory first, then by a trial pass (`Engine.prepare`), unless a `Placement` says how many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from tuneopt.optim.info import BUILT_IN
from tuneopt.spec import TrialSpec
from tuneopt.train.chunks import chunk_tokens
from tuneopt.train.distributed import Placement
from tuneopt.train.memory import Memory, memory

PASS_TOKENS = 2**16
"""Tokens of a pass at most: beyond, kernels of any scale here keep a device busy and only memory grows."""

UNKNOWN_STATE_BYTES = 12.0
"""Bytes of state per parameter assumed of an optimizer from outside; the trial pass shows where that is too little."""


def pass_sizes(spec: TrialSpec, placement: Placement, device: torch.device, available: Callable[[], int]) -> list[int]:
    """Sequences that a rank's pass may take, in the order in which they are to be tried; each divides its share.

    ``available`` tells the bytes that are free for it, equal on all ranks. Raises `InputError` where the batch does not
    divide among the ranks.
    """
    named = placement.micro_batch(spec)
    if placement.sequences is not None or device.type != "cuda":
        return [named]
    return sizes_within(spec, placement, available())


def sizes_within(spec: TrialSpec, placement: Placement, available: int) -> list[int]:
    """Divisors of a rank's share, largest first, whose step needs at most ``available`` bytes; at least the size 1."""
    share = spec.batch // placement.ranks
    most = min(share, max(1, PASS_TOKENS // spec.regime.scale.seq_len))
    sizes = [size for size in range(most, 0, -1) if share % size == 0]
    return [size for size in sizes if step_memory(spec, placement, size).device <= available] or sizes[-1:]


def fitted(spec: TrialSpec, placement: Placement, device: torch.device, available: Callable[[], int]) -> Placement:
    """``placement`` with the sequences of a pass that the model of memory allows, where nothing can be tried first."""
    return replace(placement, sequences=pass_sizes(spec, placement, device, available)[0])


def step_memory(spec: TrialSpec, placement: Placement, size: int) -> Memory:
    """What a rank needs at its peak when a pass takes ``size`` sequences."""
    scale, vocab_size = spec.regime.scale, spec.regime.corpus.vocab_size
    held = {entry.name: entry.state_bytes_per_parameter for entry in BUILT_IN}.get(spec.optimizer)
    return memory(
        scale,
        vocab_size,
        spec.optimizer,
        UNKNOWN_STATE_BYTES if held is None else held,
        precision=spec.precision,
        micro_batch=size,
        ranks=placement.ranks,
        zero=placement.zero,
        offload=placement.offload,
        checkpointing=placement.checkpointing,
        head_chunk=chunk_tokens(size * scale.seq_len, vocab_size),
        passes=spec.batch // placement.ranks // size,
    )


def reserved_bytes(spec: TrialSpec, placement: Placement, size: int) -> int:
    """Bytes that are held while a pass runs, beside weights and the pass: a trial pass has to leave room for them.

    Optimizer state, communication, and the gradients of the passes before.
    """
    need = step_memory(spec, placement, size)
    return need.state + need.buffers + need.reduction + (need.gradients if need.accumulates else 0)
