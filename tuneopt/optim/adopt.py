"""ADOPT: Adam whose gradient does not see its own second moment. Source: Taniguchi et al., arXiv 2411.02853.

t = 1:  v <- g^2;  u = 0
t > 1:  m <- beta1 m + (1 - beta1) clip(g / max(sqrt(v), eps), +-c);  u = m;  v <- beta2 v + (1 - beta2) g^2
p <- p - lr (u + wd p)

c is (t - 1)^(1/4) (algorithm 2 of the paper's last version), and v is the one before this step. There is no bias
correction: v begins with a gradient, and a small m at first is a warmup of 1 / (1 - beta1) steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import Settings, settings_of
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, ListState, Tensors


def adopt_update(
    gradients: list[Tensor],  # g, any shapes
    exp_avg: list[Tensor],  # m, shaped as gradients, updated in place
    exp_avg_sq: list[Tensor],  # v, likewise
    *,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
) -> list[Tensor]:
    """The direction u of the module's formula, shaped as gradients; ``step`` is t and counts from 1."""
    if step == 1:
        torch._foreach_addcmul_(exp_avg_sq, gradients, gradients)
        # 0 for every number, and NaN for what is none: a divergence must show.
        return list(torch._foreach_mul(gradients, 0.0))
    root = torch._foreach_sqrt(exp_avg_sq)
    torch._foreach_clamp_min_(root, eps)
    normed = torch._foreach_div(gradients, root)
    del root  # else it lives until the update is copied
    limit = (step - 1) ** 0.25
    torch._foreach_clamp_min_(normed, -limit)
    torch._foreach_clamp_max_(normed, limit)
    torch._foreach_lerp_(exp_avg, normed, 1 - beta1)
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, gradients, gradients, 1 - beta2)
    return [moment.clone() for moment in exp_avg]


class ADOPTRule(ElementwiseRule):
    """ADOPT for every parameter."""

    name = "adopt"
    state = ("exp_avg", "exp_avg_sq")
    separable = True

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `adopt_update`."""
        beta1, beta2 = settings["betas"]
        moments = (state[key] for key in self.state)
        return adopt_update(gradients, *moments, step=step, beta1=beta1, beta2=beta2, eps=settings["eps"])


class ADOPT(Optimizer):
    """ADOPT with decoupled weight decay, for every parameter; one joint clip to ``max_grad_norm`` (0 = off)."""

    rules = (ADOPTRule(),)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.1,
        *,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
