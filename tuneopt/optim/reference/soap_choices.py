"""What SOAP's rule leaves open, and the optimizer's own answers to it, taken over where the rule allows them.

Eigenvectors of equal or nearly equal eigenvalues, and those next to 0, are any basis of what they span, and two correct
implementations differ in them. Plain SOAP is therefore compared in the directions of separated eigenvalues alone.
Factors by KL depend on all columns of the other basis, and Newton-Schulz mixes all directions; there the reference goes
on with the bases that the optimizer holds, after it has seen that they are such bases of its own factors:

    at the start      Q^T F Q is diagonal
    after a refresh   Q^T (F Q_before) is upper triangular, with the columns of Q_before sorted: Q = qr(F Q_before)

The order of columns with nearly equal eigenvalues is open, too; so second moments and eigenvalues are taken over with
them, after it has seen that they are its own but for that order. Everything else is followed independently. Bases that
are refused stay out, and then the parameters show what the optimizer did with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, State

NEAR = 1e-4
"""Largest relative error of what is taken over, in norm. Honest bases in fp32 err by 2e-6."""

LOST = 2**-22
"""What fp32 loses of a factor, in units of epsilon, when that is added before the eigenvectors are computed."""


def is_asked_for(h: Hyperparameters) -> bool:
    """Whether the reference must know what the optimizer chose."""
    return bool(h.get("factors", "shampoo") == "kl" or h.get("orthogonalize", "none") != "none")


def adopted(state: State, held: Callable[[], Mapping[str, Any]], h: Hyperparameters) -> State:
    """The state with the bases that the optimizer holds, where some were made anew in the step before and fit."""
    if not is_asked_for(h) or not any("open" in side for side in state["left"]):
        return state
    offers = offered(held(), state["m"], h)
    v = state["v"].clone()
    left: list[State] = []
    right: list[State] = []
    for place, own, other, offer in zip(state["places"], state["left"], state["right"], offers, strict=True):
        fits = offer is not None and all(
            _fits(side, offer[word], h["epsilon"]) for word, side in (("left", own), ("right", other))
        )
        if fits and offer is not None and _is_reordered(v[place], offer["v"], own, other):
            v[place] = offer["v"]
            own, other = {**own, **offer["left"]}, {**other, **offer["right"]}
        for side, sides in ((own, left), (other, right)):
            # All directions count now: one that was refused is to be seen.
            kept = {key: value for key, value in side.items() if key != "open"}
            sides.append({**kept, "sure": torch.ones_like(side["sure"])})
    return {**state, "v": v, "left": left, "right": right}


def _fits(side: State, offer: State, eps: float) -> bool:
    """Whether an offered basis is one of those that the rule allows, and eigenvalues are the own ones, in any order."""
    basis, product = offer["basis"], side["open"]
    size = product.norm()
    eye = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    seen = basis.mT @ product if side["refreshed"] else basis.mT @ product @ basis
    wrong = seen.tril(-1) if side["refreshed"] else seen - seen.diag().diag()
    orthonormal = bool((basis.mT @ basis - eye).norm() <= NEAR * len(basis) ** 0.5)
    if not orthonormal or not bool(wrong.norm() <= NEAR * size + LOST * eps * len(basis)):
        return False
    if "values" not in side:
        return True
    mine, theirs, ordered = side["values"], offer.get("values"), side["ordered"]
    return (
        theirs is not None and _near(theirs.sort().values, mine.sort().values) and _near(theirs[ordered], mine[ordered])
    )


def _is_reordered(mine: Tensor, theirs: Tensor, left: State, right: State) -> bool:
    """Whether second moments are the own ones with rows and columns in an order that the rule leaves open."""
    sure = left["ordered"][:, None] & right["ordered"]
    pairs = [(theirs.reshape(-1), mine.reshape(-1)), (theirs.sum(0), mine.sum(0)), (theirs.sum(1), mine.sum(1))]
    return all(_near(a.sort().values, b.sort().values) for a, b in pairs) and _near(theirs[sure], mine[sure])


def _near(theirs: Tensor, mine: Tensor) -> bool:
    return bool((theirs - mine).norm() <= NEAR * mine.norm())


def offered(held: Mapping[str, Any], like: Tensor, h: Hyperparameters) -> list[dict[str, Any] | None]:
    """What the optimizer holds for each block, in the order of `tuneopt.optim.reference.soap.blocks`.

    It keeps a matrix with its short side first, and equal blocks together: the full ones, those at the right edge,
    those at the lower edge, and the corner. ``like`` has the shape of the matrix, or of its last block where that alone
    is followed, and their device.
    """
    size, whole = int(h["block_size"]), h["shape"]
    counts = [-(-side // size) for side in whole]
    places = [(i, j) for i in range(counts[0]) for j in range(counts[1])]
    if tuple(like.shape) != tuple(whole):
        places = places[-1:]
    turned = whole[0] > whole[1]
    found = [_block(held, (j, i) if turned else (i, j), sorted(whole), turned, h) for i, j in places]
    return [block and {key: _moved(value, like) for key, value in block.items()} for block in found]


def _moved(value: Any, like: Tensor) -> Any:
    """A tensor, or a dictionary of them, in float64 where ``like`` is."""
    if isinstance(value, dict):
        return {key: _moved(one, like) for key, one in value.items()}
    return value.detach().to(like.device, torch.float64, copy=True)


def _block(
    held: Mapping[str, Any], place: tuple[int, int], sides: list[int], turned: bool, h: Hyperparameters
) -> dict[str, Any] | None:
    size = int(h["block_size"])
    full = [side // size for side in sides]
    kinds = [(side >= size) + (side % size > 0) for side in sides]
    kind = [int(at >= count and count > 0) for at, count in zip(place, full, strict=True)]
    at = [0 if number >= count else number for number, count in zip(place, full, strict=True)]
    index, number = kind[0] * kinds[1] + kind[1], at[0] * (full[1] if place[1] < full[1] else 1) + at[1]

    def of(key: str) -> Tensor:
        tensor: Tensor = held[f"{key}_{index}"][h["piece"], number]
        return tensor

    if f"left_basis_{index}" not in held:
        return None
    left, right = {"basis": of("left_basis")}, {"basis": of("right_basis")}
    if f"left_values_{index}" in held:
        left["values"], right["values"] = of("left_values"), of("right_values")
    v = of("exp_avg_sq")
    return {"left": right, "right": left, "v": v.mT} if turned else {"left": left, "right": right, "v": v}
