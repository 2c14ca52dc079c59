"""Cautious AdamW: no step against the gradient. Source: Liang et al., arXiv 2411.16085; as run in arXiv 2509.02046.

m <- beta1 m + (1 - beta1) g;    v <- beta2 v + (1 - beta2) g^2
a  = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
u  = a [a g > 0] / (kept + eps),    kept = share of the entries of the whole tensor with a g > 0
p <- p - lr (u + wd p)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from tuneopt.optim.adamw import root_second_moment
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import Bounds, Settings, settings_of
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Divisor, ElementwiseRule, ListState, Tensors, apply_in_one_pass, divided


def agreeing(exp_avg: list[Tensor], gradients: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """|m| where m and g have the same sign and 0 elsewhere, and the sign of g; fresh tensors, shaped as gradients.

    The product with a sign, unlike m g > 0, cannot underflow, and it keeps NaN.
    """
    signs = torch._foreach_sign(gradients)
    sizes = torch._foreach_mul(exp_avg, signs)
    torch._foreach_clamp_min_(sizes, 0.0)
    return list(sizes), list(signs)


def average_and_count(exp_avg: list[Tensor], gradients: list[Tensor], *, beta1: float) -> list[Tensor]:
    """Update m <- beta1 m + (1 - beta1) g in place; return the number of entries in which it agrees with g, 0-dim."""
    torch._foreach_lerp_(exp_avg, gradients, 1 - beta1)
    mask, _ = agreeing(exp_avg, gradients)
    torch._foreach_sign_(mask)
    return [entries.sum() for entries in mask]


def cautious_update(
    gradients: list[Tensor],  # g, any shapes
    exp_avg: list[Tensor],  # m of this step already, shaped as gradients
    exp_avg_sq: list[Tensor],  # v, shaped as gradients, updated in place
    kept: list[Tensor],  # 0-dim each, of the whole tensor
    *,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
) -> list[Tensor]:
    """The direction u of the module's formula, shaped as gradients; ``step`` is t and counts from 1."""
    direction, signs = agreeing(exp_avg, gradients)
    torch._foreach_mul_(direction, signs)
    del signs  # before the root takes its room
    root, correction = root_second_moment(exp_avg_sq, gradients, beta2=beta2, eps=eps, step=step)
    scale = torch._foreach_add(kept, eps)
    torch._foreach_mul_(scale, (1 - beta1**step) / correction)
    torch._foreach_div_(direction, list(scale))
    torch._foreach_div_(direction, root)
    return direction


class CautiousRule(ElementwiseRule):
    """Cautious AdamW for every parameter."""

    name = "cautious"
    state = ("exp_avg", "exp_avg_sq")

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `cautious_update`; takes whole tensors."""
        beta1, beta2 = settings["betas"]
        counts = average_and_count(state["exp_avg"], gradients, beta1=beta1)
        kept = list(torch._foreach_div(counts, [float(gradient.numel()) for gradient in gradients]))
        words = {"step": step, "beta1": beta1, "beta2": beta2, "eps": settings["eps"]}
        return cautious_update(gradients, state["exp_avg"], state["exp_avg_sq"], kept, **words)

    def advance(
        self, parameters: Tensors, gradients: Tensors, state: ListState, settings: Settings, step: int, divisor: Divisor
    ) -> None:
        """Two rounds over the portions, because the share of entries that are kept is known only after the first."""
        beta1, beta2 = settings["betas"]
        counts: list[list[Tensor]] = [[] for _ in parameters]
        for positions, (grads, exp_avg) in portions([gradients, state["exp_avg"]]):
            agreed = average_and_count(exp_avg, divided(grads, divisor), beta1=beta1)
            for position, count in zip(positions, agreed, strict=True):
                counts[position].append(count)
        totals = [count[0] if len(count) == 1 else torch.stack(count).sum() for count in counts]
        kept = torch._foreach_div(totals, [float(gradient.numel()) for gradient in gradients])
        columns = [parameters, gradients, state["exp_avg"], state["exp_avg_sq"]]
        words = {"step": step, "beta1": beta1, "beta2": beta2, "eps": settings["eps"]}
        for positions, (own, grads, exp_avg, exp_avg_sq) in portions(columns):
            shares = [kept[position] for position in positions]
            apply_in_one_pass(
                own, cautious_update(divided(grads, divisor), exp_avg, exp_avg_sq, shares, **words), settings
            )


class Cautious(Optimizer):
    """AdamW that zeroes the entries of its update that point against the gradient and rescales the rest, per tensor.

    One joint clip to ``max_grad_norm`` (0 = off). ``eps`` is added both to the root of the second moment and to the
    share of entries that are kept, as in the study; it must be a normal number in fp32.
    """

    rules = (CautiousRule(),)

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.008,
        betas: tuple[float, float] = (0.98, 0.98),
        eps: Annotated[float, Bounds(low=1e-37)] = 1e-25,
        weight_decay: float = 0.1,
        *,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
