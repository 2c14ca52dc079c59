"""AdamW after Loshchilov and Hutter, arXiv 1711.05101, algorithm 2."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, entries, zeros


def init(shape: Shape, h: Hyperparameters) -> State:
    """Both moments, shaped as the parameter."""
    return {"m": zeros(shape), "v": zeros(shape)}


def moments(g: Tensor, state: State, h: Hyperparameters) -> tuple[Tensor, Tensor]:
    """m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2."""
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * g
    v = h["beta2"] * state["v"] + (1 - h["beta2"]) * g**2
    return m, v


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """p <- p - lr (m_hat / (sqrt(v_hat) + eps) + wd p), with m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t)."""
    m, v = moments(g, state, h)
    m_hat = m / (1 - h["beta1"] ** step)
    v_hat = v / (1 - h["beta2"] ** step)
    direction = m_hat / (v_hat.sqrt() + h["epsilon"])
    return p - h["learning_rate"] * (direction + h["weight_decay"] * p), {"m": m, "v": v}


RULES = {"adamw": Reference(init, update, part=entries)}
