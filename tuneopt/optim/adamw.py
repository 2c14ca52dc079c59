"""AdamW, through torch's fused kernel. Source: Loshchilov and Hutter, arXiv 1711.05101."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.invariants.adamw import AdamWInvariant
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, Shape
from tuneopt.optim.settings import Settings


def adamw_update(
    parameters: list[Tensor],
    gradients: list[Tensor],
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    divisor: Tensor | None = None,
) -> None:
    """One AdamW step in place, on tensors of one device and dtype (any shapes); ``step`` is t and counts from 1.

    g <- g / divisor
    m <- beta1 m + (1 - beta1) g
    v <- beta2 v + (1 - beta2) g^2
    p <- p (1 - lr wd) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    The kernel is the one behind ``torch.optim.AdamW(fused=True)``. It writes the divided gradients back.
    """
    device = parameters[0].device
    count = torch.full((), float(step), dtype=torch.float32, device=device)
    torch._fused_adamw_(
        parameters,
        gradients,
        exp_avg,
        exp_avg_sq,
        [],
        [count] * len(parameters),
        amsgrad=False,
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,
        eps=eps,
        maximize=False,
        grad_scale=None if divisor is None else divisor.float(),
        found_inf=None,
    )


class AdamWRule(ElementwiseRule):
    """AdamW as main rule or as fallback of the matrix family."""

    name = "adamw"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Both moments."""
        return {"exp_avg": shape, "exp_avg_sq": shape}

    def invariant(self) -> AdamWInvariant:
        """The change equals an independent AdamW step."""
        return AdamWInvariant()

    def direction(
        self, gradients: list[Tensor], state: dict[str, list[Tensor]], settings: Settings, step: int
    ) -> list[Tensor]:
        """The bias-corrected ratio of moments, without the fused kernel: for apply steps that run elsewhere."""
        beta1, beta2 = settings["betas"]
        torch._foreach_lerp_(state["exp_avg"], gradients, 1 - beta1)
        torch._foreach_mul_(state["exp_avg_sq"], beta2)
        torch._foreach_addcmul_(state["exp_avg_sq"], gradients, gradients, 1 - beta2)
        scale = torch._foreach_div(state["exp_avg_sq"], 1 - beta2**step)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, settings["eps"])
        ratio = torch._foreach_div(state["exp_avg"], scale)
        torch._foreach_div_(ratio, 1 - beta1**step)
        return list(ratio)

    def advance(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        state: dict[str, list[Tensor]],
        settings: Settings,
        step: int,
        divisor: Tensor | None,
    ) -> None:
        """The fused kernel, direction and apply in one pass."""
        beta1, beta2 = settings["betas"]
        adamw_update(
            parameters,
            gradients,
            state["exp_avg"],
            state["exp_avg_sq"],
            step=step,
            lr=settings["lr"],
            beta1=beta1,
            beta2=beta2,
            eps=settings["eps"],
            weight_decay=settings["weight_decay"],
            divisor=divisor,
        )


class AdamW(Optimizer):
    """AdamW with decoupled weight decay on matrices and the head, and one global-norm clip over all parameters.

    ``lr`` is the peak learning rate, ``max_grad_norm`` the largest joint gradient norm (0 = off).
    """

    rules = (AdamWRule(),)
    fixed: ClassVar = {"nesterov": False}

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        *,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        settings = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
        }
        super().__init__(params, settings, rules)
