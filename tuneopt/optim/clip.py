"""Clipping by joint norm, as a divisor that the step applies where it reads the gradients anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tuneopt.optim.pool import Batch


def norm_divisors(batches: list[Batch]) -> list[Tensor | None]:
    """For each batch the divisor max(1, ||g|| / max_grad_norm), or None where clipping is off.

    The norm is taken over all gradients of the batches that share one positive ``max_grad_norm``: a group that has
    its own rule of clipping, or none, carries another value or 0. A NaN norm gives a NaN divisor, so that divergence
    shows in the parameters. Everything stays on the device.
    """
    divisors: dict[float, Tensor] = {}
    limits = [float(batch.settings["max_grad_norm"]) for batch in batches]
    for limit in dict.fromkeys(limits):
        if limit > 0:
            gradients = [g for batch, own in zip(batches, limits, strict=True) if own == limit for g in batch.gradients]
            divisors[limit] = (total_norm(gradients) / limit).clamp_(min=1.0)
    return [
        divisors[limit].to(batch.gradients[0].device) if limit > 0 else None
        for batch, limit in zip(batches, limits, strict=True)
    ]


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of all entries together, fp32 (or float64), on the first tensor's device."""
    dtype = torch.float64 if tensors[0].dtype == torch.float64 else torch.float32
    norms = torch._foreach_norm(tensors, 2, dtype)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([part.to(norms[0].device) for part in norms]))
    return norm
