"""Newton-Schulz orthogonalization: the nearest semi-orthogonal matrix, approximately, by matrix products alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 5

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
"""Precisions of the products, and the type that holds what they multiply."""

Polynomial = tuple[float, float, float]
"""Coefficients (a, b, c) of p(s) = a s + b s^3 + c s^5."""


@dataclass(frozen=True, slots=True)
class NewtonSchulzSchedule:
    """One polynomial for each step, the last one for all further steps; ``shrink`` divides the matrix beforehand."""

    polynomials: tuple[Polynomial, ...]
    shrink: float = 1.0

    def at(self, step: int) -> Polynomial:
        """The polynomial of a step, counted from 0."""
        return self.polynomials[min(step, len(self.polynomials) - 1)]


QUINTIC = (3.4445, -4.7750, 2.0315)
"""The one polynomial that the study ran (Jordan et al. 2024)."""

SAFETY = 1.01
"""What Polar Express divides matrix and iterates by, so that rounding cannot push a singular value above 1."""

_GREEDY = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
POLAR_EXPRESS = (*((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in _GREEDY), (1.875, -1.25, 0.375))
"""Polynomials that are each the best one after those before, for singular values from 0.001 (Amsel et al. 2025)."""

COEFFICIENTS: Mapping[str, NewtonSchulzSchedule] = {
    "quintic": NewtonSchulzSchedule((QUINTIC,)),
    "polar_express": NewtonSchulzSchedule(POLAR_EXPRESS, SAFETY),
}


@contextmanager
def rounded_products(precision: str, device: torch.device) -> Iterator[None]:
    """With ``tf32`` CUDA rounds what fp32 products multiply to 10 bits and adds up in fp32; elsewhere nothing changes.

    The switch is the process's, so it is put back: nothing else of a trial is to run in TF32.
    """
    if precision != "tf32" or device.type != "cuda":
        yield
        return
    switch = torch.backends.cuda.matmul
    before, switch.allow_tf32 = switch.allow_tf32, True
    try:
        yield
    finally:
        switch.allow_tf32 = before


def newton_schulz(
    matrices: Tensor,  # (..., a, b)
    eps: float = 1e-7,
    steps: int = STEPS,
    precision: str = "fp32",
    coefficients: str = "quintic",
) -> Tensor:
    """Orthogonalize each matrix of a stack of shape (..., a, b): U S V^T becomes U q(S) V^T with q near 1.

    X_0 = X / (h (||X||_F + eps));   X_{k+1} = a X_k + (b A + c A A) X_k  with  A = X_k X_k^T

    acts on each singular value s by s <- a s + b s^3 + c s^5. The ``quintic`` is one polynomial with h = 1: five steps
    move values in [0.002, 1] into [0.681, 1.203], multiply smaller ones by up to 3.4445^5 = 485, and go on moving them
    about in that band. ``polar_express`` has a polynomial for each step and h = 1.01: five steps move [0.002, 1] into
    [0.870, 1.124], and eight steps to 1. Tall matrices are iterated as their transposes. ``precision`` is that of the
    products: ``fp32`` (float64 input stays float64), ``tf32`` (`rounded_products`) or ``bf16``. The result has the
    dtype of the input. A zero matrix stays zero. Sources: Jordan et al. 2024, "Muon"; Amsel et al., arXiv 2505.16932,
    algorithm 1.
    """
    schedule = COEFFICIENTS[coefficients]
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).add_(eps).mul_(schedule.shrink)
    x = (x / norm).flatten(0, -3) if x.ndim > 2 else (x / norm).unsqueeze(0)
    if x.dtype != torch.float64 or precision == "bf16":
        x = x.to(PRECISIONS[precision])
    with rounded_products(precision, x.device):
        for step in range(steps):
            a, b, c = schedule.at(step)
            gram = torch.bmm(x, x.mT)
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype).reshape(matrices.mT.shape if tall else matrices.shape)
    return x.mT if tall else x


def shape_factors(shapes: Sequence[tuple[int, int]], like: Tensor) -> dict[str, Tensor]:
    """What an orthogonal update of each matrix (out, in) is multiplied with, by name, each as (n, 1, 1).

    ``spectral`` is sqrt(max(1, out / in)) (Jordan et al. 2024), ``match_rms`` is 0.2 sqrt(max(out, in)), which gives an
    update the root mean square of AdamW's (Liu et al., arXiv 2502.16982).
    """
    factors = {
        "spectral": [[[max(1.0, out / fan_in) ** 0.5]] for out, fan_in in shapes],
        "match_rms": [[[0.2 * max(out, fan_in) ** 0.5]] for out, fan_in in shapes],
    }
    return {key: torch.tensor(one, dtype=like.dtype, device=like.device) for key, one in factors.items()}
