"""SOAP after Vyas et al., arXiv 2409.11321, algorithm 3, in the order of the study (arXiv 2509.02046): Adam in the
eigenbasis of Shampoo's factors, block by block; everything but hidden matrices has AdamW.

The first moment stays in the original basis and is rotated anew at each step, as in the paper. Bases are eigenvectors,
which rounding turns freely where eigenvalues are equal, nearly equal or next to 0. What is sure are the
directions of well separated eigenvalues, and the claim is about the update between those (`determined`). With factors
by KL (Lin et al., arXiv 2509.03378) and under Newton-Schulz all directions count: see
`tuneopt.optim.reference.soap_choices`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, entries, matrix, scalar, zeros
from tuneopt.optim.reference.soap_choices import adopted

APART = 3e-3
"""Least distance of an eigenvalue to its neighbours and to 0, over the largest one: a direction then turns by about
2^-24 / 3e-3 = 2e-5 in fp32. Of real gradients a tenth of all entries remains, and honest steps err by 2e-4 there."""

SMALL = 0.1
"""Least root of v of an entry, over the largest of its block, for the entry to be looked at."""


def blocks(shape: Shape, size: int) -> list[tuple[slice, slice]]:
    """Where the blocks of a matrix lie that is cut every ``size`` rows and columns; the last ones may be smaller."""
    tops, lefts = range(0, shape[0], int(size)), range(0, shape[1], int(size))
    return [(slice(top, top + int(size)), slice(left, left + int(size))) for top in tops for left in lefts]


def corner(tensor: Tensor, h: Hyperparameters) -> Tensor:
    """The last block of a large matrix alone, of a smaller one all: only Newton-Schulz lets blocks see each other."""
    if tensor.numel() <= 2**18 or h.get("orthogonalize", "none") != "none":
        return tensor
    rows, columns = blocks(tuple(tensor.shape), h["block_size"])[-1]
    return tensor[rows, columns]


def init(shape: Shape, h: Hyperparameters) -> State:
    """Both moments, the second in the bases; for each block both factors, their bases, and which columns are sure."""
    places = blocks(shape, h["block_size"])
    sizes = [zeros(shape)[place].shape for place in places]
    left, right = (
        [
            {"factor": zeros((n, n)), "basis": zeros((n, n)), "sure": zeros((n,)).bool()}
            | ({"values": zeros((n,))} if kl(h) else {})
            for n in side
        ]
        for side in zip(*sizes, strict=True)
    )
    whole = h.get("orthogonalize", "none") != "none"
    return {"m": zeros(shape), "v": zeros(shape), "left": left, "right": right, "places": places, "whole": whole}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """The blocks one after another, and Newton-Schulz of the whole where it is asked for; p <- p - lr (u + wd p)."""
    m, v, direction = state["m"].clone(), state["v"].clone(), torch.zeros_like(g)
    left, right = [], []
    for place, own, other in zip(blocks(tuple(p.shape), h["block_size"]), state["left"], state["right"], strict=True):
        direction[place], m[place], v[place], own, other = step_of_block(
            g[place], m[place], v[place], own, other, step, h
        )
        left.append(own)
        right.append(other)
    if state["whole"]:
        size = matrix.scale(tuple(p.shape), {"scale": h["orthogonalize"]})
        direction = size * matrix.orthogonalized(direction, h["epsilon"], h)
    after, _ = matrix.moved(p, direction, state, step, h)
    return after, {**state, "m": m, "v": v, "left": left, "right": right}


def step_of_block(
    g: Tensor, m: Tensor, v: Tensor, left: State, right: State, step: int, h: Hyperparameters
) -> tuple[Tensor, Tensor, Tensor, State, State]:
    """(u, m, v, left, right) of one block G (r, c).

    Step 1 only starts: u = 0, Q = the eigenvectors of G G^T and G^T G. From step 2 on, with G' = Q_l^T G Q_r,
    m <- beta1 m + (1 - beta1) G;   v <- beta2 v + (1 - beta2) G'^2
    u = Q_l [Q_l^T m Q_r / (sqrt(v) + eps)] Q_r^T sqrt(1 - beta2^k) / (1 - beta1^k)
    every ``precondition_frequency`` steps:  Q <- qr(F Q), columns sorted by their eigenvalue first, v likewise
    F <- s F + (1 - s) G G^T on the left, G^T G on the right, or as `by_kl` says
    """
    if step == 1:
        left, right = grown(g, left, right, h)
        return torch.zeros_like(g), m, v, eigenbasis(left, h["epsilon"]), eigenbasis(right, h["epsilon"])
    q_left, q_right = left["basis"], right["basis"]
    m = h["beta1"] * m + (1 - h["beta1"]) * g
    v = h["beta2"] * v + (1 - h["beta2"]) * (q_left.mT @ g @ q_right) ** 2
    k = step if h["bias_correction"] == "steps" else step - 1
    correction = math.sqrt(1 - h["beta2"] ** k) / (1 - h["beta1"] ** k)
    direction = q_left @ (q_left.mT @ m @ q_right / (v.sqrt() + h["epsilon"])) @ q_right.mT * correction
    if kl(h):  # with the bases of this step, before they change
        left, right = grown(g, left, right, h)
    if step % h["precondition_frequency"] == 0:
        left, order = refreshed(left)
        right, other_order = refreshed(right)
        v = v[order][:, other_order]
    return direction, m, v, *((left, right) if kl(h) else grown(g, left, right, h))


def kl(h: Hyperparameters) -> bool:
    """Whether factors minimize a divergence; without the word they are Shampoo's."""
    return bool(h.get("factors", "shampoo") == "kl")


def grown(g: Tensor, left: State, right: State, h: Hyperparameters) -> tuple[State, State]:
    """Both sides with this gradient in their factors."""
    s = h["shampoo_beta"]
    if kl(h):
        return by_kl(g, left, right, s, h["epsilon"])
    factors = s * left["factor"] + (1 - s) * g @ g.mT, s * right["factor"] + (1 - s) * g.mT @ g
    return {**left, "factor": factors[0]}, {**right, "factor": factors[1]}


def by_kl(g: Tensor, left: State, right: State, s: float, eps: float) -> tuple[State, State]:
    """Lin et al., arXiv 2509.03378: each factor averages gradients that the inverse of the other one has whitened.

    L <- s L + (1 - s) / c G R^-1 G^T,  R <- s R + (1 - s) / r G^T L^-1 G  with the inverses of before, which are
    Q diag(1 / max(values, eps)) Q^T. Values average the diagonal of the same in the bases, from the second step on;
    they begin at the root mean square of G.
    """
    begin = float((g**2).mean().sqrt())
    sides = (left, right)
    values = [side["values"] if side["values"].any() else torch.full_like(side["values"], begin) for side in sides]
    over = [1 / value.clamp(min=eps) for value in values]
    rows, columns = g.shape
    if not left["basis"].any():  # the first step
        factors = g @ g.mT * over[1][0], g.mT @ g * over[0][0]
    else:
        inverses = [side["basis"] @ one.diag() @ side["basis"].mT for side, one in zip(sides, over, strict=True)]
        factors = g @ inverses[1] @ g.mT, g.mT @ inverses[0] @ g
        seen = [
            torch.einsum("ij,ik,kj->j", side["basis"], factor, side["basis"]) / count
            for side, factor, count in zip(sides, factors, (columns, rows), strict=True)
        ]
        values = [s * value + (1 - s) * new for value, new in zip(values, seen, strict=True)]
    return (
        {**left, "factor": s * left["factor"] + (1 - s) * factors[0] / columns, "values": values[0]},
        {**right, "factor": s * right["factor"] + (1 - s) * factors[1] / rows, "values": values[1]},
    )


def eigenbasis(side: State, eps: float) -> State:
    """Eigenvectors, largest eigenvalue first."""
    factor = side["factor"]
    values, vectors = torch.linalg.eigh(factor + eps * torch.eye(len(factor), dtype=factor.dtype, device=factor.device))
    sure = apart(values.flip(-1))
    return {**side, "basis": vectors.flip(-1), "sure": sure, "open": factor, "refreshed": False, "ordered": sure}


def refreshed(side: State) -> tuple[State, Tensor]:
    """One orthogonal iteration, Q <- qr(F Q), and the order into which the columns of Q were brought before."""
    values = torch.einsum("ij,ij->j", side["basis"], side["factor"] @ side["basis"])  # diag(Q^T F Q)
    order = values.argsort(descending=True)
    basis = torch.linalg.qr(side["factor"] @ side["basis"][:, order]).Q
    # Each column is freed of those before it, so that it is sure only behind sure ones. Directions that are not sure
    # may be mixed among each other, and then come as early in the order as the largest eigenvalue among them.
    mixed = side["basis"][:, ~side["sure"]]
    ceiling = torch.linalg.eigvalsh(mixed.mT @ side["factor"] @ mixed).max() if mixed.numel() else values.new_zeros(())
    sure = side["sure"][order] & apart(values[order]) & (values[order] > ceiling + APART * values.max())
    product, ordered = side["factor"] @ side["basis"][:, order], apart(values[order])
    side = {**side, "basis": basis, "sure": sure.cumprod(0).bool()}
    if "values" in side:
        side["values"] = side["values"][order]
    return {**side, "open": product, "refreshed": True, "ordered": ordered}, order


def apart(values: Tensor) -> Tensor:
    """Which of the sorted eigenvalues are far from both neighbours and from 0."""
    edge = values.new_zeros(1)
    gaps = torch.cat((values[:1] + values[0], values[:-1])) - values, values - torch.cat((values[1:], edge))
    sure: Tensor = torch.minimum(*gaps) > APART * values[0]
    return sure


def determined(difference: Tensor, state: State) -> Tensor:
    """Q_l^T D Q_r of each block where it is sure: rows and columns of sure directions, entries that are not small.

    Adam divides by the root of v, and so blows up what a turn by 2e-5 mixes into an entry that is small among others.
    Newton-Schulz mixes them all: there the whole difference counts.
    """
    if state["whole"]:
        return difference.reshape(-1)
    # The block size is not known here, but the first blocks of rows and columns say it.
    size = max(len(state["left"][0]["sure"]), len(state["right"][0]["sure"]))
    found = []
    for place, left, right in zip(blocks(tuple(difference.shape), size), state["left"], state["right"], strict=True):
        root = state["v"][place].sqrt()
        sure = left["sure"][:, None] & right["sure"] & (root > SMALL * root.max())
        found.append((left["basis"].mT @ difference[place] @ right["basis"])[sure])
    return torch.cat(found)


def steps(h: Hyperparameters) -> int:
    """Five, and the one after the first refresh where that is near."""
    return max(5, h["precondition_frequency"] + 1 if h["precondition_frequency"] <= 16 else 0)


def bound(h: Hyperparameters) -> float:
    """Newton-Schulz errs as it does under Muon."""
    return 1e-3 if h.get("orthogonalize", "none") == "none" else matrix.orthogonal_bound(h)


RULES = {
    "soap": {
        "soap": Reference(init, update, bound, part=corner, determined=determined, steps=steps, adopt=adopted),
        "adamw": Reference(scalar.two_moments, matrix.adamw_rest, part=entries),
    }
}
