"""Kron, that is PSGD with Kronecker factors, after Li, arXiv 1512.04202 and 2211.04422, in the form of the study (arXiv
2509.02046): triangular factors for the blocks of hidden matrices, diagonal ones for every other tensor as a whole.

What a fit makes of gradient and random probe is computed here with dense inverses and plain products.
"""

from __future__ import annotations

import hashlib
import math
from functools import partial

import torch
from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, zeros
from tuneopt.optim.reference.matrix import fallback, moved
from tuneopt.optim.reference.soap import blocks

Factors = list[Tensor]
"""One factor for each side of a block: an upper triangular matrix, or a vector that stands for a diagonal one."""


def init(shape: Shape, h: Hyperparameters, diagonal: bool) -> State:
    """The momentum; the factors of each block, multiples of the identity; steps since the last fit, and fits so far."""
    scale = h["preconditioner_init_scale"] ** (1 / len(shape))
    places = [tuple(slice(0, size) for size in shape)] if diagonal else blocks(shape, h["block_size"])
    sizes = [[len(range(*cut.indices(n))) for cut, n in zip(place, shape, strict=True)] for place in places]
    start = torch.ones if diagonal else torch.eye
    factors = [[scale * start(n, dtype=torch.float64) for n in pair] for pair in sizes]
    return {"momentum": zeros(shape), "places": places, "factors": factors, "since": 0, "fits": 0}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """One step of a tensor.

    g <- g / ||g|| with ``normalize_grads``;  m <- beta1 m + (1 - beta1) g;  m_hat = m / (1 - beta1^t)
    on a step with a fit: the factors of every block are fitted to m_hat + damping V, for a normal probe V
    u = P_l m_hat P_r with P = Q^T Q, over the tensor scaled down to a root mean square of 1.1
    p <- p - lr (u + wd p)
    """
    if h["normalize_grads"]:
        g = g / (g.norm() + 1e-16)
    m = h["beta1"] * state["momentum"] + (1 - h["beta1"]) * g
    m_hat = m / (1 - h["beta1"] ** step)
    since, fits, factors = state["since"] + 1, state["fits"], state["factors"]
    if since >= 1 / chance(step, h):
        since, fits = 0, fits + 1
        v = probe(p, step, h, triangular=factors[0][0].ndim == 2)
        damped = m_hat + math.sqrt(2.0**-23) * m_hat.abs().mean() * v
        fit = partial(fitted, lr=h["preconditioner_lr"], balance=fits % 100 == 0)
        factors = [fit(q, damped[place], v[place]) for q, place in zip(factors, state["places"], strict=True)]
    direction = torch.zeros_like(m_hat)
    for q, place in zip(factors, state["places"], strict=True):
        direction[place] = applied([side.square() if side.ndim == 1 else side.mT @ side for side in q], m_hat[place])
    rms = direction.square().mean().sqrt()
    direction = direction / max(1.0, float(rms) / 1.1)
    after, more = moved(p, direction, state, step, h if factors[0][0].ndim == 2 else without_switches(h))
    return after, {**state, "momentum": m, "factors": factors, "since": since, "fits": fits, **more}


def without_switches(h: Hyperparameters) -> Hyperparameters:
    """What the fallback rule has: its own rate and decay, and no switch."""
    return {**fallback(h), "hyperball": False, "cautious_decay": False, "decay_follows_lr": False}


def chance(step: int, h: Hyperparameters) -> float:
    """p(t) = clip(exp(-0.001 (t - flat start)), floor, 1); a fit comes as soon as 1 / p steps went by."""
    fallen = math.exp(-1e-3 * (step - h["update_prob_flat_start"]))
    return float(min(1.0, max(h["preconditioner_update_probability"], fallen)))


def probe(like: Tensor, step: int, h: Hyperparameters, *, triangular: bool) -> Tensor:
    """V, standard normal, drawn in fp32 from a seed that is a hash of probe seed, step, name and, if hidden, piece.

    Hidden matrices are drawn with their short side first.
    """
    words = (h["probe_seed"], step, h["name"], *([h["piece"]] if triangular else []))
    digest = hashlib.blake2b("\n".join(map(str, words)).encode(), digest_size=8).digest()
    generator = torch.Generator(like.device).manual_seed(int.from_bytes(digest, "big") >> 1)
    shape = sorted(like.shape) if triangular else like.shape
    v = torch.randn(shape, generator=generator, device=like.device, dtype=torch.float32).double()
    return v.mT if triangular and like.shape[0] > like.shape[1] else v


def applied(sides: Factors, x: Tensor) -> Tensor:
    """A x B^T for the sides A and B of a matrix x; vectors, and diagonal sides, entry by entry."""
    if sides[0].ndim == 2:
        return sides[0] @ x @ sides[1].mT
    return x * sides[0] if len(sides) == 1 else x * sides[0][:, None] * sides[1]


def fitted(factors: Factors, g: Tensor, v: Tensor, lr: float, balance: bool) -> Factors:
    """One step of fitting, which brings A = Q_l G Q_r^T and B = Q_l^-T V Q_r^-1 nearer to equal second moments.

    Q_l <- Q_l - lr triu(A A^T - B B^T) Q_l / ||A A^T + B B^T||, and with A^T and B^T on the right; of diagonal factors
    the diagonal alone. Every hundredth fit first gives both factors one largest entry.
    """
    if balance and len(factors) == 2:
        highs = [float(q.abs().max()) for q in factors]
        factors = [q * math.sqrt(highs[0] * highs[1]) / high for q, high in zip(factors, highs, strict=True)]
    a = applied(factors, g)
    b = applied([1 / q if q.ndim == 1 else torch.linalg.inv(q).mT for q in factors], v)
    moved = []
    for side, q in enumerate(factors):
        if q.ndim == 1:
            seen, drawn = (
                (x**2).reshape(x.shape[0], -1).sum(dim=1) if side == 0 else (x**2).sum(dim=0) for x in (a, b)
            )
            moved.append(q - lr / (seen + drawn).max() * (seen - drawn) * q)
        else:
            seen, drawn = (x @ x.mT if side == 0 else x.mT @ x for x in (a, b))
            moved.append(q - lr / norm_estimate(seen + drawn) * (seen - drawn).triu() @ q)
    return moved


def norm_estimate(symmetric: Tensor) -> Tensor:
    """A lower bound of the spectral norm: two products, from the column of largest norm."""
    high = symmetric.abs().max()
    scaled = symmetric / high
    image = scaled @ scaled[:, scaled.square().sum(dim=0).argmax()]
    estimate: Tensor = high * (scaled @ (image / image.norm())).norm()
    return estimate


def clipped(h: Hyperparameters) -> bool:
    """Normalised gradients are not clipped."""
    return not h["normalize_grads"]


def bound(h: Hyperparameters) -> float:
    """As for other matrix rules: products and inverses of factors that are followed over a few steps."""
    return 1e-3


RULES = {
    "kron": {
        "kron": Reference(partial(init, diagonal=False), update, bound, clipped=clipped),
        "kron_diagonal": Reference(partial(init, diagonal=True), update, bound, clipped=clipped),
    }
}
