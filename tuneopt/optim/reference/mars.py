"""MARS-AdamW after Yuan et al., arXiv 2411.10438, algorithm 2 in its approximate form: the gradient before is the one
of the batch before."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, adamw, entries, zeros


def init(shape: Shape, h: Hyperparameters) -> State:
    """AdamW's moments, and the gradient of the step before."""
    return {**adamw.init(shape, h), "previous": zeros(shape)}


def correct(g: Tensor, state: State, h: Hyperparameters) -> tuple[Tensor, State]:
    """c = g + gamma beta1 / (1 - beta1) (g - g_previous), which is clipped in the place of the gradient."""
    strength = h["gamma"] * h["beta1"] / (1 - h["beta1"])
    return g + strength * (g - state["previous"]), {**state, "previous": g}


def update(p: Tensor, c: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW on the corrected gradients."""
    after, moved = adamw.update(p, c, state, step, h)
    return after, {**moved, "previous": state["previous"]}


RULES = {"mars": Reference(init, update, part=entries, prepare=correct)}
