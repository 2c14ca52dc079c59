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


def fit_triangular(left: Tensor, right: Tensor, gradients: Tensor, probe: Tensor, *, lr: float, balance: bool) -> None:
    """One fit of upper triangular factors (n, r, r) and (n, c, c) to blocks G (n, r, c), in place.

    A = L G R^T;   B = L^-T V R^-1
    L <- L - lr triu(A A^T - B B^T) L / ||A A^T + B B^T||;   R <- R - lr triu(A^T A - B^T B) R / ||A^T A + B^T B||
    """
    if balance:
        highs = [factor.abs().amax(dim=(1, 2), keepdim=True) for factor in (left, right)]
        middle = (highs[0] * highs[1]).sqrt()
        left.mul_(middle / highs[0])
        right.mul_(middle / highs[1])
    seen = torch.bmm(torch.bmm(left, gradients), right.mT)
    drawn = torch.linalg.solve_triangular(left.mT, probe, upper=False)
    drawn = torch.linalg.solve_triangular(right, drawn, upper=True, left=False)
    for factor, a, b in ((left, seen, drawn), (right, seen.mT, drawn.mT)):
        moment, drawn_moment = torch.bmm(a, a.mT), torch.bmm(b, b.mT)
        rate = lr / (norm_lower_bound(moment + drawn_moment) + torch.finfo(moment.dtype).tiny)
        factor.sub_(torch.bmm(moment.sub_(drawn_moment).triu_().mul_(rate), factor))


def fit_diagonal(left: Tensor, right: Tensor, gradients: Tensor, probe: Tensor, *, lr: float, balance: bool) -> None:
    """One fit of diagonal factors (n, r) and (n, c) to matrices G (n, r, c), in place; c = 0 is no right factor.

    As `fit_triangular`, with diagonals in place of triangles; the norm of a diagonal is its largest entry.
    """
    two_sided = right.shape[1] > 0
    if balance and two_sided:
        highs = [factor.abs().amax(dim=1, keepdim=True) for factor in (left, right)]
        middle = (highs[0] * highs[1]).sqrt()
        left.mul_(middle / highs[0])
        right.mul_(middle / highs[1])
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
