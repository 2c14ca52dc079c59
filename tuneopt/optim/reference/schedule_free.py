"""Schedule-Free AdamW after Defazio et al., arXiv 2405.15682, with decay at y; p is y, and x follows from y and z."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, entries, zeros


def init(shape: Shape, h: Hyperparameters) -> State:
    """The second moment and the sum of squared rates; z begins as the first y."""
    return {"v": zeros(shape), "z": None, "sum": 0.0}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """z takes AdamW's step without momentum, x averages z with weights lr^2, and y lies between them."""
    beta, rate = h["beta1"], h["learning_rate"]
    z = p if state["z"] is None else state["z"]
    x = (p - (1 - beta) * z) / beta
    v = h["beta2"] * state["v"] + (1 - h["beta2"]) * g**2
    v_hat = v / (1 - h["beta2"] ** step)
    z = z - rate * (g / (v_hat.sqrt() + h["epsilon"]) + h["weight_decay"] * p)
    total = state["sum"] + rate**2
    c = rate**2 / total if total > 0 else 0.0
    x = (1 - c) * x + c * z
    return (1 - beta) * z + beta * x, {"v": v, "z": z, "sum": total}


RULES = {"schedule_free": Reference(init, update, part=entries)}
