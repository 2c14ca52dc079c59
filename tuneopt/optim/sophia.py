"""Sophia-H: clipped Newton-like steps. Source: Liu et al., arXiv 2305.14342, as run in arXiv 2509.02046."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.invariants.sophia import SophiaInvariant
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, Shape
from tuneopt.optim.settings import Bounds, Settings


def sophia_update(
    gradients: list[Tensor],
    exp_avg: list[Tensor],
    hessian: list[Tensor],
    *,
    step: int,
    beta1: float,
    gamma: float,
    eps: float,
) -> list[Tensor]:
    """The direction u of Sophia for tensors of any shape; ``exp_avg`` is updated in place, ``step`` counts from 1.

    m <- beta1 m + (1 - beta1) g
    u  = clip( (m / (1 - beta1^t)) / max(gamma h, eps), -1, 1 )

    h is an average of estimates of the Hessian's diagonal (`hessian_update`). Where it is 0, as before the first
    estimate, or negative, u is the sign of m for every m above eps.
    """
    correction = 1 - beta1**step
    directions = []
    for gradient, moment, curvature in zip(gradients, exp_avg, hessian, strict=True):
        moment.lerp_(gradient, 1 - beta1)
        scale = torch.mul(curvature, gamma * correction).clamp_(min=eps * correction)
        directions.append(torch.div(moment, scale, out=scale).clamp_(-1, 1))
    return directions


def hessian_update(hessian: list[Tensor], estimates: list[Tensor], *, beta2: float) -> None:
    """h <- beta2 h + (1 - beta2) estimate, without bias correction, in place."""
    torch._foreach_lerp_(hessian, estimates, 1 - beta2)


class SophiaRule(ElementwiseRule):
    """Sophia for every parameter."""

    name = "sophia"
    separable = True

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """The momentum and the average of the Hessian's diagonal."""
        return {"exp_avg": shape, "hessian": shape}

    def invariant(self) -> SophiaInvariant:
        """Bounded by the learning rate, with a Hessian that is refreshed on schedule."""
        return SophiaInvariant()

    def direction(
        self, gradients: list[Tensor], state: dict[str, list[Tensor]], settings: Settings, step: int
    ) -> list[Tensor]:
        """See `sophia_update`."""
        return sophia_update(
            gradients,
            state["exp_avg"],
            state["hessian"],
            step=step,
            beta1=settings["betas"][0],
            gamma=settings["gamma"],
            eps=settings["eps"],
        )


class Sophia(Optimizer):
    """Sophia-H for all parameters, with one global-norm clip of the gradients over all of them.

    Training must hand an estimate of the Hessian's diagonal to `update_hessian` after every ``hessian_interval``
    steps, as `tuneopt.train.second_order.hessian` does; until the first one every step is a sign step. ``betas``
    average the gradient and those estimates, ``gamma`` scales the Hessian. ``max_grad_norm`` 0 switches the clip off.
    """

    rules = (SophiaRule(),)
    bounds: ClassVar = {
        "eps": Bounds(above=True),
        "gamma": Bounds(above=True),
        "hessian_interval": Bounds(low=1, whole=True),
    }

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.004,
        betas: tuple[float, float] = (0.95, 0.99),
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        *,
        gamma: float = 0.0125,
        hessian_interval: int = 10,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        settings = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "gamma": gamma,
            "hessian_interval": hessian_interval,
            "max_grad_norm": max_grad_norm,
        }
        super().__init__(params, settings, rules)

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
