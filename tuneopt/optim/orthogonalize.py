"""Newton-Schulz orthogonalization: the nearest semi-orthogonal matrix, approximately, by matrix products alone."""

from __future__ import annotations

import torch
from torch import Tensor

from tuneopt.spec import InputError, nearest

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients (a, b, c) of the quintic p(s) = a s + b s^3 + c s^5 that the study ran (Jordan et al. 2024)."""

STEPS = 5

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def check_precision(precision: str) -> str:
    """The precision itself; raises `InputError` for an unknown one."""
    if precision not in PRECISIONS:
        raise InputError(f"unknown ns_precision {precision!r}; {nearest(str(precision), PRECISIONS)}")
    return precision


def newton_schulz(matrices: Tensor, eps: float = 1e-7, steps: int = STEPS, precision: str = "fp32") -> Tensor:
    """Orthogonalize each matrix of a stack of shape (..., a, b): U S V^T becomes U q(S) V^T with q near 1.

    X_0 = X / (||X||_F + eps);   X_{k+1} = a X_k + (b A + c A A) X_k  with  A = X_k X_k^T

    acts on each singular value s by s <- a s + b s^3 + c s^5. After five steps values in [0.002, 1] have moved into
    [0.681, 1.203]; smaller ones are multiplied by up to 3.4445^5 = 485 and may stay below. Tall matrices are iterated
    as their transposes. ``precision`` is that of the products: ``fp32`` (float64 input stays float64) or ``bf16``.
    The result has the dtype of the input. A zero matrix stays zero. Source: Jordan et al. 2024, "Muon".
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = (x / (norm + eps)).flatten(0, -3) if x.ndim > 2 else (x / (norm + eps)).unsqueeze(0)
    if x.dtype != torch.float64 or precision == "bf16":
        x = x.to(PRECISIONS[precision])
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype).reshape(matrices.mT.shape if tall else matrices.shape)
    return x.mT if tall else x


def quintic_map(values: Tensor, steps: int = STEPS) -> Tensor:
    """Where Newton-Schulz sends singular values in [0, 1]: the scalar polynomial, iterated."""
    a, b, c = QUINTIC
    for _ in range(steps):
        square = values * values
        values = values * (a + square * (b + square * c))
    return values
