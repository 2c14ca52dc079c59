"""AdEMAMix: AdamW with a second, much slower first moment. Source: Pagliardini et al., arXiv 2409.03137, algorithm 1.

m <- beta1 m + (1 - beta1) g;    n <- b n + (1 - b) g;    v <- beta2 v + (1 - beta2) g^2
u  = (m / (1 - beta1^t) + a n) / (sqrt(v / (1 - beta2^t)) + eps)
p <- p - lr (u + wd p)

The slow moment n has no bias correction. Its weight a rises linearly to alpha, and its decay b from beta1 to beta3 so
that ln(2) / -ln(b), its half-life, rises linearly; both over T steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from tuneopt.optim.adamw import root_second_moment
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import Bounds, DecayRate, Index, NotNegative, Settings, settings_of
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, ListState, Tensors


def slow_weights(step: int, warmup: float, *, beta1: float, beta3: float, alpha: float) -> tuple[float, float]:
    """(a, b) of step t, which counts from 1; ``warmup`` is T in steps, 0 for none."""
    done = step / warmup if warmup else 1.0
    if done >= 1 or beta1 == 0 or beta3 <= beta1:
        return alpha * min(1.0, done), beta3
    slow, fast = math.log(beta3), math.log(beta1)
    return alpha * done, min(beta3, math.exp(slow * fast / ((1 - done) * slow + done * fast)))


def ademamix_update(
    gradients: list[Tensor],  # g, any shapes
    exp_avg: list[Tensor],  # m, shaped as gradients, updated in place
    exp_avg_slow: list[Tensor],  # n, likewise
    exp_avg_sq: list[Tensor],  # v, likewise
    *,
    step: int,
    beta1: float,
    beta2: float,
    slow_decay: float,
    slow_weight: float,
    eps: float,
) -> list[Tensor]:
    """The direction u, shaped as gradients, with a = ``slow_weight`` and b = ``slow_decay``."""
    torch._foreach_lerp_(exp_avg, gradients, 1 - beta1)
    torch._foreach_lerp_(exp_avg_slow, gradients, 1 - slow_decay)
    root, correction = root_second_moment(exp_avg_sq, gradients, beta2=beta2, eps=eps, step=step)
    direction = torch._foreach_mul(exp_avg, correction / (1 - beta1**step))
    torch._foreach_add_(direction, exp_avg_slow, alpha=slow_weight * correction)
    torch._foreach_div_(direction, root)
    return list(direction)


class AdEMAMixRule(ElementwiseRule):
    """AdEMAMix for every parameter."""

    name = "ademamix"
    state = ("exp_avg", "exp_avg_slow", "exp_avg_sq")
    separable = True

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `ademamix_update`."""
        beta1, beta2 = settings["betas"]
        warmup = settings["slow_warmup"] * settings["steps"]
        weight, decay = slow_weights(step, warmup, beta1=beta1, beta3=settings["beta3"], alpha=settings["alpha"])
        return ademamix_update(
            gradients,
            *(state[key] for key in self.state),
            step=step,
            beta1=beta1,
            beta2=beta2,
            slow_decay=decay,
            slow_weight=weight,
            eps=settings["eps"],
        )


class AdEMAMix(Optimizer):
    """AdEMAMix for every parameter; one joint clip to ``max_grad_norm`` (0 = off).

    ``alpha`` and ``beta3`` are those of the slow moment. ``slow_warmup`` is T as a fraction of ``steps``, the steps of
    the whole run, which the training loop passes; without them there is no warmup of the two.
    """

    rules = (AdEMAMixRule(),)
    run_facts = ("steps",)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        *,
        beta3: DecayRate = 0.9999,
        alpha: NotNegative = 8.0,
        slow_warmup: Annotated[float, Bounds()] = 1.0,
        steps: Index = 0,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
