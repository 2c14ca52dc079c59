"""Fitting Kronecker-factored preconditioners to gradients, as PSGD does: when, and one step of it.

A factor Q acts on one side of a gradient; the preconditioner is Q^T Q. Each fit looks at the gradient and at one
random probe V, and moves Q so that preconditioned gradients and probes, B = Q^-T V, get the same second moments.
Source: Li, arXiv 1512.04202 and 2211.04422; numbers as in the code of arXiv 2509.02046.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

ANNEALING = 1e-3
"""Rate per step at which the probability of a fit falls after its flat start."""

BALANCE_EVERY = 100
"""Fits between two balancings, which give the factors of a block one largest entry."""

DAMPING = float(torch.finfo(torch.float32).eps) ** 0.5
"""Share of the mean gradient entry that is added to the gradient along the probe."""

UPDATE_RMS = 1.1
"""Largest root mean square of a direction; above it the direction is scaled down."""

TINY = 1e-16
"""Added to the norm that a gradient is divided by."""


@lru_cache(maxsize=64)
def _numbers(probability: float, flat_start: int) -> tuple[list[int], list[int]]:
    """What `fit_number` knows so far: its answers from step 1 on, and [fits so far, steps since the last one]."""
    return [], [0, 0]


def fit_number(step: int, probability: float, flat_start: int) -> int:
    """The number, from 1, of the fit that falls on ``step`` (from 1), or 0 where none does.

    p(t) = clip(exp(-0.001 (t - flat_start)), probability, 1); a counter that grows by one each step starts again
    wherever it reaches 1 / p(t), and there is a fit. So it is a function of the step, with nothing to checkpoint.
    """
    known, tail = _numbers(probability, flat_start)
    while len(known) < step:
        chance = min(1.0, max(probability, math.exp(-ANNEALING * max(0, len(known) + 1 - flat_start))))
        tail[1] += 1
        due = tail[1] >= 1 / chance
        if due:
            tail[0], tail[1] = tail[0] + 1, 0
        known.append(tail[0] if due else 0)
    return known[step - 1]


def norm_lower_bound(matrices: Tensor) -> Tensor:
    """A lower bound, seldom off by more than sqrt(2), of the spectral norms of symmetric matrices (n, r, r); (n, 1, 1).

    Two products with a vector, from the column of largest norm.
    """
    largest = matrices.abs().amax(dim=(1, 2), keepdim=True)
    scaled = matrices / largest
    index = scaled.square().sum(dim=1).argmax(dim=1)  # (n,)
    column = scaled.gather(2, index.view(-1, 1, 1).expand(-1, matrices.shape[1], 1))  # (n, r, 1)
    image = torch.bmm(scaled, column)
    image = image / torch.linalg.vector_norm(image, dim=1, keepdim=True)
    bound = largest * torch.linalg.vector_norm(torch.bmm(scaled, image), dim=1, keepdim=True)
    return torch.where(largest > 0, bound, largest)


def balance_factors(left: Tensor, right: Tensor) -> None:
    """Give the factors (n, ...) of each block one largest entry, in place; their product, the preconditioner, stays.

    Fits leave the ratio of the two free, and it would drift until one of them over- or underflows.
    """
    highs = [factor.abs().flatten(1).amax(dim=1).view(-1, *[1] * (factor.ndim - 1)) for factor in (left, right)]
    middle = (highs[0] * highs[1]).sqrt()
    left.mul_(middle / highs[0])
    right.mul_(middle / highs[1])


def fit_triangular(
    left: Tensor,  # upper triangular L, (n, r, r), updated in place
    right: Tensor,  # upper triangular R, (n, c, c), updated in place
    gradients: Tensor,  # G, (n, r, c)
    probe: Tensor,  # V, (n, r, c)
    *,
    lr: float,
    balance: bool,
) -> None:
    """One fit of triangular factors.

    A = L G R^T;   B = L^-T V R^-1
    L <- L - lr triu(A A^T - B B^T) L / ||A A^T + B B^T||;   R <- R - lr triu(A^T A - B^T B) R / ||A^T A + B^T B||
    """
    if balance:
        balance_factors(left, right)
    seen = torch.bmm(torch.bmm(left, gradients), right.mT)
    drawn = torch.linalg.solve_triangular(left.mT, probe, upper=False)
    drawn = torch.linalg.solve_triangular(right, drawn, upper=True, left=False)
    for factor, a, b in ((left, seen, drawn), (right, seen.mT, drawn.mT)):
        moment, drawn_moment = torch.bmm(a, a.mT), torch.bmm(b, b.mT)
        rate = lr / (norm_lower_bound(moment + drawn_moment) + torch.finfo(moment.dtype).tiny)
        factor.sub_(torch.bmm(moment.sub_(drawn_moment).triu_().mul_(rate), factor))


def fit_diagonal(
    left: Tensor,  # diagonal of L, (n, r), updated in place
    right: Tensor,  # diagonal of R, (n, c), updated in place; c = 0 is no right factor
    gradients: Tensor,  # G, (n, r, c), or (n, r, 1) without a right factor
    probe: Tensor,  # V, as gradients
    *,
    lr: float,
    balance: bool,
) -> None:
    """One fit of diagonal factors: as `fit_triangular`, and the norm of a diagonal is its largest entry."""
    two_sided = right.shape[1] > 0
    if balance and two_sided:
        balance_factors(left, right)
    seen, drawn = gradients * left.unsqueeze(2), probe / left.unsqueeze(2)
    if two_sided:
        seen.mul_(right.unsqueeze(1))
        drawn.div_(right.unsqueeze(1))
    seen.square_()
    drawn.square_()
    for factor, side in ((left, 2), (right, 1))[: 1 + two_sided]:
        a, b = seen.sum(dim=side), drawn.sum(dim=side)
        high = (a + b).abs().amax(dim=1, keepdim=True) + torch.finfo(a.dtype).tiny
        factor.sub_((a - b).mul_(lr / high).mul_(factor))


def normalized(gradients: Tensor) -> Tensor:
    """Each matrix of a stack (n, a, b) divided by its Frobenius norm, in place; zero stays zero."""
    return gradients.div_(torch.linalg.vector_norm(gradients, dim=(1, 2), keepdim=True).add_(TINY))


def clip_rms(directions: Tensor, correction: float) -> Tensor:
    """Each matrix of a stack (n, a, b) divided by ``correction``, then brought to rms 1.1 where it exceeds that."""
    size = directions[0].numel() ** 0.5 * UPDATE_RMS
    rms = torch.linalg.vector_norm(directions, dim=(1, 2), keepdim=True).div_(size)
    return directions.div_(rms.clamp_(min=correction))
