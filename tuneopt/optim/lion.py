"""Lion: the sign of an interpolated momentum. Source: Chen et al., arXiv 2302.06675; as run in arXiv 2509.02046.

u  = sign(beta1 m + (1 - beta1) g)
m <- beta2 m + (1 - beta2) g
p <- p - lr (u + wd p)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import Settings, settings_of
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Divisor, ElementwiseRule, ListState, Tensors, apply_in_one_pass, divided

# torch.sign(NaN) is 0, which would hide a divergence, and each further pass over the sign costs a tenth of the step
# (10M parameters, one core): so the sign is a clamp to +-HEIGHT, and the learning rate makes up for the height.
HEIGHT = 2.0**-100
"""Where the sign is cut off: an interpolated gradient below it, 8e-31, counts in proportion. Exact to multiply by."""


def lion_update(
    gradients: list[Tensor],  # g, any shapes
    exp_avg: list[Tensor],  # m, shaped as gradients, updated in place
    *,
    beta1: float,
    beta2: float,
) -> list[Tensor]:
    """`HEIGHT` times the direction u of Lion, shaped as gradients; 0 where the sign is of 0, NaN where of NaN."""
    target = torch._foreach_lerp(exp_avg, gradients, 1 - beta1)
    torch._foreach_lerp_(exp_avg, gradients, 1 - beta2)
    if target[0].device.type == "cpu":
        return [tensor.clamp_(-HEIGHT, HEIGHT) for tensor in target]  # one pass; foreach has none for both ends
    torch._foreach_clamp_min_(target, -HEIGHT)
    torch._foreach_clamp_max_(target, HEIGHT)
    return list(target)


class LionRule(ElementwiseRule):
    """Lion for every parameter."""

    name = "lion"
    state = ("exp_avg",)

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `lion_update`; at full height."""
        beta1, beta2 = settings["betas"]
        signs = lion_update(gradients, state["exp_avg"], beta1=beta1, beta2=beta2)
        torch._foreach_mul_(signs, 1 / HEIGHT)
        return signs

    def advance(
        self, parameters: Tensors, gradients: Tensors, state: ListState, settings: Settings, step: int, divisor: Divisor
    ) -> None:
        """Direction and apply, with the height of the sign folded into the learning rate."""
        beta1, beta2 = settings["betas"]
        scaled = {"lr": settings["lr"] / HEIGHT, "weight_decay": settings["weight_decay"] * HEIGHT}
        for _, (own, grads, exp_avg) in portions([parameters, gradients, state["exp_avg"]]):
            apply_in_one_pass(own, lion_update(divided(grads, divisor), exp_avg, beta1=beta1, beta2=beta2), scaled)


class Lion(Optimizer):
    """Lion for every parameter, embeddings, head and norms included; one joint clip to ``max_grad_norm`` (0 = off).

    ``betas`` are (weight of the momentum in the sign, decay of the momentum). There is no epsilon.
    """

    rules = (LionRule(),)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.7,
        *,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
