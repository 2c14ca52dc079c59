"""Scion after Pethick et al., arXiv 2502.07529 (unconstrained, averaged momentum), in the form of the study (arXiv
2509.02046): hidden matrices by Newton-Schulz, everything else by the sign of an average."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, but_flipped_signs, entries, zeros
from tuneopt.optim.reference.muon import bound, orthogonalized, scale
from tuneopt.optim.reference.switches import fallback, moved, rows_normalized


def init(shape: Shape, h: Hyperparameters) -> State:
    """The momentum, an average."""
    return {"momentum": zeros(shape)}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """M <- mu M + (1 - mu) G;  p <- p - lr (scale NS(M) + wd p)."""
    momentum = h["momentum"] * state["momentum"] + (1 - h["momentum"]) * g
    direction = scale(p.shape, h) * orthogonalized(momentum, h["scion_epsilon"], h)
    direction, rows = rows_normalized(direction, state, h)
    after, more = moved(p, direction, state, step, h)
    return after, {"momentum": momentum, **rows, **more}


def update_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """m <- beta1 m + (1 - beta1) g;  p <- p - lr' (sign(m) + wd p), with lr' = ``scion_to_signum_lr`` lr."""
    momentum = h["beta1"] * state["momentum"] + (1 - h["beta1"]) * g
    own = fallback(h, h["scion_to_signum_lr"])
    return p - own["learning_rate"] * (momentum.sign() + own["weight_decay"] * p), {"momentum": momentum}


RULES = {
    "scion": Reference(init, update, bound, clipped=lambda h: False),
    "signum": Reference(init, update_rest, part=entries, determined=but_flipped_signs),
}
