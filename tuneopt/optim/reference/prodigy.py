"""Prodigy after Mishchenko and Defazio, arXiv 2306.06101, algorithm 4, with decoupled decay at the rate lr d."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Joint, Reference, State, adamw, entries


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Moments of d g, then p <- p - lr d (m / (sqrt(v) + d eps) + wd p); d of this step is ``h["joint"]``."""
    d = h["joint"]
    m, v = adamw.moments(d * g, state, h)
    direction = m / (v.sqrt() + d * h["epsilon"])
    return p - h["learning_rate"] * d * (direction + h["weight_decay"] * p), {"m": m, "v": v}


def terms(p: Tensor, g: Tensor, state: State, h: Hyperparameters) -> tuple[State, tuple[float, float]]:
    """s of these entries, and what they add to lr d^2 <g, x_0 - x> and to the 1-norm of s."""
    initial = state.get("initial", p)
    weight = (1 - h["beta2"] ** 0.5) * h["learning_rate"] * h["joint"] ** 2
    s = h["beta2"] ** 0.5 * state.get("s", 0.0) + weight * g
    return {"initial": initial, "s": s}, (weight * float((g * (initial - p)).sum()), float(s.abs().sum()))


def value(before: State, sums: Sequence[float], h: Hyperparameters) -> State:
    """r <- sqrt(beta2) r + what all parameters add, and d <- max(d, r / ||s||_1)."""
    added, norm = sums
    r = h["beta2"] ** 0.5 * before["r"] + added
    return {"r": r, "joint": max(before["joint"], r / norm) if norm > 0 else before["joint"]}


DISTANCE = Joint(lambda h: {"r": 0.0, "joint": h["initial_distance"]}, terms, value, count=2)

RULES = {"prodigy": Reference(adamw.init, update, part=entries, joint=DISTANCE)}
