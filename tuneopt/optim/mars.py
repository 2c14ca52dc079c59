"""MARS: AdamW on variance-reduced gradients. Source: Yuan et al., arXiv 2411.10438; as run in arXiv 2509.02046."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.blocks import blocks
from tuneopt.optim.invariants.mars import MARSInvariant
from tuneopt.optim.pool import Batch
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Shape
from tuneopt.optim.settings import Bounds, Settings


def corrected(gradients: list[Tensor], previous: list[Tensor], *, gamma: float, beta1: float) -> None:
    """Overwrite ``previous`` gradients with the corrected gradients c of this step (tensors of any shape).

    c = g + gamma beta1 / (1 - beta1) (g - g_previous)                      (g_previous is 0 in the first step)
    """
    weight = 1 + gamma * beta1 / (1 - beta1)
    for _, (before, now) in blocks([previous, gradients]):
        torch._foreach_lerp_(before, now, weight)


class MARSRule(AdamWRule):
    """AdamW on corrected gradients, which the optimizer hands over; keeps the raw gradient of the step before.

    c <- c / max(1, ||c|| / max_grad_norm),  one norm over all parameters
    m <- beta1 m + (1 - beta1) c;    v <- beta2 v + (1 - beta2) c^2
    p <- p (1 - lr wd) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
    """

    name = "mars"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Both moments and the gradient of the step before."""
        return {**super().state_shapes(shape, settings), "previous_gradient": shape}

    def invariant(self) -> MARSInvariant:
        """The change differs from AdamW's by exactly the correction."""
        return MARSInvariant()


class MARS(Optimizer):
    """MARS-AdamW in its approximate form (the previous gradient is the one of the previous batch), for every parameter.

    ``gamma`` scales the correction; ``max_grad_norm`` (0 = off) is the largest joint norm of the corrected gradients.
    """

    rules = (MARSRule(),)
    bounds: ClassVar = {"gamma": Bounds()}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.008,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-25,
        weight_decay: float = 0.1,
        *,
        gamma: float = 0.025,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        settings = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "gamma": gamma,
            "max_grad_norm": max_grad_norm,
        }
        super().__init__(params, settings, rules)

    def prepare(self, batches: list[Batch]) -> None:
        """Replace gradients by corrected ones, which for this step take the place of the previous gradients."""
        for batch in batches:
            previous = [self.state[parameter]["previous_gradient"] for parameter in batch.parameters]
            gradients = [g.to(old.dtype) for g, old in zip(batch.gradients, previous, strict=True)]
            settings = batch.settings
            corrected(gradients, previous, gamma=settings["gamma"], beta1=settings["betas"][0])
            batch.gradients = previous

    def finish(self, batches: list[Batch]) -> None:
        """Keep the raw gradients for the next step."""
        for batch in batches:
            gradients = [parameter.grad for parameter in batch.parameters if parameter.grad is not None]
            torch._foreach_copy_(batch.gradients, gradients)
