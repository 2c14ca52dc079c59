"""How much of a CUDA device's memory a trial can plan with."""

from __future__ import annotations

import gc

import torch

USABLE = 0.92
"""Share of a device's memory that is planned with; the rest is for the context, libraries and fragments."""


def available_bytes(device: torch.device, reused: int = 0) -> int:
    """Bytes of a CUDA device that a trial may plan with: what is free, and ``reused`` ones that are in use already."""
    gc.collect()  # a trial that ended may wait for it
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(USABLE * (free + idle + reused))
