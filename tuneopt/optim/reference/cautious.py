"""Cautious AdamW after Liang et al., arXiv 2411.16085, algorithm 2; eps is added to the mean of the mask as well, as in
the study (arXiv 2509.02046)."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, State
from tuneopt.optim.reference.adamw import init, moments


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """u = AdamW's direction;  mask = [u g > 0];  p <- p - lr (u mask / (mean(mask) + eps) + wd p).

    The mean is over the whole tensor, so no part of it can be followed alone.
    """
    m, v = moments(g, state, h)
    m_hat, v_hat = m / (1 - h["beta1"] ** step), v / (1 - h["beta2"] ** step)
    u = m_hat / (v_hat.sqrt() + h["epsilon"])
    mask = (u.sign() * g.sign() > 0).double()
    direction = u * mask / (mask.mean() + h["epsilon"])
    return p - h["learning_rate"] * (direction + h["weight_decay"] * p), {"m": m, "v": v}


RULES = {"cautious": Reference(init, update)}
