"""AdEMAMix after Pagliardini et al., arXiv 2409.03137, algorithm 1 and equations of its two schedulers."""

from __future__ import annotations

import math

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, adamw, entries, zeros


def init(shape: Shape, h: Hyperparameters) -> State:
    """AdamW's moments, and the slow first moment."""
    return {**adamw.init(shape, h), "slow": zeros(shape)}


def schedulers(step: int, h: Hyperparameters) -> tuple[float, float]:
    """alpha(t) = min(t alpha / T, alpha), and beta3(t), whose half-life rises in proportion to t."""
    total = h["slow_warmup"] * h["steps"]
    if total == 0 or step >= total:
        return h["alpha"], h["beta3"]

    def half_life(beta: float) -> float:
        return math.log(0.5) / math.log(beta)

    t = step / total
    between = (1 - t) * half_life(h["beta1"]) + t * half_life(h["beta3"])
    return t * h["alpha"], min(0.5 ** (1 / between), h["beta3"])


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """p <- p - lr ((m_hat + alpha(t) n) / (sqrt(v_hat) + eps) + wd p)."""
    m, v = adamw.moments(g, state, h)
    alpha, beta3 = schedulers(step, h)
    slow = beta3 * state["slow"] + (1 - beta3) * g
    m_hat, v_hat = m / (1 - h["beta1"] ** step), v / (1 - h["beta2"] ** step)
    direction = (m_hat + alpha * slow) / (v_hat.sqrt() + h["epsilon"])
    after = p - h["learning_rate"] * (direction + h["weight_decay"] * p)
    return after, {"m": m, "v": v, "slow": slow}


RULES = {"ademamix": Reference(init, update, part=entries)}
