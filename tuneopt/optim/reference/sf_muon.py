"""SF-Muon after Apte et al., arXiv 2605.23061, algorithm 1, with Muon's update (arXiv 2509.02046) in the place of rows
that are evened; everything but hidden matrices has Schedule-Free AdamW. p is y, and x follows from y and z.
"""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, entries, muon, schedule_free, zeros
from tuneopt.optim.reference.switches import fallback, rows_normalized


def init(shape: Shape, h: Hyperparameters) -> State:
    """The momentum and the sum of squared rates; z begins as the first y."""
    return {"momentum": zeros(shape), "z": None, "sum": 0.0}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """z takes Muon's step and decays, x averages z with weights lr^2, and y lies between them."""
    beta, rate = h["beta1"], h["learning_rate"]
    z = p if state["z"] is None else state["z"]
    x = (p - (1 - beta) * z) / beta
    momentum = h["momentum"] * state["momentum"] + g
    direction = muon.orthogonalized(h["momentum"] * momentum + g, h["muon_epsilon"], h)
    direction, rows = rows_normalized(muon.scale(p.shape, h) * direction, state, h)
    z = (1 - rate * h["weight_decay"]) * z - rate * direction
    total = state["sum"] + rate**2
    c = rate**2 / total if total > 0 else 0.0
    x = x + c * (z - x)
    return (1 - beta) * z + beta * x, {"momentum": momentum, "z": z, "sum": total, **rows}


def update_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Schedule-Free AdamW at ``muon_to_adam_lr`` times the rate, decay included."""
    return schedule_free.update(p, g, state, step, fallback(h, h["muon_to_adam_lr"]))


RULES = {
    "sf_muon": Reference(init, update, muon.bound, clipped=lambda h: False),
    "schedule_free": Reference(schedule_free.init, update_rest, part=entries),
}
