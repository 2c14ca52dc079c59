"""The second moment of the Adam family, once for all its variants."""

from __future__ import annotations

import torch
from torch import Tensor


def root_second_moment(
    exp_avg_sq: list[Tensor], gradients: list[Tensor], *, beta2: float, eps: float, step: int
) -> tuple[list[Tensor], float]:
    """Update v in place; return fresh tensors sqrt(v) + s eps, and s = sqrt(1 - beta2^t).

    v <- beta2 v + (1 - beta2) g^2.  Then x / (sqrt(v / (1 - beta2^t)) + eps) is s x / (sqrt(v) + s eps), which leaves
    the bias correction to a factor that the numerator takes along.
    """
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, gradients, gradients, 1 - beta2)
    root = torch._foreach_sqrt(exp_avg_sq)
    correction = (1 - beta2**step) ** 0.5
    torch._foreach_add_(root, eps * correction)
    return list(root), correction
