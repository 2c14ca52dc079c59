"""Dion after Ahn et al., arXiv 2512.16928: Newton-Schulz on the rows of the momentum with the largest sums of absolute
values, which alone decay then; everything but hidden matrices has AdamW.

Which rows those are is decided by sums in another precision than the optimizer's. Two rows whose sums agree to 1e-7
could be exchanged; the next row of a momentum is usually a hundredth away.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, State, adamw, entries
from tuneopt.optim.reference.muon import bound, init, orthogonalized, scale
from tuneopt.optim.reference.switches import fallback, moved


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """M <- M + G;  u = scale NS(M_K) in the rows K of the short side;  M_K <- mu M_K."""
    tall = p.shape[0] > p.shape[1]
    gathered = state["momentum"] + g
    rows = gathered.mT if tall else gathered  # a view
    chosen = rows.abs().sum(dim=1).topk(math.ceil(h["fraction"] * len(rows))).indices
    direction, kept = torch.zeros_like(rows), rows.clone()
    direction[chosen] = scale(p.shape, h) * orthogonalized(rows[chosen], h["dion_epsilon"], h)
    kept[chosen] *= h["momentum"]
    if tall:
        direction, kept = direction.mT, kept.mT
    after, more = moved(p, direction, state, step, h)
    return after, {"momentum": kept, **more}


def update_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW at ``dion_to_adam_lr`` times the rate, decay included."""
    return adamw.update(p, g, state, step, fallback(h, h["dion_to_adam_lr"]))


RULES = {
    "dion": Reference(init, update, bound, clipped=lambda h: False),
    "adamw": Reference(adamw.init, update_rest, part=entries),
}
