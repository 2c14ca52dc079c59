"""Distributed Shampoo with the size of AdamW's updates. Source: Shi et al., arXiv 2309.06497, which won AlgoPerf.

For each block G (r, c) of a matrix, with f = ``precondition_frequency`` and e = ``shampoo_epsilon``:
m <- beta1 m + (1 - beta1) G;      v <- beta2 v + (1 - beta2) G^2
L <- beta2 L + (1 - beta2) G G^T;  R <- beta2 R + (1 - beta2) G^T G
if f | t, and before f at t = 1, 2, 4, 8, ...:  P = (L + e ||L|| I)^-x,  Q = (R + e ||R|| I)^-x,  x = ``exponent``
a  = m_hat / (sqrt(v_hat) + eps)                     (AdamW's direction)
u  = ||a|| P m Q / ||P m Q||                         (grafting; norms of the block, Frobenius)
p <- p - lr (u + wd p)

||L|| is the largest eigenvalue: e is a share of it, as in Anil et al., arXiv 2002.09018. So the bias corrections of L,
R and m in u are numbers, which the norm cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from tuneopt.optim.adamw import AdamWRule, root_second_moment
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import (
    Bounds,
    Count,
    FallbackDecay,
    FallbackRate,
    Matrices,
    Positive,
    Settings,
    Switch,
    settings_of,
)
from tuneopt.optim.portions import tiles, update_blocks
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import MatrixRule, Shape
from tuneopt.optim.switches import norms

STATE = ("left", "right", "left_root", "right_root", "exp_avg", "exp_avg_sq")
"""Of each tile, in the order of `shampoo_update`'s arguments."""


EigenvalueShare: TypeAlias = Annotated[float, Bounds(low=1e-7, high=1.0)]
"""Of a factor's largest eigenvalue: below 1e-7 what is added is lost in the rounding of fp32 factors."""


def refreshes(step: int, frequency: int) -> bool:
    """Whether the roots are made anew: at multiples of ``frequency``, and before the first one at powers of two."""
    return step % frequency == 0 or (step < frequency and step & (step - 1) == 0)


def inverse_root(factor: Tensor, epsilon: float, exponent: float) -> Tensor:
    """(F + epsilon ||F|| I)^-exponent of a stack of factors (n, r, r), by eigenvalues in float64.

    In fp32 small eigenvalues would be noise, which the root blows up. Entries that are not finite count as 0, so that a
    diverged gradient shows in the parameters and not as an error.
    """
    values, vectors = torch.linalg.eigh(torch.nan_to_num(factor, 0.0, 0.0, 0.0).double())  # ascending, (n, r)
    shifted = values.clamp_min(0) + epsilon * values[:, -1:]
    power = shifted.clamp_min(torch.finfo(torch.float32).tiny).pow(-exponent)
    return torch.bmm(vectors * power.unsqueeze(1), vectors.mT).to(factor.dtype)


def shampoo_update(
    gradients: Tensor,  # G, (n, r, c)
    left: Tensor,  # L, (n, r, r); this and all below are updated in place
    right: Tensor,  # R, (n, c, c)
    left_root: Tensor,  # P, (n, r, r)
    right_root: Tensor,  # Q, (n, c, c)
    exp_avg: Tensor,  # m, (n, r, c)
    exp_avg_sq: Tensor,  # v, (n, r, c)
    *,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
    shampoo_epsilon: float,
    exponent: float,
    frequency: int,
) -> Tensor:
    """The direction u of the module's formula, (n, r, c); ``step`` is t and counts from 1."""
    left.baddbmm_(gradients, gradients.mT, beta=beta2, alpha=1 - beta2)
    right.baddbmm_(gradients.mT, gradients, beta=beta2, alpha=1 - beta2)
    if refreshes(step, frequency):
        left_root.copy_(inverse_root(left, shampoo_epsilon, exponent))
        right_root.copy_(inverse_root(right, shampoo_epsilon, exponent))
    exp_avg.lerp_(gradients, 1 - beta1)
    (root,), correction = root_second_moment([exp_avg_sq], [gradients], beta2=beta2, eps=eps, step=step)
    adam = exp_avg / root.mul_((1 - beta1**step) / correction)  # a
    return grafted(torch.bmm(torch.bmm(left_root, exp_avg), right_root), adam)


def grafted(update: Tensor, other: Tensor) -> Tensor:
    """Each matrix of a stack ``update`` (n, r, c), in place, with the norm of that of ``other``."""
    return update.mul_((norms(other) / norms(update)).to(update.dtype))


class ShampooRule(MatrixRule):
    """Shampoo for hidden matrices, cut into blocks without padding."""

    name = "shampoo"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Per tile (see `tiles`): left and right factor, their inverse roots, and both moments."""
        shapes: dict[str, Shape] = {}
        for tile in tiles(shape, settings["block_size"]):
            k, r, c = tile.count, tile.height, tile.width
            sides = ((k, r, r), (k, c, c), (k, r, r), (k, c, c), (k, r, c), (k, r, c))
            shapes |= {f"{key}_{tile.index}": side for key, side in zip(STATE, sides, strict=True)}
        return shapes

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """See `shampoo_update`, applied to the blocks of each tile."""
        beta1, beta2 = settings["betas"]

        def update(*tensors: Tensor) -> Tensor:
            return shampoo_update(
                *tensors,
                step=step,
                beta1=beta1,
                beta2=beta2,
                eps=settings["eps"],
                shampoo_epsilon=settings["shampoo_epsilon"],
                exponent=settings["exponent"],
                frequency=settings["precondition_frequency"],
            )

        update_blocks(gradients, state, STATE, settings["block_size"], update)
        return gradients


class Shampoo(Optimizer):
    """Shampoo for hidden matrices; AdamW at the same rate for embeddings, head, norms and vectors; one joint clip.

    ``precondition_frequency`` counts steps between two computations of the roots, ``block_size`` is the largest side of
    a block. ``betas`` and ``eps`` belong to AdamW and to the size of updates, and the second one to the factors too.
    """

    rules = (ShampooRule(), AdamWRule())

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        *,
        shampoo_epsilon: EigenvalueShare = 1e-6,
        precondition_frequency: Count = 10,
        block_size: Count = 256,
        exponent: Positive = 0.25,
        max_grad_norm: float = 1.0,
        decay_follows_lr: Switch = False,
        matrices: Matrices = "hidden",
        fallback_weight_decay: FallbackDecay = None,
        fallback_learning_rate: FallbackRate = None,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
