"""Muon: momentum orthogonalized by Newton-Schulz. Source: Jordan et al. 2024; as run in arXiv 2509.02046."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.invariants.orthogonal import MuonInvariant
from tuneopt.optim.orthogonalize import check_coefficients, check_precision, newton_schulz
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import MatrixRule, Shape
from tuneopt.optim.settings import DECAY_RATE, Bounds, Settings


def muon_update(
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
    """The direction u of Muon for a stack of matrices (n, a, b); ``momentum_buffer`` is updated in place.

    M <- mu M + G                                     (a sum, not an average)
    u  = scale NS(mu M + G),   NS as in `newton_schulz`

    ``scale`` (n, 1, 1) is sqrt(max(1, out / in)) of each matrix. The parameter then moves by p <- p - lr (u + wd p).
    """
    torch.add(gradients, momentum_buffer, alpha=momentum, out=momentum_buffer)
    lookahead = torch.add(gradients, momentum_buffer, alpha=momentum)
    return newton_schulz(lookahead, eps, steps, precision, coefficients).mul_(scale)


class MuonRule(MatrixRule):
    """Muon for hidden matrices."""

    name = "muon"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """The momentum."""
        return {"momentum_buffer": shape}

    def constants(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> dict[str, Tensor]:
        """sqrt(max(1, out / in)) of each matrix."""
        ratios = [[[max(1.0, out / fan_in) ** 0.5]] for out, fan_in in shapes]
        return {"scale": torch.tensor(ratios, dtype=like.dtype, device=like.device)}

    def invariant(self) -> MuonInvariant:
        """Singular values where Newton-Schulz sends them."""
        return MuonInvariant()

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """See `muon_update`."""
        for some in portions(gradients):
            gradients[some] = muon_update(
                gradients[some],
                state["momentum_buffer"][some],
                state["scale"][some],
                momentum=settings["momentum"],
                eps=settings["muon_epsilon"],
                steps=settings["ns_steps"],
                precision=settings["ns_precision"],
                coefficients=settings["ns_coefficients"],
            )
        return gradients


class Muon(Optimizer):
    """Muon for hidden matrices; AdamW at ``muon_to_adam_lr`` times the rate for embeddings, head, norms and vectors.

    ``betas`` and ``eps`` belong to the AdamW part, which alone is clipped, to the joint norm ``max_grad_norm``
    (0 = off). Decay is decoupled, with each part's own rate. ``ns_precision`` is ``fp32`` or ``bf16``,
    ``ns_coefficients`` is ``quintic`` (the study's) or ``polar_express``.
    """

    rules = (MuonRule(), AdamWRule())
    bounds: ClassVar = {
        "momentum": DECAY_RATE,
        "muon_epsilon": Bounds(above=True),
        "muon_to_adam_lr": Bounds(),
        "ns_steps": Bounds(low=1, whole=True),
    }
    fixed: ClassVar = {"nesterov": True}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.016,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-15,
        weight_decay: float = 0.1,
        *,
        momentum: float = 0.98,
        muon_epsilon: float = 1e-15,
        muon_to_adam_lr: float = 0.2,
        max_grad_norm: float = 1.0,
        ns_steps: int = 5,
        ns_precision: str = "fp32",
        ns_coefficients: str = "quintic",
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        settings = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "muon_epsilon": muon_epsilon,
            "muon_to_adam_lr": muon_to_adam_lr,
            "max_grad_norm": max_grad_norm,
            "ns_steps": ns_steps,
            "ns_precision": check_precision(ns_precision),
            "ns_coefficients": check_coefficients(ns_coefficients),
        }
        super().__init__(params, settings, rules)

    def rule_settings(self, rule: str, settings: Settings) -> Settings:
        """The AdamW part runs at its share of the rate; the Muon part is not clipped."""
        if rule == "adamw":
            return {**settings, "lr": settings["lr"] * settings["muon_to_adam_lr"]}
        return {**settings, "max_grad_norm": 0.0}
