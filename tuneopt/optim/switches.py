"""Switches: parts that any matrix rule can take, as hyperparameters that are off by default.

    hyperball          W <- R n(W - lr R n(u)),   R = ||W_0||,   n(x) = x / ||x||, Frobenius norms; no weight decay
    cautious_decay     p <- p - lr (u + wd [u p >= 0] p)
    decay_follows_lr   wd <- wd lr / peak lr, so that decay falls with the square of the schedule
    row_normalize = b  v <- b v + (1 - b) mean(u^2) over each row;   u <- ||u|| n(u / (sqrt(v) + 1e-10))
    split_heads        W_q, W_k, W_v (K heads of rows) and W_o (of columns) are one logical matrix for each head
    scale              what `tuneopt.optim.muon` multiplies an orthogonal update with

Sources: hyperball (MuonH, AdamH) Wen et al., arXiv 2606.16899; cautious decay Chen et al., arXiv 2510.12402; decay that
follows the rate (AdamC) Defazio, arXiv 2506.02285; row_normalize (NorMuon) Li et al., arXiv 2510.05491; split_heads
(MuonSplit) Zhang, Zhou and Chen, arXiv 2605.08933, cut where parameters are routed (`tuneopt.optim.routing`). They hold
in groups of the main rule alone. A group that lacks a switch, as one of an older checkpoint does, has it off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.portions import slices
from tuneopt.optim.rule import MatrixRule, Rule, Shape, apply

ROW_EPSILON = 1e-10
"""Added to the root of a row's second moment, in units of an orthogonal update, whose entries are far above it."""

TINY = 1e-30
"""What keeps a norm of 0 from dividing; NaN stays NaN."""


def laid_out(matrix: Tensor, settings: Settings) -> Tensor:
    """A logical matrix (out, in) as its rule sees it: with its short side first, or as it is where rows count."""
    turned = matrix.shape[0] > matrix.shape[1] and not settings.get("row_normalize")
    return matrix.mT if turned else matrix


def state_shapes(rule: Rule, shape: Shape, settings: Settings) -> dict[str, Shape]:
    """State tensors of one parameter or logical matrix under a rule and the switches of its group."""
    shapes = rule.state_shapes(shape, settings)
    return {**shapes, "radius": (1, 1)} if isinstance(rule, MatrixRule) and settings.get("hyperball") else shapes


def needs_weights(settings: Mapping[str, Any]) -> bool:
    """Whether an update of this group depends on the weights, so that it cannot be computed without them."""
    return bool(settings.get("hyperball") or settings.get("cautious_decay") or settings.get("reads_weights"))


def decay_of_step(settings: Mapping[str, Any]) -> float:
    """The weight decay at this step's learning rate."""
    decay = float(settings["weight_decay"])
    if settings.get("decay_follows_lr") and settings["peak_lr"]:
        return decay * float(settings["lr"]) / float(settings["peak_lr"])
    return decay


def apply_switched(
    targets: list[Tensor],  # n views of parameters, each (a, b)
    direction: Tensor,  # u, (n, a, b), overwritten
    state: dict[str, Tensor],  # ``radius`` is R, (n, 1, 1), updated in place
    settings: Settings,
    step: int,
) -> None:
    """Move matrices along their updates, as the switches of their group say; `apply` where none is on."""
    if settings.get("hyperball"):
        on_hyperball(targets, direction, state["radius"], settings["lr"], step)
        return
    updates, decay = list(direction.unbind(0)), decay_of_step(settings)
    if settings.get("cautious_decay") and decay:
        for update, target in zip(updates, targets, strict=True):
            update.add_(target * (update * target >= 0), alpha=decay)
        decay = 0.0
    apply(targets, updates, {"lr": settings["lr"], "weight_decay": decay})


def on_hyperball(targets: list[Tensor], direction: Tensor, radius: Tensor, lr: float, step: int) -> None:
    """W <- R n(W - lr R n(u)) for each of n matrices; in the first step R is taken from what it finds."""
    updates = list(direction.unbind(0))
    if step == 1:
        radius.copy_(torch.cat([norms(target[None]) for target in targets]))
    if lr == 0:  # or the projection would round the weights
        return
    direction.mul_((-lr * radius / norms(direction)).to(direction.dtype))
    torch._foreach_add_(updates, targets)
    direction.mul_((radius / norms(direction)).to(direction.dtype))
    torch._foreach_copy_(targets, updates)


def norms(stack: Tensor) -> Tensor:
    """The Frobenius norm of each matrix of a stack (n, a, b), at least `TINY`, as (n, 1, 1).

    In float64: what it is off by moves all of a matrix one way, at each step of a hyperball.
    """
    parts = (stack[some] for some in slices(stack))  # it makes a copy in float64
    found = [torch.linalg.vector_norm(part, dim=(1, 2), keepdim=True, dtype=torch.float64) for part in parts]
    return torch.cat(found).clamp_(min=TINY)


def normalized_rows(
    update: Tensor,  # u, (n, out, in), overwritten
    second_moment: Tensor,  # v, (n, out, 1), updated in place
    beta: float,
) -> Tensor:
    """Each row over the root of its second moment, and then the whole brought back to the norm that it had."""
    before = norms(update)
    squares = [update[some].square().mean(dim=2, keepdim=True) for some in slices(update)]
    second_moment.lerp_(torch.cat(squares), 1 - beta)
    update.div_(second_moment.sqrt().add_(ROW_EPSILON))
    return update.mul_((before / norms(update)).to(update.dtype))
