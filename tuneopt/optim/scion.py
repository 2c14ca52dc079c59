"""Scion: orthogonalized matrices, signs for the rest. Source: Pethick et al., arXiv 2502.07529, as in 2509.02046."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.invariants.scion import ScionInvariant, SignumInvariant
from tuneopt.optim.muon import MuonRule
from tuneopt.optim.orthogonalize import check_coefficients, check_precision, newton_schulz
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, Shape
from tuneopt.optim.settings import DECAY_RATE, Bounds, Settings


def scion_update(
    gradients: Tensor,
    momentum_buffer: Tensor,
    scale: Tensor,
    *,
    momentum: float,
    eps: float,
    steps: int = 5,
    precision: str = "fp32",
    coefficients: str = "quintic",
) -> Tensor:
    """The direction u of Scion for a stack of matrices (n, a, b); ``momentum_buffer`` is updated in place.

    M <- mu M + (1 - mu) G                            (an average)
    u  = scale NS(M),          NS as in `newton_schulz`

    ``scale`` (n, 1, 1) is sqrt(max(1, out / in)) of each matrix. The parameter then moves by p <- p - lr (u + wd p).
    """
    momentum_buffer.lerp_(gradients, 1 - momentum)
    return newton_schulz(momentum_buffer, eps, steps, precision, coefficients).mul_(scale)


def signum_update(gradients: list[Tensor], momentum_buffer: list[Tensor], *, beta1: float) -> list[Tensor]:
    """The direction u of sign descent for tensors of any shape; ``momentum_buffer`` is updated in place.

    m <- beta1 m + (1 - beta1) g
    u  = sign(m)                                      (0 where m is 0)
    """
    torch._foreach_lerp_(momentum_buffer, gradients, 1 - beta1)
    signs = torch._foreach_sign(momentum_buffer)
    torch._foreach_add_(signs, momentum_buffer, alpha=0)  # torch's sign of NaN is 0, which would hide a divergence
    return list(signs)


class ScionRule(MuonRule):
    """Scion for hidden matrices; state and scale are Muon's."""

    name = "scion"

    def invariant(self) -> ScionInvariant:
        """Singular values where Newton-Schulz sends them."""
        return ScionInvariant()

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """See `scion_update`."""
        for some in portions(gradients):
            gradients[some] = scion_update(
                gradients[some],
                state["momentum_buffer"][some],
                state["scale"][some],
                momentum=settings["momentum"],
                eps=settings["scion_epsilon"],
                steps=settings["ns_steps"],
                precision=settings["ns_precision"],
                coefficients=settings["ns_coefficients"],
            )
        return gradients


class SignumRule(ElementwiseRule):
    """Sign of an averaged gradient, for what Scion does not orthogonalize."""

    name = "signum"
    separable = True

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """The momentum."""
        return {"momentum_buffer": shape}

    def invariant(self) -> SignumInvariant:
        """Every entry moves by the learning rate, against an independent average."""
        return SignumInvariant()

    def direction(
        self, gradients: list[Tensor], state: dict[str, list[Tensor]], settings: Settings, step: int
    ) -> list[Tensor]:
        """See `signum_update`."""
        return signum_update(gradients, state["momentum_buffer"], beta1=settings["beta1"])


class Scion(Optimizer):
    """Scion for hidden matrices; sign descent at ``scion_to_signum_lr`` times the rate for everything else.

    ``beta1`` belongs to the sign part, which alone is clipped, to the joint norm ``max_grad_norm`` (0 = off), before
    its average. Decay is decoupled, with each part's own rate. ``ns_precision`` is ``fp32`` or ``bf16``,
    ``ns_coefficients`` is ``quintic`` (the study's) or ``polar_express``.
    """

    rules = (ScionRule(), SignumRule())
    bounds: ClassVar = {
        "beta1": DECAY_RATE,
        "momentum": DECAY_RATE,
        "scion_epsilon": Bounds(above=True),
        "scion_to_signum_lr": Bounds(),
        "ns_steps": Bounds(low=1, whole=True),
    }

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.016,
        beta1: float = 0.95,
        weight_decay: float = 0.1,
        *,
        momentum: float = 0.95,
        scion_epsilon: float = 1e-15,
        scion_to_signum_lr: float = 0.2,
        max_grad_norm: float = 1.0,
        ns_steps: int = 5,
        ns_precision: str = "fp32",
        ns_coefficients: str = "quintic",
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        settings = {
            "lr": lr,
            "beta1": beta1,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "scion_epsilon": scion_epsilon,
            "scion_to_signum_lr": scion_to_signum_lr,
            "max_grad_norm": max_grad_norm,
            "ns_steps": ns_steps,
            "ns_precision": check_precision(ns_precision),
            "ns_coefficients": check_coefficients(ns_coefficients),
        }
        super().__init__(params, settings, rules)

    def rule_settings(self, rule: str, settings: Settings) -> Settings:
        """The sign part runs at its share of the rate; the orthogonalized part is not clipped."""
        if rule == "signum":
            return {**settings, "lr": settings["lr"] * settings["scion_to_signum_lr"]}
        return {**settings, "max_grad_norm": 0.0}
