"""Sophia-H: clipped Newton-like steps. Source: Liu et al., arXiv 2305.14342, as run in arXiv 2509.02046.

m <- beta1 m + (1 - beta1) g
u  = clip( (m / (1 - beta1^t)) / max(gamma h, eps), -1, 1 )
p <- p - lr (u + wd p)
every ``hessian_interval`` steps:  h <- beta2 h + (1 - beta2) estimate       (of the Hessian's diagonal, uncorrected)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import Count, Positive, Settings, settings_of
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, ListState, Tensors


def sophia_update(
    gradients: list[Tensor],  # g, any shapes
    exp_avg: list[Tensor],  # m, shaped as gradients, updated in place
    hessian: list[Tensor],  # h, shaped as gradients
    *,
    step: int,
    beta1: float,
    gamma: float,
    eps: float,
) -> list[Tensor]:
    """The direction u of Sophia, shaped as gradients; ``step`` is t and counts from 1.

    Where h is 0, as before the first estimate, or negative, u is the sign of m for every m above eps.
    """
    correction = 1 - beta1**step
    directions = []
    for gradient, moment, curvature in zip(gradients, exp_avg, hessian, strict=True):
        moment.lerp_(gradient, 1 - beta1)
        scale = torch.mul(curvature, gamma * correction).clamp_(min=eps * correction)
        directions.append(torch.div(moment, scale, out=scale).clamp_(-1, 1))
    return directions


def hessian_update(hessian: list[Tensor], estimates: list[Tensor], *, beta2: float) -> None:
    """h <- beta2 h + (1 - beta2) estimate, without bias correction, in place; all shaped as parameters."""
    torch._foreach_lerp_(hessian, estimates, 1 - beta2)


class SophiaRule(ElementwiseRule):
    """Sophia for every parameter."""

    name = "sophia"
    state = ("exp_avg", "hessian")
    separable = True

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `sophia_update`."""
        words = {"beta1": settings["betas"][0], "gamma": settings["gamma"], "eps": settings["eps"]}
        return sophia_update(gradients, state["exp_avg"], state["hessian"], step=step, **words)


class Sophia(Optimizer):
    """Sophia-H for all parameters, with one global-norm clip of the gradients over all of them.

    Training must hand an estimate of the Hessian's diagonal to `update_hessian` after every ``hessian_interval``
    steps, as `tuneopt.training.second_order` does; until the first one every step is a sign step. ``betas``
    average the gradient and those estimates, ``gamma`` scales the Hessian. ``max_grad_norm`` 0 switches the clip off.
    """

    rules = (SophiaRule(),)

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.004,
        betas: tuple[float, float] = (0.95, 0.99),
        eps: Positive = 1e-12,
        weight_decay: float = 0.1,
        *,
        gamma: Positive = 0.0125,
        hessian_interval: Count = 10,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)

    @property
    def hessian_interval(self) -> int:
        """Steps between two estimates."""
        return int(self.defaults["hessian_interval"])

    @torch.no_grad()
    def update_hessian(self, diagonal: Mapping[Tensor, Tensor]) -> None:
        """Average in an estimate of the Hessian's diagonal, one tensor for each parameter that has stepped.

        The study takes it at the weights and on the batch of the step just done; it counts from the next step on.
        """
        for group in self.param_groups:
            known = [p for p in group["params"] if p in diagonal and self.state.get(p)]
            if known:
                averages = [self.state[parameter]["hessian"] for parameter in known]
                estimates = [diagonal[p].to(h) for p, h in zip(known, averages, strict=True)]
                hessian_update(averages, estimates, beta2=group["betas"][1])
