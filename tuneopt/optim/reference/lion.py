"""Lion after Chen et al., arXiv 2302.06675, algorithm 2."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, but_flipped_signs, entries, zeros


def init(shape: Shape, h: Hyperparameters) -> State:
    """The momentum."""
    return {"m": zeros(shape)}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """p <- p - lr (sign(beta1 m + (1 - beta1) g) + wd p);  then m <- beta2 m + (1 - beta2) g."""
    direction = (h["beta1"] * state["m"] + (1 - h["beta1"]) * g).sign()
    m = h["beta2"] * state["m"] + (1 - h["beta2"]) * g
    return p - h["learning_rate"] * (direction + h["weight_decay"] * p), {"m": m}


RULES = {"lion": Reference(init, update, part=entries, determined=but_flipped_signs)}
