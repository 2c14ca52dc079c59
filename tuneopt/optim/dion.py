"""Dion: Muon on the largest rows of each momentum. Source: Ahn et al., arXiv 2512.16928 (Dion2).

M   <- M + G
K    = the ceil(fraction a) of the a rows of M with the largest sums of |M|; rows are along the short side
u_K  = s NS(M_K), and 0 in other rows
M_K <- mu M_K                                     (other rows keep all that they have gathered: error feedback)
p   <- p - lr (u + wd p)

NS as in `tuneopt.optim.orthogonalize.newton_schulz`, s as in `tuneopt.optim.muon`. A step orthogonalizes a matrix that
is ``fraction`` as high, which is what it saves; on several GPUs it sends as much less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import torch
from torch import Tensor

from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import (
    Bounds,
    Count,
    DecayRate,
    FallbackDecay,
    FallbackRate,
    Matrices,
    OneOf,
    Only,
    Positive,
    ScalesRate,
    Settings,
    Switch,
    settings_of,
)
from tuneopt.optim.muon import MuonRule, ShapeScale
from tuneopt.optim.orthogonalize import COEFFICIENTS, PRECISIONS, newton_schulz
from tuneopt.optim.routing import RouteRule

Share: TypeAlias = Annotated[float, Bounds(above=True, high=math.nextafter(1.0, 2.0))]
"""Above 0, up to 1; the bound itself is excluded, so it is the next number."""


def dion_update(
    gradients: Tensor,  # G, (n, a, b), a the short side
    momentum_buffer: Tensor,  # M, (n, a, b), updated in place
    scale: Tensor,  # s of each matrix, (n, 1, 1)
    *,
    fraction: float,
    momentum: float,
    eps: float,
    steps: int = 5,
    precision: str = "fp32",
    coefficients: str = "quintic",
) -> Tensor:
    """The direction u of Dion for a stack of matrices, (n, a, b)."""
    momentum_buffer.add_(gradients)
    count = math.ceil(fraction * gradients.shape[1])
    largest = momentum_buffer.norm(p=1, dim=2).topk(count, dim=1, sorted=False).indices  # K, (n, count)
    index = largest.unsqueeze(2).expand(-1, -1, gradients.shape[2])
    chosen = momentum_buffer.gather(1, index)  # (n, count, b)
    momentum_buffer.scatter_(1, index, momentum * chosen)
    orthogonal = newton_schulz(chosen, eps, steps, precision, coefficients).mul_(scale)
    return torch.zeros_like(gradients).scatter_(1, index, orthogonal)


class DionRule(MuonRule):
    """Dion for hidden matrices."""

    name = "dion"
    epsilon = "dion_epsilon"

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """Muon's, and how many of the rows."""
        return {**super().arguments(settings), "fraction": settings["fraction"]}

    def update(self, *tensors: Tensor, **settings: Any) -> Tensor:
        """`dion_update`, looked up when it is called, so that tests may put a wrong one in its place."""
        return dion_update(*tensors, **settings)


class Dion(Optimizer):
    """Dion for hidden matrices; AdamW at ``dion_to_adam_lr`` times the rate for embeddings, head, norms and vectors.

    ``fraction`` (above 0, at most 1) of a matrix's rows move in a step; ``momentum`` is what those keep of theirs. The
    other arguments are as for `tuneopt.optim.muon.Muon`.
    """

    rules = (DionRule(), AdamWRule())

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-15,
        weight_decay: float = 0.1,
        *,
        fraction: Share = 0.25,
        momentum: DecayRate = 0.95,
        dion_epsilon: Positive = 1e-15,
        dion_to_adam_lr: Annotated[float, Bounds(), ScalesRate("adamw")] = 0.3,
        max_grad_norm: Annotated[float, Bounds(), Only("adamw")] = 1.0,
        ns_steps: Count = 5,
        ns_precision: Annotated[str, OneOf(PRECISIONS)] = "fp32",
        ns_coefficients: Annotated[str, OneOf(COEFFICIENTS)] = "quintic",
        scale: ShapeScale = "spectral",
        hyperball: Switch = False,
        cautious_decay: Switch = False,
        decay_follows_lr: Switch = False,
        split_heads: Switch = False,
        matrices: Matrices = "hidden",
        fallback_weight_decay: FallbackDecay = None,
        fallback_learning_rate: FallbackRate = None,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
