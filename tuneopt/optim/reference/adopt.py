"""ADOPT after Taniguchi et al., arXiv 2411.02853, algorithm 2 (clipped), with decoupled decay."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, State, adamw, entries


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """The first step sets v = g^2. Then g over the root of the v before, cut off at (t - 1)^(1/4), is averaged."""
    if step == 1:
        return p - h["learning_rate"] * h["weight_decay"] * p, {"m": state["m"], "v": g**2}
    normed = g / state["v"].sqrt().clamp(min=h["epsilon"])
    limit = (step - 1) ** 0.25
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * normed.clamp(-limit, limit)
    v = h["beta2"] * state["v"] + (1 - h["beta2"]) * g**2
    return p - h["learning_rate"] * (m + h["weight_decay"] * p), {"m": m, "v": v}


RULES = {"adopt": Reference(adamw.init, update, part=entries, steps=lambda h: 5)}
