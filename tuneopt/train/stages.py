"""Which ZeRO stage a trial on several ranks of this machine takes when nobody says."""

from __future__ import annotations

import os

import torch

from tuneopt.optim.info import BUILT_IN
from tuneopt.spec import TrialSpec
from tuneopt.train.chunks import chunk_tokens
from tuneopt.train.device_memory import USABLE
from tuneopt.train.fitting import UNKNOWN_STATE_BYTES
from tuneopt.train.memory import stage_for

JUDGED_TOKENS = 2**13
"""Tokens of the pass by which stages are judged: enough to keep a device busy; what is left lets passes grow."""


def chosen_stage(
    spec: TrialSpec,
    ranks: int,
    *,
    offload: bool = False,
    checkpointing: bool = False,
    sequences: int | None = None,
    available: int | None = None,
) -> int:
    """The stage that `tuneopt.train.memory.stage_for` finds for ``spec`` on ``ranks`` devices of this machine.

    ``available`` are the bytes of one device, by default of the smallest GPU, or an equal share of the free memory.
    """
    scale, vocab_size = spec.regime.scale, spec.regime.corpus.vocab_size
    share = max(1, spec.batch // ranks)
    size = sequences or max(1, min(share, JUDGED_TOKENS // scale.seq_len))
    held = {entry.name: entry.state_bytes_per_parameter for entry in BUILT_IN}.get(spec.optimizer)
    return stage_for(
        scale,
        vocab_size,
        spec.optimizer,
        UNKNOWN_STATE_BYTES if held is None else held,
        available or _available(ranks),
        ranks=ranks,
        precision=spec.precision,
        micro_batch=size,
        checkpointing=checkpointing,
        head_chunk=chunk_tokens(size * scale.seq_len, vocab_size),
        offload=offload,
    )


def _available(ranks: int) -> int:
    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        return int(USABLE * min(torch.cuda.get_device_properties(device).total_memory for device in devices))
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):  # not Linux
        pages = os.sysconf("SC_PHYS_PAGES")
    return int(USABLE * os.sysconf("SC_PAGE_SIZE") * pages) // ranks
