"""Random probes without generator state: each is a function of what it is for, so nothing about it is checkpointed."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def seed_of(*words: int | str) -> int:
    """A seed of 63 bits from numbers and names, the same on every machine and unrelated for any other words."""
    text = "\n".join(map(str, words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def gaussian(like: Tensor, *words: int | str) -> Tensor:
    """Standard normal numbers with shape, device and dtype of ``like``, drawn in fp32 from the seed of ``words``.

    The numbers depend on the kind of device: CPUs and GPUs have generators of their own.
    """
    generator = torch.Generator(device=like.device).manual_seed(seed_of(*words))
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=torch.float32).to(like.dtype)
