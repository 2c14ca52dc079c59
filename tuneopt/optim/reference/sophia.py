"""Sophia-H after Liu et al., arXiv 2305.14342, algorithm 3, with the order and the corrections of the study (arXiv
2509.02046): an estimate of the Hessian's diagonal is made after a step and counts from the next one on."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, but_flipped_signs, entries, zeros


def init(shape: Shape, h: Hyperparameters) -> State:
    """The momentum, and the average of the estimates."""
    return {"m": zeros(shape), "hessian": zeros(shape)}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """m <- beta1 m + (1 - beta1) g;  p <- p - lr (clip(m_hat / max(gamma h, eps), -1, 1) + wd p)."""
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * g
    newton = m / (1 - h["beta1"] ** step) / (h["gamma"] * state["hessian"]).clamp(min=h["epsilon"])
    direction = newton.clamp(-1, 1)
    return p - h["learning_rate"] * (direction + h["weight_decay"] * p), {**state, "m": m}


def averaged(estimate: Tensor, state: State, h: Hyperparameters) -> State:
    """h <- beta2 h + (1 - beta2) estimate, without bias correction."""
    return {**state, "hessian": h["beta2"] * state["hessian"] + (1 - h["beta2"]) * estimate}


def steps(h: Hyperparameters) -> int:
    """Three, and the one after the first estimate where that is near."""
    return h["hessian_interval"] + 1 if h["hessian_interval"] <= 16 else 3


RULES = {"sophia": Reference(init, update, part=entries, determined=but_flipped_signs, hessian=averaged, steps=steps)}
