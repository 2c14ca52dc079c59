"""The rules of the matrix family that need no factors: Muon and its kin, and AdamW with switches on hidden matrices.

Newton-Schulz is an inexact inner routine: it sends each singular value through odd polynomials that are given. That
map is exact, so the reference takes the same polynomials in float64.

The switches of matrix rules (`moved`, `rows_normalized`, `fallback`) are written after the papers that
`tuneopt.optim.switches` names, each as its text says. A switch that ``h`` does not name is off. Everything but hidden
matrices has a rule of the scalar family, at a rate of its own (`tuneopt.optim.reference.scalar`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuneopt.optim.reference import (
    Hyperparameters,
    Reference,
    Shape,
    State,
    but_flipped_signs,
    entries,
    scalar,
    zeros,
)

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Jordan et al. 2024: the same polynomial at every step."""

POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
"""Amsel et al., arXiv 2505.16932, algorithm 1: one after another, each for an argument divided by 1.01."""


def polynomial(coefficients: str, number: int) -> tuple[float, float, float]:
    """(a, b, c) of p(s) = a s + b s^3 + c s^5 in the step ``number``, counted from 0."""
    if coefficients == "quintic":
        return QUINTIC
    if number >= len(POLAR_EXPRESS):
        return 1.875, -1.25, 0.375  # what the sequence tends to; no more division
    a, b, c = POLAR_EXPRESS[number]
    return a / 1.01, b / 1.01**3, c / 1.01**5


def orthogonalized(matrix: Tensor, eps: float, h: Hyperparameters) -> Tensor:
    """U q(S) V^T for U S V^T = matrix (rows, columns) / (norm + eps), with q the polynomials one after another."""
    x: Tensor = matrix / ((matrix.norm() + eps) * (1.01 if h["ns_coefficients"] == "polar_express" else 1.0))
    for number in range(int(h["ns_steps"])):
        a, b, c = polynomial(h["ns_coefficients"], number)
        # s -> a s + b s^3 + c s^5, with the Gram matrix on the short side.
        if x.shape[0] <= x.shape[1]:
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        else:
            gram = x.mT @ x
            x = a * x + x @ (b * gram + c * gram @ gram)
    return x


def scale(shape: Shape, h: Hyperparameters) -> float:
    """sqrt(max(1, out / in)) of a matrix (out, in), or 0.2 sqrt(max(out, in))."""
    if h.get("scale") == "match_rms":
        return 0.2 * math.sqrt(max(shape))
    return math.sqrt(max(1.0, shape[0] / shape[1]))


def orthogonal_bound(h: Hyperparameters) -> float:
    """Products in fp32 err by 6e-6; those in bf16 by 0.05 to 0.13, more in larger matrices; in TF32 by an eighth of it.

    A small singular value, and the rounding that it drowns in, grows up to 485-fold (`QUINTIC`, five steps).
    """
    return {"fp32": 1e-3, "tf32": 0.04, "bf16": 0.3}[h["ns_precision"]]


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
    """v <- b v + (1 - b) mean(u^2), a number for each row; u / (sqrt(v) + 1e-10) at the norm of u.

    Rows keep the norm of the whole, as in the released code of NorMuon (Li et al., arXiv 2510.05491).
    """
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


def matrix_adamw(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW's update, applied as the switches say.

    AdamH after Wen et al., arXiv 2606.16899 (``hyperball``); AdamC after Defazio, arXiv 2506.02285
    (``decay_follows_lr``).
    """
    m, v = scalar.moments(g, state, h)
    after, more = moved(p, scalar.adam_direction(m, v, step, h), state, step, h)
    return after, {"m": m, "v": v, **more}


def adamw_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW at the rate of the matrices, or at one of its own (`fallback`)."""
    return scalar.adamw(p, g, state, step, fallback(h))


def momentum(shape: Shape, h: Hyperparameters) -> State:
    """The momentum: a sum, for Scion an average."""
    return {"momentum": zeros(shape)}


def muon(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Muon after Jordan et al. 2024 ("Muon: an optimizer for hidden layers"), as in the study (arXiv 2509.02046).

    M <- mu M + G;  p <- p - lr (scale NS(mu M + G) + wd p)
    """
    momentum = h["momentum"] * state["momentum"] + g
    nesterov = h["momentum"] * momentum + g
    direction = scale(p.shape, h) * orthogonalized(nesterov, h["muon_epsilon"], h)
    direction, rows = rows_normalized(direction, state, h)
    after, more = moved(p, direction, state, step, h)
    return after, {"momentum": momentum, **rows, **more}


def muon_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW at ``muon_to_adam_lr`` times the rate, decay included."""
    return scalar.adamw(p, g, state, step, fallback(h, h["muon_to_adam_lr"]))


def scion(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Scion after Pethick et al., arXiv 2502.07529 (unconstrained, averaged momentum), as in the study.

    M <- mu M + (1 - mu) G;  p <- p - lr (scale NS(M) + wd p)
    """
    momentum = h["momentum"] * state["momentum"] + (1 - h["momentum"]) * g
    direction = scale(p.shape, h) * orthogonalized(momentum, h["scion_epsilon"], h)
    direction, rows = rows_normalized(direction, state, h)
    after, more = moved(p, direction, state, step, h)
    return after, {"momentum": momentum, **rows, **more}


def signum(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """m <- beta1 m + (1 - beta1) g;  p <- p - lr' (sign(m) + wd p), with lr' = ``scion_to_signum_lr`` lr."""
    momentum = h["beta1"] * state["momentum"] + (1 - h["beta1"]) * g
    own = fallback(h, h["scion_to_signum_lr"])
    return scalar.decayed(p, momentum.sign(), own), {"momentum": momentum}


def dion(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Dion after Ahn et al., arXiv 2512.16928: Newton-Schulz on rows of the momentum, which alone decay then.

    M <- M + G;  u = scale NS(M_K) in the rows K of the short side;  M_K <- mu M_K

    K are the rows with the largest sums of absolute values. They are decided by sums in another precision than the
    optimizer's: two rows whose sums agree to 1e-7 could be exchanged; the next row of a momentum is usually a
    hundredth away.
    """
    tall = p.shape[0] > p.shape[1]
    gathered = state["momentum"] + g
    rows = gathered.mT if tall else gathered  # a view
    chosen = rows.abs().sum(dim=1).topk(math.ceil(h["fraction"] * len(rows))).indices
    direction, kept = torch.zeros_like(rows), rows.clone()
    direction[chosen] = scale(p.shape, h) * orthogonalized(rows[chosen], h["dion_epsilon"], h)
    kept[chosen] *= h["momentum"]
    if tall:
        direction, kept = direction.mT, kept.mT
    after, more = moved(p, direction, state, step, h)
    return after, {"momentum": kept, **more}


def dion_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW at ``dion_to_adam_lr`` times the rate, decay included."""
    return scalar.adamw(p, g, state, step, fallback(h, h["dion_to_adam_lr"]))


def averaged_momentum(shape: Shape, h: Hyperparameters) -> State:
    """The momentum and the sum of squared rates; z begins as the first y."""
    return {"momentum": zeros(shape), "z": None, "sum": 0.0}


def sf_muon(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """SF-Muon after Apte et al., arXiv 2605.23061, algorithm 1, with Muon's update for rows that are evened.

    z takes Muon's step and decays, x averages z with weights lr^2, and y lies between them. p is y, and x follows from
    y and z.
    """
    beta, rate = h["beta1"], h["learning_rate"]
    z = p if state["z"] is None else state["z"]
    x = (p - (1 - beta) * z) / beta
    momentum = h["momentum"] * state["momentum"] + g
    direction = orthogonalized(h["momentum"] * momentum + g, h["muon_epsilon"], h)
    direction, rows = rows_normalized(scale(p.shape, h) * direction, state, h)
    z = (1 - rate * h["weight_decay"]) * z - rate * direction
    total = state["sum"] + rate**2
    c = rate**2 / total if total > 0 else 0.0
    x = x + c * (z - x)
    return (1 - beta) * z + beta * x, {"momentum": momentum, "z": z, "sum": total, **rows}


def sf_muon_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """Schedule-Free AdamW at ``muon_to_adam_lr`` times the rate, decay included."""
    return scalar.schedule_free(p, g, state, step, fallback(h, h["muon_to_adam_lr"]))


RULES = {
    "adamh": {
        "adamw_matrix": Reference(scalar.two_moments, matrix_adamw),
        "adamw": Reference(scalar.two_moments, adamw_rest, part=entries),
    },
    "muon": {
        "muon": Reference(momentum, muon, orthogonal_bound, clipped=lambda h: False),
        "adamw": Reference(scalar.two_moments, muon_rest, part=entries),
    },
    "scion": {
        "scion": Reference(momentum, scion, orthogonal_bound, clipped=lambda h: False),
        "signum": Reference(momentum, signum, part=entries, determined=but_flipped_signs),
    },
    "dion": {
        "dion": Reference(momentum, dion, orthogonal_bound, clipped=lambda h: False),
        "adamw": Reference(scalar.two_moments, dion_rest, part=entries),
    },
    "sf_muon": {
        "sf_muon": Reference(averaged_momentum, sf_muon, orthogonal_bound, clipped=lambda h: False),
        "schedule_free": Reference(scalar.averaging, sf_muon_rest, part=entries),
    },
}
