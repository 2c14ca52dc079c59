"""The rules of the scalar family: AdamW and what varies it, and the rules that take a sign.

Where no entry sees another, a sample of entries is followed (`entries`). Each function says its source in its
docstring; decay is decoupled throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from tuneopt.optim.reference import (
    SAMPLE,
    Hyperparameters,
    Joint,
    Reference,
    Shape,
    State,
    but_flipped_signs,
    entries,
    zeros,
)


def two_moments(shape: Shape, h: Hyperparameters) -> State:
    """Both moments of AdamW, shaped as the parameter."""
    return {"m": zeros(shape), "v": zeros(shape)}


def moments(g: Tensor, state: State, h: Hyperparameters) -> tuple[Tensor, Tensor]:
    """m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2."""
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * g
    v = h["beta2"] * state["v"] + (1 - h["beta2"]) * g**2
    return m, v


def adam_direction(m: Tensor, v: Tensor, step: int, h: Hyperparameters) -> Tensor:
    """m_hat / (sqrt(v_hat) + eps), with m_hat = m / (1 - beta1^t), v_hat = v / (1 - beta2^t)."""
    u: Tensor = m / (1 - h["beta1"] ** step) / ((v / (1 - h["beta2"] ** step)).sqrt() + h["epsilon"])
    return u


def decayed(p: Tensor, direction: Tensor, h: Hyperparameters) -> Tensor:
    """p <- p - lr (u + wd p)."""
    after: Tensor = p - h["learning_rate"] * (direction + h["weight_decay"] * p)
    return after


def adamw(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW after Loshchilov and Hutter, arXiv 1711.05101, algorithm 2."""
    m, v = moments(g, state, h)
    return decayed(p, adam_direction(m, v, step, h), h), {"m": m, "v": v}


def nadamw(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """NAdamW after Dozat 2016 (ICLR workshop, algorithm 8) with a constant momentum.

    u = (beta1 m / (1 - beta1^(t+1)) + (1 - beta1) g / (1 - beta1^t)) / (sqrt(v_hat) + eps)

    The look-ahead is taken literally: the first moment that the next step would have if it brought a zero gradient,
    plus what the present gradient is worth, each over its own bias correction. With ``bias_correction`` "same" the
    first of the two corrections counts t as well.
    """
    m, v = moments(g, state, h)
    ahead = step + 1 if h["bias_correction"] == "next" else step
    next_m_hat = h["beta1"] * m / (1 - h["beta1"] ** ahead)
    g_hat = (1 - h["beta1"]) * g / (1 - h["beta1"] ** step)
    v_hat = v / (1 - h["beta2"] ** step)
    return decayed(p, (next_m_hat + g_hat) / (v_hat.sqrt() + h["epsilon"]), h), {"m": m, "v": v}


def adopt(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """ADOPT after Taniguchi et al., arXiv 2411.02853, algorithm 2 (clipped).

    The first step sets v = g^2. Then g over the root of the v before, cut off at (t - 1)^(1/4), is averaged.
    """
    if step == 1:
        return p - h["learning_rate"] * h["weight_decay"] * p, {"m": state["m"], "v": g**2}
    normed = g / state["v"].sqrt().clamp(min=h["epsilon"])
    limit = (step - 1) ** 0.25
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * normed.clamp(-limit, limit)
    v = h["beta2"] * state["v"] + (1 - h["beta2"]) * g**2
    return decayed(p, m, h), {"m": m, "v": v}


def with_slow_moment(shape: Shape, h: Hyperparameters) -> State:
    """AdamW's moments, and the slow first moment of AdEMAMix."""
    return {**two_moments(shape, h), "slow": zeros(shape)}


def ademamix_schedulers(step: int, h: Hyperparameters) -> tuple[float, float]:
    """alpha(t) = min(t alpha / T, alpha), and beta3(t), whose half-life rises in proportion to t."""
    total = h["slow_warmup"] * h["steps"]
    if total == 0 or step >= total:
        return h["alpha"], h["beta3"]

    def half_life(beta: float) -> float:
        return math.log(0.5) / math.log(beta)

    t = step / total
    between = (1 - t) * half_life(h["beta1"]) + t * half_life(h["beta3"])
    return t * h["alpha"], min(0.5 ** (1 / between), h["beta3"])


def ademamix(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdEMAMix after Pagliardini et al., arXiv 2409.03137, algorithm 1 and equations of its two schedulers.

    n <- beta3(t) n + (1 - beta3(t)) g;  u = (m_hat + alpha(t) n) / (sqrt(v_hat) + eps)
    """
    m, v = moments(g, state, h)
    alpha, beta3 = ademamix_schedulers(step, h)
    slow = beta3 * state["slow"] + (1 - beta3) * g
    m_hat, v_hat = m / (1 - h["beta1"] ** step), v / (1 - h["beta2"] ** step)
    direction = (m_hat + alpha * slow) / (v_hat.sqrt() + h["epsilon"])
    return decayed(p, direction, h), {"m": m, "v": v, "slow": slow}


def with_last_gradient(shape: Shape, h: Hyperparameters) -> State:
    """AdamW's moments, and the gradient of the step before, for MARS."""
    return {**two_moments(shape, h), "previous": zeros(shape)}


def mars_corrected(g: Tensor, state: State, h: Hyperparameters) -> tuple[Tensor, State]:
    """c = g + gamma beta1 / (1 - beta1) (g - g_previous), which is clipped in the place of the gradient."""
    strength = h["gamma"] * h["beta1"] / (1 - h["beta1"])
    return g + strength * (g - state["previous"]), {**state, "previous": g}


def mars(p: Tensor, c: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """MARS-AdamW after Yuan et al., arXiv 2411.10438, algorithm 2 in its approximate form: AdamW on c.

    Approximate: the gradient before is the one of the batch before, not of the batch of today at the weights before.
    """
    after, moved = adamw(p, c, state, step, h)
    return after, {**moved, "previous": state["previous"]}


def cautious(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Cautious AdamW after Liang et al., arXiv 2411.16085, algorithm 2.

    u = AdamW's direction;  mask = [u g > 0];  p <- p - lr (u mask / (mean(mask) + eps) + wd p)

    Eps is added to the mean of the mask as in the study (arXiv 2509.02046). The mean is over the whole tensor, so no
    part of it can be followed alone.
    """
    m, v = moments(g, state, h)
    u = adam_direction(m, v, step, h)
    mask = (u.sign() * g.sign() > 0).double()
    return decayed(p, u * mask / (mask.mean() + h["epsilon"]), h), {"m": m, "v": v}


def row_moments(shape: Shape, h: Hyperparameters) -> State:
    """The first moment (rows, columns), and a second moment for each row; rows of one block have equal ones."""
    return {"m": zeros(shape), "v": zeros((shape[0], 1))}


def blockwise(
    mean_square: Tensor, p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters
) -> tuple[Tensor, State]:
    """Adam-mini after Zhang et al., arXiv 2406.16793, algorithm 1: AdamW with ``mean_square`` (rows, 1) for g^2.

    All entries of a block share one second moment, the mean of the squared gradient over the block. Blocks are those
    of the study (arXiv 2509.02046): a row, that is an output neuron or a token; in query and key projections the rows
    of one head.
    """
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * g
    v = h["beta2"] * state["v"] + (1 - h["beta2"]) * mean_square
    return decayed(p, adam_direction(m, v, step, h), h), {"m": m, "v": v}


def adam_mini(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """One block for each row."""
    return blockwise((g**2).mean(dim=1, keepdim=True), p, g, state, step, h)


def adam_mini_heads(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """One block for each of ``heads`` heads; one for each row where their number is unknown (0)."""
    heads = int(h["heads"]) or g.shape[0]
    mean_square = (g**2).reshape(heads, -1).mean(dim=1)  # (heads,)
    return blockwise(mean_square.repeat_interleave(g.shape[0] // heads)[:, None], p, g, state, step, h)


def rows(tensor: Tensor, h: Hyperparameters) -> Tensor:
    """Whole rows, evenly spaced."""
    return tensor[:: max(1, tensor.numel() // SAMPLE)]


def clips_matrices(h: Hyperparameters) -> bool:
    """Adam-mini clips matrices only where ``clipped`` says all; vectors always are."""
    return bool(h["clipped"] == "all")


def one_moment(shape: Shape, h: Hyperparameters) -> State:
    """The momentum of Lion."""
    return {"m": zeros(shape)}


def lion(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Lion after Chen et al., arXiv 2302.06675, algorithm 2.

    p <- p - lr (sign(beta1 m + (1 - beta1) g) + wd p);  then m <- beta2 m + (1 - beta2) g
    """
    direction = (h["beta1"] * state["m"] + (1 - h["beta1"]) * g).sign()
    m = h["beta2"] * state["m"] + (1 - h["beta2"]) * g
    return decayed(p, direction, h), {"m": m}


def prodigy(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Prodigy after Mishchenko and Defazio, arXiv 2306.06101, algorithm 4, with decay at the rate lr d.

    Moments of d g, then p <- p - lr d (m / (sqrt(v) + d eps) + wd p); d of this step is ``h["joint"]``.
    """
    d = h["joint"]
    m, v = moments(d * g, state, h)
    direction = m / (v.sqrt() + d * h["epsilon"])
    return p - h["learning_rate"] * d * (direction + h["weight_decay"] * p), {"m": m, "v": v}


def distance_terms(p: Tensor, g: Tensor, state: State, h: Hyperparameters) -> tuple[State, tuple[float, float]]:
    """s of these entries, and what they add to lr d^2 <g, x_0 - x> and to the 1-norm of s."""
    initial = state.get("initial", p)
    weight = (1 - h["beta2"] ** 0.5) * h["learning_rate"] * h["joint"] ** 2
    s = h["beta2"] ** 0.5 * state.get("s", 0.0) + weight * g
    return {"initial": initial, "s": s}, (weight * float((g * (initial - p)).sum()), float(s.abs().sum()))


def distance_value(before: State, sums: Sequence[float], h: Hyperparameters) -> State:
    """r <- sqrt(beta2) r + what all parameters add, and d <- max(d, r / ||s||_1)."""
    added, norm = sums
    r = h["beta2"] ** 0.5 * before["r"] + added
    return {"r": r, "joint": max(before["joint"], r / norm) if norm > 0 else before["joint"]}


DISTANCE = Joint(lambda h: {"r": 0.0, "joint": h["initial_distance"]}, distance_terms, distance_value, count=2)
"""Prodigy's d."""


def averaging(shape: Shape, h: Hyperparameters) -> State:
    """The second moment and the sum of squared rates; z begins as the first y."""
    return {"v": zeros(shape), "z": None, "sum": 0.0}


def schedule_free(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Schedule-Free AdamW after Defazio et al., arXiv 2405.15682, with decay at y; p is y, x follows from y and z.

    z takes AdamW's step without momentum, x averages z with weights lr^2, and y lies between them.
    """
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


def with_hessian(shape: Shape, h: Hyperparameters) -> State:
    """The momentum of Sophia, and the average of its estimates."""
    return {"m": zeros(shape), "hessian": zeros(shape)}


def sophia(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Sophia-H after Liu et al., arXiv 2305.14342, algorithm 3.

    m <- beta1 m + (1 - beta1) g;  p <- p - lr (clip(m_hat / max(gamma h, eps), -1, 1) + wd p)

    Order and corrections are those of the study (arXiv 2509.02046): an estimate of the Hessian's diagonal is made
    after a step and counts from the next one on.
    """
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * g
    newton = m / (1 - h["beta1"] ** step) / (h["gamma"] * state["hessian"]).clamp(min=h["epsilon"])
    return decayed(p, newton.clamp(-1, 1), h), {**state, "m": m}


def average_hessian(estimate: Tensor, state: State, h: Hyperparameters) -> State:
    """h <- beta2 h + (1 - beta2) estimate, without bias correction."""
    return {**state, "hessian": h["beta2"] * state["hessian"] + (1 - h["beta2"]) * estimate}


def hessian_steps(h: Hyperparameters) -> int:
    """Three, and the one after the first estimate where that is near."""
    return h["hessian_interval"] + 1 if h["hessian_interval"] <= 16 else 3


ADAMW = Reference(two_moments, adamw, part=entries)

RULES = {
    "adamw": {"adamw": ADAMW},
    "nadamw": {"nadamw": Reference(two_moments, nadamw, part=entries)},
    "adopt": {"adopt": Reference(two_moments, adopt, part=entries, steps=lambda h: 5)},
    "ademamix": {"ademamix": Reference(with_slow_moment, ademamix, part=entries)},
    "mars": {"mars": Reference(with_last_gradient, mars, part=entries, prepare=mars_corrected)},
    "cautious": {"cautious": Reference(two_moments, cautious)},
    "adam_mini": {
        "adam_mini": Reference(row_moments, adam_mini, part=rows, clipped=clips_matrices),
        "adam_mini_heads": Reference(row_moments, adam_mini_heads, clipped=clips_matrices),
        "adamw": ADAMW,
    },
    "lion": {"lion": Reference(one_moment, lion, part=entries, determined=but_flipped_signs)},
    "prodigy": {"prodigy": Reference(two_moments, prodigy, part=entries, joint=DISTANCE)},
    "schedule_free": {"schedule_free": Reference(averaging, schedule_free, part=entries)},
    "sophia": {
        "sophia": Reference(
            with_hessian,
            sophia,
            part=entries,
            determined=but_flipped_signs,
            hessian=average_hessian,
            steps=hessian_steps,
        )
    },
}
