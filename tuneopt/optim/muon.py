"""Muon: momentum orthogonalized by Newton-Schulz. Source: Jordan et al. 2024; as run in arXiv 2509.02046.

M <- mu M + G                                     (a sum, not an average)
u  = sqrt(max(1, out / in)) NS(mu M + G),         NS as in `tuneopt.optim.orthogonalize.newton_schulz`
p <- p - lr (u + wd p)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import (
    Bounds,
    Count,
    DecayRate,
    OneOf,
    Only,
    Positive,
    ScalesRate,
    Settings,
    settings_of,
)
from tuneopt.optim.orthogonalize import COEFFICIENTS, PRECISIONS, newton_schulz
from tuneopt.optim.portions import slices
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import MatrixRule


def muon_update(
    gradients: Tensor,  # G, (n, a, b)
    momentum_buffer: Tensor,  # M, (n, a, b), updated in place
    scale: Tensor,  # sqrt(max(1, out / in)) of each matrix, (n, 1, 1)
    *,
    momentum: float,
    eps: float,
    steps: int = 5,
    precision: str = "fp32",
    coefficients: str = "quintic",
) -> Tensor:
    """The direction u of Muon for a stack of matrices, (n, a, b)."""
    torch.add(gradients, momentum_buffer, alpha=momentum, out=momentum_buffer)
    lookahead = torch.add(gradients, momentum_buffer, alpha=momentum)
    return newton_schulz(lookahead, eps, steps, precision, coefficients).mul_(scale)


class MuonRule(MatrixRule):
    """Muon for hidden matrices."""

    name = "muon"
    state = ("momentum_buffer",)
    epsilon: ClassVar[str] = "muon_epsilon"
    """The setting that is the update's eps."""

    def update(self, *tensors: Tensor, **settings: Any) -> Tensor:
        """`muon_update`, looked up when it is called, so that tests may put a wrong one in its place."""
        return muon_update(*tensors, **settings)

    def constants(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> dict[str, Tensor]:
        """The scale of each matrix, which its stack no longer tells: there the short side comes first."""
        ratios = [[[max(1.0, out / fan_in) ** 0.5]] for out, fan_in in shapes]
        return {"scale": torch.tensor(ratios, dtype=like.dtype, device=like.device)}

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """See the class's update function."""
        for some in slices(gradients):
            gradients[some] = self.update(
                gradients[some],
                state["momentum_buffer"][some],
                state["scale"][some],
                momentum=settings["momentum"],
                eps=settings[self.epsilon],
                steps=settings["ns_steps"],
                precision=settings["ns_precision"],
                coefficients=settings["ns_coefficients"],
            )
        return gradients


class Muon(Optimizer):
    """Muon for hidden matrices; AdamW at ``muon_to_adam_lr`` times the rate for embeddings, head, norms and vectors.

    ``betas`` and ``eps`` belong to the AdamW part, which alone is clipped, to the joint norm ``max_grad_norm``
    (0 = off). Decay is decoupled, with each part's own rate. ``ns_precision`` is ``fp32``, ``tf32`` or ``bf16``,
    ``ns_coefficients`` is ``quintic`` (the study's) or ``polar_express``.
    """

    rules = (MuonRule(), AdamWRule())
    fixed: ClassVar = {"nesterov": True}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.016,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-15,
        weight_decay: float = 0.1,
        *,
        momentum: DecayRate = 0.98,
        muon_epsilon: Positive = 1e-15,
        muon_to_adam_lr: Annotated[float, Bounds(), ScalesRate("adamw")] = 0.2,
        max_grad_norm: Annotated[float, Bounds(), Only("adamw")] = 1.0,
        ns_steps: Count = 5,
        ns_precision: Annotated[str, OneOf(PRECISIONS)] = "fp32",
        ns_coefficients: Annotated[str, OneOf(COEFFICIENTS)] = "quintic",
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
