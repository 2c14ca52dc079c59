"""Scion: orthogonalized matrices, signs for the rest. Source: Pethick et al., arXiv 2502.07529, as in 2509.02046.

matrices:         M <- mu M + (1 - mu) G;          u = sqrt(max(1, out / in)) NS(M),      NS as in `newton_schulz`
everything else:  m <- beta1 m + (1 - beta1) g;    u = sign(m)
p <- p - lr (u + wd p)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

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
from tuneopt.optim.muon import MuonRule, RowDecay, ShapeScale
from tuneopt.optim.orthogonalize import COEFFICIENTS, PRECISIONS, newton_schulz
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, ListState, Tensors


def scion_update(
    gradients: Tensor,  # G, (n, a, b)
    momentum_buffer: Tensor,  # M, (n, a, b), updated in place
    scale: Tensor,  # sqrt(max(1, out / in)) of each matrix, or another (`tuneopt.optim.muon`), (n, 1, 1)
    *,
    momentum: float,
    eps: float,
    steps: int = 5,
    precision: str = "fp32",
    coefficients: str = "quintic",
) -> Tensor:
    """The direction u of Scion for a stack of matrices, (n, a, b)."""
    momentum_buffer.lerp_(gradients, 1 - momentum)
    return newton_schulz(momentum_buffer, eps, steps, precision, coefficients).mul_(scale)


def signum_update(gradients: list[Tensor], momentum_buffer: list[Tensor], *, beta1: float) -> list[Tensor]:
    """The direction u of sign descent for tensors of any shape (0 where m is 0); ``momentum_buffer`` is m, in place."""
    torch._foreach_lerp_(momentum_buffer, gradients, 1 - beta1)
    signs = torch._foreach_sign(momentum_buffer)
    torch._foreach_add_(signs, momentum_buffer, alpha=0)  # torch's sign of NaN is 0, which would hide a divergence
    return list(signs)


class ScionRule(MuonRule):
    """Scion for hidden matrices; state, scale and everything but the update are Muon's."""

    name = "scion"
    epsilon = "scion_epsilon"

    def update(self, *tensors: Tensor, **settings: Any) -> Tensor:
        """`scion_update`."""
        return scion_update(*tensors, **settings)


class SignumRule(ElementwiseRule):
    """Sign of an averaged gradient, for what Scion does not orthogonalize."""

    name = "signum"
    state = ("momentum_buffer",)
    separable = True

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `signum_update`."""
        return signum_update(gradients, state["momentum_buffer"], beta1=settings["beta1"])


class Scion(Optimizer):
    """Scion for hidden matrices; sign descent at ``scion_to_signum_lr`` times the rate for everything else.

    ``beta1`` belongs to the sign part, which alone is clipped, to the joint norm ``max_grad_norm`` (0 = off), before
    its average. Decay is decoupled, with each part's own rate. ``ns_precision`` is ``fp32``, ``tf32`` or ``bf16``,
    ``ns_coefficients`` is ``quintic`` (the study's) or ``polar_express``. What follows them are switches, off by
    default (docs/optimizers.md).
    """

    rules = (ScionRule(), SignumRule())

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.016,
        beta1: DecayRate = 0.95,
        weight_decay: float = 0.1,
        *,
        momentum: DecayRate = 0.95,
        scion_epsilon: Positive = 1e-15,
        scion_to_signum_lr: Annotated[float, Bounds(), ScalesRate("signum")] = 0.2,
        max_grad_norm: Annotated[float, Bounds(), Only("signum")] = 1.0,
        ns_steps: Count = 5,
        ns_precision: Annotated[str, OneOf(PRECISIONS)] = "fp32",
        ns_coefficients: Annotated[str, OneOf(COEFFICIENTS)] = "quintic",
        scale: ShapeScale = "spectral",
        row_normalize: RowDecay = 0.0,
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
