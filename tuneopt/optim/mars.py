"""MARS: AdamW on variance-reduced gradients. Source: Yuan et al., arXiv 2411.10438; as run in arXiv 2509.02046.

c  = g + gamma beta1 / (1 - beta1) (g - g_previous)                     (g_previous is 0 in the first step)
c <- c / max(1, ||c|| / max_grad_norm),  one norm over all parameters
m <- beta1 m + (1 - beta1) c;    v <- beta2 v + (1 - beta2) c^2
p <- p (1 - lr wd) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.bucket import Batch
from tuneopt.optim.hyperparameters import NotNegative, settings_of
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import RouteRule


def corrected(
    gradients: list[Tensor],  # g, any shapes
    previous: list[Tensor],  # g_previous, shaped as gradients; overwritten by c
    *,
    gamma: float,
    beta1: float,
) -> None:
    """Overwrite ``previous`` gradients with the corrected gradients c of this step."""
    weight = 1 + gamma * beta1 / (1 - beta1)  # c = g_previous + weight (g - g_previous)
    for _, (before, now) in portions([previous, gradients]):
        torch._foreach_lerp_(before, now, weight)


class MARSRule(AdamWRule):
    """AdamW on corrected gradients, which the optimizer hands over; keeps the raw gradient of the step before."""

    name = "mars"
    state = ("exp_avg", "exp_avg_sq", "previous_gradient")


class MARS(Optimizer):
    """MARS-AdamW in its approximate form (the previous gradient is the one of the previous batch), for every parameter.

    ``gamma`` scales the correction; ``max_grad_norm`` (0 = off) is the largest joint norm of the corrected gradients.
    """

    rules = (MARSRule(),)

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.008,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-25,
        weight_decay: float = 0.1,
        *,
        gamma: NotNegative = 0.025,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)

    def prepare(self, batches: list[Batch]) -> None:
        """Replace gradients by corrected ones, which for this step take the place of the previous gradients.

        So the correction needs no memory of its own, and the clip sees what it has to clip.
        """
        for batch in batches:
            previous = [self.state[parameter]["previous_gradient"] for parameter in batch.parameters]
            gradients = [g.to(old.dtype) for g, old in zip(batch.gradients, previous, strict=True)]
            corrected(gradients, previous, gamma=batch.settings["gamma"], beta1=batch.settings["betas"][0])
            batch.gradients = previous

    def finish(self, batches: list[Batch]) -> None:
        """Keep the raw gradients for the next step."""
        for batch in batches:
            gradients = [parameter.grad for parameter in batch.parameters if parameter.grad is not None]
            torch._foreach_copy_(batch.gradients, gradients)
