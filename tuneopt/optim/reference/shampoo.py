"""Distributed Shampoo after Shi et al., arXiv 2309.06497, algorithms 1 and 2, with AdamW's size of an update and an
epsilon that is a share of the largest eigenvalue (Anil et al., arXiv 2002.09018), block by block; everything but hidden
matrices has AdamW.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, entries, matrix, scalar, zeros
from tuneopt.optim.reference.soap import blocks, corner, steps


def init(shape: Shape, h: Hyperparameters) -> State:
    """Both moments, and for each block its factors and their roots."""
    sizes = [zeros(shape)[place].shape for place in blocks(shape, h["block_size"])]
    factors = [(zeros((r, r)), zeros((c, c))) for r, c in sizes]
    return {**scalar.two_moments(shape, h), "factors": factors, "roots": factors}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """p <- p - lr (u + wd p), where u of a block is P m Q with the norm of AdamW's direction there."""
    m, v = scalar.moments(g, state, h)
    m_hat, direction = m / (1 - h["beta1"] ** step), scalar.adam_direction(m, v, step, h)
    factors, roots = [], []
    for place, (left, right), known in zip(
        blocks(tuple(p.shape), h["block_size"]), state["factors"], state["roots"], strict=True
    ):
        left = h["beta2"] * left + (1 - h["beta2"]) * g[place] @ g[place].mT
        right = h["beta2"] * right + (1 - h["beta2"]) * g[place].mT @ g[place]
        if due(step, int(h["precondition_frequency"])):
            corrected = (factor / (1 - h["beta2"] ** step) for factor in (left, right))
            known = tuple(inverse_root(factor, h) for factor in corrected)
        u = known[0] @ m_hat[place] @ known[1]
        size = direction[place].norm() / u.norm() if u.any() else 0.0
        direction[place] = size * u
        factors.append((left, right))
        roots.append(known)
    after, _ = matrix.moved(p, direction, state, step, h)
    return after, {"m": m, "v": v, "factors": factors, "roots": roots}


def due(step: int, frequency: int) -> bool:
    """Whether roots are computed: every ``frequency`` steps, and after 1, 2, 4, 8, ... steps until the first time."""
    return step % frequency == 0 or step in [2**k for k in range(frequency.bit_length()) if 2**k < frequency]


def inverse_root(factor: Tensor, h: Hyperparameters) -> Tensor:
    """(F + e max(eigenvalues) I)^-x."""
    largest = torch.linalg.matrix_norm(factor, 2)
    values, vectors = torch.linalg.eigh(factor + h["shampoo_epsilon"] * largest * torch.eye(len(factor)).to(factor))
    root: Tensor = (vectors / values.clamp(min=1e-40) ** h["exponent"]) @ vectors.mT
    return root


def bound(h: Hyperparameters) -> float:
    """Rounding of a factor in fp32, about 1e-9 of its largest eigenvalue, beside what is added to its eigenvalues.

    Measured at nano-65k: 2e-5 at epsilon 1e-4, 2e-3 at 1e-6, 0.015 at 1e-7.
    """
    return 1e-3 + 1e-8 / float(h["shampoo_epsilon"])


RULES = {
    "shampoo": {
        "shampoo": Reference(init, update, bound, part=corner, steps=steps),
        "adamw": Reference(scalar.two_moments, matrix.adamw_rest, part=entries),
    }
}
