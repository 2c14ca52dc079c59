"""Muon after Jordan et al. 2024 ("Muon: an optimizer for hidden layers"), with the momentum sum and the scale of the
study (arXiv 2509.02046); everything but hidden matrices has AdamW.

Newton-Schulz is an inexact inner routine: it sends each singular value through odd polynomials that are given. That
map is exact, so the reference takes the same polynomials in float64.
"""

from __future__ import annotations

import math

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, adamw, entries, zeros
from tuneopt.optim.reference.switches import fallback, moved, rows_normalized

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


def bound(h: Hyperparameters) -> float:
    """Products in fp32 err by 6e-6; those in bf16 by 0.05 to 0.13, more in larger matrices; in TF32 by an eighth of it.

    A small singular value, and the rounding that it drowns in, grows up to 485-fold (`QUINTIC`, five steps).
    """
    return {"fp32": 1e-3, "tf32": 0.04, "bf16": 0.3}[h["ns_precision"]]


def init(shape: Shape, h: Hyperparameters) -> State:
    """The momentum, a sum."""
    return {"momentum": zeros(shape)}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """M <- mu M + G;  p <- p - lr (scale NS(mu M + G) + wd p)."""
    momentum = h["momentum"] * state["momentum"] + g
    nesterov = h["momentum"] * momentum + g
    direction = scale(p.shape, h) * orthogonalized(nesterov, h["muon_epsilon"], h)
    direction, rows = rows_normalized(direction, state, h)
    after, more = moved(p, direction, state, step, h)
    return after, {"momentum": momentum, **rows, **more}


def update_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW at ``muon_to_adam_lr`` times the rate, decay included."""
    return adamw.update(p, g, state, step, fallback(h, h["muon_to_adam_lr"]))


RULES = {
    "muon": Reference(init, update, bound, clipped=lambda h: False),
    "adamw": Reference(adamw.init, update_rest, part=entries),
}
