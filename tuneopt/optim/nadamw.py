"""NAdamW: AdamW with one Nesterov look-ahead. Source: Dozat 2016, ICLR workshop; constant beta1 as in 2509.02046.

m <- beta1 m + (1 - beta1) g;    v <- beta2 v + (1 - beta2) g^2
u  = [ beta1 m / (1 - beta1^(t+1)) + (1 - beta1) g / (1 - beta1^t) ] / (sqrt(v / (1 - beta2^t)) + eps)
p <- p - lr (u + wd p)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from tuneopt.optim.adamw import adamw_update, root_second_moment
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import OneOf, Settings, settings_of
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Divisor, ElementwiseRule, ListState, Tensors


def look_ahead_weights(beta1: float, step: int, bias_correction: str) -> tuple[float, float]:
    """What m and g weigh in the first moment that looks one step ahead, bias correction included.

    ``next`` corrects m by the step whose place it takes, t + 1, as the formula says; ``same`` corrects both by t.
    """
    ahead = step + 1 if bias_correction == "next" else step
    return beta1 / (1 - beta1**ahead), (1 - beta1) / (1 - beta1**step)


def nadamw_update(
    gradients: list[Tensor],  # g, any shapes
    exp_avg: list[Tensor],  # m, shaped as gradients, updated in place
    exp_avg_sq: list[Tensor],  # v, shaped as gradients, updated in place
    *,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
    bias_correction: str = "next",
) -> list[Tensor]:
    """The direction u of the module's formula, shaped as gradients; ``step`` is t and counts from 1."""
    torch._foreach_lerp_(exp_avg, gradients, 1 - beta1)
    root, correction = root_second_moment(exp_avg_sq, gradients, beta2=beta2, eps=eps, step=step)
    average, fresh = look_ahead_weights(beta1, step, bias_correction)
    direction = torch._foreach_mul(exp_avg, average * correction)
    torch._foreach_add_(direction, gradients, alpha=fresh * correction)
    torch._foreach_div_(direction, root)
    return list(direction)


class NAdamWRule(ElementwiseRule):
    """NAdamW for every parameter."""

    name = "nadamw"
    state = ("exp_avg", "exp_avg_sq")

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `nadamw_update`."""
        beta1, beta2 = settings["betas"]
        words = {"beta1": beta1, "beta2": beta2, "eps": settings["eps"], "bias_correction": settings["bias_correction"]}
        return nadamw_update(gradients, state["exp_avg"], state["exp_avg_sq"], step=step, **words)

    def advance(
        self, parameters: Tensors, gradients: Tensors, state: ListState, settings: Settings, step: int, divisor: Divisor
    ) -> None:
        """The same in two parts: AdamW's fused kernel for what m weighs, one more division for what g weighs.

        Two passes fewer than `direction` and apply. The kernel's step is lr' m / (1 - beta1^t) / ..., so its rate lr'
        makes up for the other bias correction, and its decay for that rate.
        """
        beta1, beta2 = settings["betas"]
        # A rate may be a tensor, as schedulers of compiled steps have it; here it multiplies numbers.
        lr, eps = float(settings["lr"]), settings["eps"]
        average, fresh = look_ahead_weights(beta1, step, settings["bias_correction"])
        share = average * (1 - beta1**step) or 1.0  # of AdamW's rate; at beta1 = 0 the kernel's m is g, and is all
        correction = (1 - beta2**step) ** 0.5
        columns = [parameters, gradients, state["exp_avg"], state["exp_avg_sq"]]
        for _, (own, grads, exp_avg, exp_avg_sq) in portions(columns):
            adamw_update(
                own,
                grads,
                exp_avg,
                exp_avg_sq,
                step=step,
                lr=lr * share,
                beta1=beta1,
                beta2=beta2,
                eps=eps,
                weight_decay=settings["weight_decay"] / share,
                divisor=divisor,
            )
            if beta1 > 0:
                # The kernel has written the divided gradients back, so here they are used as they are.
                root = torch._foreach_sqrt(exp_avg_sq)
                torch._foreach_add_(root, eps * correction)
                torch._foreach_addcdiv_(own, grads, root, -lr * fresh * correction)
                del root  # else it lives until the next portion's is there


class NAdamW(Optimizer):
    """AdamW with a Nesterov look-ahead at constant beta1, for every parameter; one joint clip to ``max_grad_norm``.

    ``bias_correction`` of the looked-ahead average counts the ``next`` step (the study's rule) or the ``same`` one.
    """

    rules = (NAdamWRule(),)
    fixed: ClassVar = {"nesterov": True}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.008,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-10,
        weight_decay: float = 0.1,
        *,
        max_grad_norm: float = 1.0,
        bias_correction: Annotated[str, OneOf(("next", "same"))] = "next",
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
