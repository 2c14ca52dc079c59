"""SOAP after Vyas et al., arXiv 2409.11321, algorithm 3, in the order of the study (arXiv 2509.02046): Adam in the
eigenbasis of Shampoo's factors, block by block; everything but hidden matrices has AdamW.

The first moment stays in the original basis and is rotated anew at each step, as in the paper. Bases are eigenvectors,
which rounding turns freely where eigenvalues are equal, nearly equal or next to 0. What is sure are the
directions of well separated eigenvalues, and the claim is about the update between those (`determined`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, Shape, State, adamw, entries, zeros
from tuneopt.optim.reference.switches import fallback, moved

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
    """The last block of a large matrix alone, of a smaller one all: blocks do not see each other."""
    if tensor.numel() <= 2**18:
        return tensor
    rows, columns = blocks(tuple(tensor.shape), h["block_size"])[-1]
    return tensor[rows, columns]


def init(shape: Shape, h: Hyperparameters) -> State:
    """Both moments, the second in the bases; for each block both factors, their bases, and which columns are sure."""
    sizes = [zeros(shape)[place].shape for place in blocks(shape, h["block_size"])]
    left, right = (
        [{"factor": zeros((n, n)), "basis": zeros((n, n)), "sure": zeros((n,)).bool()} for n in side]
        for side in zip(*sizes, strict=True)
    )
    return {"m": zeros(shape), "v": zeros(shape), "left": left, "right": right}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """The blocks one after another; p <- p - lr (u + wd p)."""
    m, v, direction = state["m"].clone(), state["v"].clone(), torch.zeros_like(g)
    left, right = [], []
    for place, own, other in zip(blocks(tuple(p.shape), h["block_size"]), state["left"], state["right"], strict=True):
        direction[place], m[place], v[place], own, other = step_of_block(
            g[place], m[place], v[place], own, other, step, h
        )
        left.append(own)
        right.append(other)
    after, _ = moved(p, direction, state, step, h)
    return after, {"m": m, "v": v, "left": left, "right": right}


def update_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW."""
    return adamw.update(p, g, state, step, fallback(h))


def step_of_block(
    g: Tensor, m: Tensor, v: Tensor, left: State, right: State, step: int, h: Hyperparameters
) -> tuple[Tensor, Tensor, Tensor, State, State]:
    """(u, m, v, left, right) of one block G (r, c).

    Step 1 only starts: u = 0, Q = the eigenvectors of G G^T and G^T G. From step 2 on, with G' = Q_l^T G Q_r,
    m <- beta1 m + (1 - beta1) G;   v <- beta2 v + (1 - beta2) G'^2
    u = Q_l [Q_l^T m Q_r / (sqrt(v) + eps)] Q_r^T sqrt(1 - beta2^k) / (1 - beta1^k)
    every ``precondition_frequency`` steps:  Q <- qr(F Q), columns sorted by their eigenvalue first, v likewise
    F <- s F + (1 - s) G G^T on the left, G^T G on the right
    """
    s = h["shampoo_beta"]
    grown = [s * left["factor"] + (1 - s) * g @ g.mT, s * right["factor"] + (1 - s) * g.mT @ g]
    if step == 1:
        started = [eigenbasis(factor, h["epsilon"]) for factor in grown]
        return torch.zeros_like(g), m, v, started[0], started[1]
    q_left, q_right = left["basis"], right["basis"]
    m = h["beta1"] * m + (1 - h["beta1"]) * g
    v = h["beta2"] * v + (1 - h["beta2"]) * (q_left.mT @ g @ q_right) ** 2
    k = step if h["bias_correction"] == "steps" else step - 1
    correction = math.sqrt(1 - h["beta2"] ** k) / (1 - h["beta1"] ** k)
    direction = q_left @ (q_left.mT @ m @ q_right / (v.sqrt() + h["epsilon"])) @ q_right.mT * correction
    if step % h["precondition_frequency"] == 0:
        left, order = refreshed(left)
        right, other_order = refreshed(right)
        v = v[order][:, other_order]
    return direction, m, v, {**left, "factor": grown[0]}, {**right, "factor": grown[1]}


def eigenbasis(factor: Tensor, eps: float) -> State:
    """Eigenvectors, largest eigenvalue first."""
    values, vectors = torch.linalg.eigh(factor + eps * torch.eye(len(factor), dtype=factor.dtype, device=factor.device))
    return {"factor": factor, "basis": vectors.flip(-1), "sure": apart(values.flip(-1))}


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
    return {**side, "basis": basis, "sure": sure.cumprod(0).bool()}, order


def apart(values: Tensor) -> Tensor:
    """Which of the sorted eigenvalues are far from both neighbours and from 0."""
    edge = values.new_zeros(1)
    gaps = torch.cat((values[:1] + values[0], values[:-1])) - values, values - torch.cat((values[1:], edge))
    sure: Tensor = torch.minimum(*gaps) > APART * values[0]
    return sure


def determined(difference: Tensor, state: State) -> Tensor:
    """Q_l^T D Q_r of each block where it is sure: rows and columns of sure directions, entries that are not small.

    Adam divides by the root of v, and so blows up what a turn by 2e-5 mixes into an entry that is small among others.
    """
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


RULES = {
    "soap": Reference(init, update, lambda h: 1e-3, part=corner, determined=determined, steps=steps),
    "adamw": Reference(adamw.init, update_rest, part=entries),
}
