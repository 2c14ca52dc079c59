"""Lion: the sign of an interpolated momentum. Source: Chen et al., arXiv 2302.06675; as run in arXiv 2509.02046."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.blocks import blocks
from tuneopt.optim.invariants.lion import LionInvariant
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, Shape, apply_in_one_pass
from tuneopt.optim.settings import Settings

SMALLEST = 2.0**-100
"""Where the sign is cut off: an interpolated gradient below it, 8e-31, counts in proportion."""


def lion_update(gradients: list[Tensor], exp_avg: list[Tensor], *, beta1: float, beta2: float) -> list[Tensor]:
    """The direction u of Lion times `SMALLEST`, for tensors of any shape; ``exp_avg`` is updated in place.

    u  = sign(beta1 m + (1 - beta1) g)                (0 where that is 0, NaN where it is NaN)
    m <- beta2 m + (1 - beta2) g

    The sign is a clamp to [-`SMALLEST`, `SMALLEST`], since torch's sign turns NaN into 0. The parameter then moves by
    p <- p - lr (u + wd p).
    """
    target = torch._foreach_lerp(exp_avg, gradients, 1 - beta1)
    torch._foreach_lerp_(exp_avg, gradients, 1 - beta2)
    if target[0].device.type == "cpu":
        return [tensor.clamp_(-SMALLEST, SMALLEST) for tensor in target]
    torch._foreach_clamp_min_(target, -SMALLEST)
    torch._foreach_clamp_max_(target, SMALLEST)
    return list(target)


class LionRule(ElementwiseRule):
    """Lion for every parameter."""

    name = "lion"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """The momentum."""
        return {"exp_avg": shape}

    def invariant(self) -> LionInvariant:
        """Every entry moves by the same distance, with the sign of an independent momentum."""
        return LionInvariant()

    def direction(
        self, gradients: list[Tensor], state: dict[str, list[Tensor]], settings: Settings, step: int
    ) -> list[Tensor]:
        """See `lion_update`."""
        beta1, beta2 = settings["betas"]
        signs = lion_update(gradients, state["exp_avg"], beta1=beta1, beta2=beta2)
        torch._foreach_mul_(signs, 1 / SMALLEST)
        return signs

    def advance(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        state: dict[str, list[Tensor]],
        settings: Settings,
        step: int,
        divisor: Tensor | None,
    ) -> None:
        """Direction and apply, with the height of the sign folded into the learning rate."""
        beta1, beta2 = settings["betas"]
        lr, weight_decay = settings["lr"] / SMALLEST, settings["weight_decay"] * SMALLEST
        for _, (own, grads, exp_avg) in blocks([parameters, gradients, state["exp_avg"]]):
            if divisor is not None:
                grads = list(torch._foreach_div(grads, divisor))
            signs = lion_update(grads, exp_avg, beta1=beta1, beta2=beta2)
            apply_in_one_pass(own, signs, {"lr": lr, "weight_decay": weight_decay})


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
        settings = {
            "lr": lr,
            "betas": tuple(betas),
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
        }
        super().__init__(params, settings, rules)
