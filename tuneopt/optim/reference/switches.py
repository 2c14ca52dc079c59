"""The switches of matrix rules once more, after the papers that `tuneopt.optim.switches` names, each as its text says.

Rows keep the norm of the whole, as in the released code of NorMuon. A switch that ``h`` does not name is off.
"""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, State


def moved(p: Tensor, u: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """The parameter after the update u of its rule, and what is to be added to the state.

    p <- p - lr (u + wd p); with hyperball p <- R n(p - lr R n(u)), where R is the norm that it began with.
    """
    rate, decay = h["learning_rate"], h["weight_decay"]
    if h.get("hyperball"):
        radius = p.norm() if step == 1 else state["radius"]
        away = p - rate * radius * u / u.norm() if u.any() else p
        return radius * away / away.norm() if rate else p, {"radius": radius}
    if h.get("decay_follows_lr"):
        decay = decay * h["schedule"]
    shrinking = p * (u * p >= 0) if h.get("cautious_decay") else p
    return p - rate * (u + decay * shrinking), {}


def rows_normalized(u: Tensor, state: State, h: Hyperparameters) -> tuple[Tensor, State]:
    """v <- b v + (1 - b) mean(u^2), a number for each row; u / (sqrt(v) + 1e-10) at the norm of u."""
    beta = h.get("row_normalize", 0)
    if not beta:
        return u, {}
    v = beta * state.get("rows", 0) + (1 - beta) * (u**2).mean(dim=1, keepdim=True)
    even = u / (v.sqrt() + 1e-10)
    return (even * u.norm() / even.norm() if u.any() else u), {"rows": v}


def fallback(h: Hyperparameters, ratio: float = 1.0) -> Hyperparameters:
    """The hyperparameters of the fallback rule: at ``ratio`` times the rate, or with a rate and a decay of its own."""
    rate, decay = ratio * h["learning_rate"], h["weight_decay"]
    if h.get("fallback_learning_rate") is not None:
        rate = h["fallback_learning_rate"] * h["schedule"]
    if h.get("fallback_weight_decay") is not None:
        decay = h["fallback_weight_decay"] if h["decays"] else 0.0
    return {**h, "learning_rate": rate, "weight_decay": decay}
