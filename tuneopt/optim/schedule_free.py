"""Schedule-Free AdamW: AdamW on averaged weights, without a schedule. Source: Defazio et al., arXiv 2405.15682.

v <- beta2 v + (1 - beta2) g^2;  u = g / (sqrt(v / (1 - beta2^t)) + eps) + wd y             (g is the gradient at y)
z <- z - lr u;    S <- S + lr^2;    c = lr^2 / S
x <- (1 - c) x + c z;    y <- (1 - beta1) z + beta1 x

Parameters hold y, where gradients are taken; z is state, and x, the weights that are evaluated and kept, follows from
both: x = (y - (1 - beta1) z) / beta1. In these terms, with the z of before,
y <- y + c (z - y) - lr (1 - beta1 (1 - c)) u. All three begin equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.adamw import root_second_moment
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.bucket import logical
from tuneopt.optim.hyperparameters import Bounds, Settings, settings_of
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Divisor, ElementwiseRule, ListState, Shape, Tensors, divided
from tuneopt.optim.switches import laid_out


def schedule_free_update(
    parameters: list[Tensor],  # y, any shapes, moved in place
    gradients: list[Tensor],  # g, shaped as parameters, as all lists here
    fast: list[Tensor],  # z, moved in place
    exp_avg_sq: list[Tensor],  # v, updated in place
    *,
    share: Tensor,  # c, 0-dim
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One step in place, as the module says; ``step`` is t and counts from 1."""
    root, correction = root_second_moment(exp_avg_sq, gradients, beta2=beta2, eps=eps, step=step)
    update = torch._foreach_mul(gradients, correction)
    torch._foreach_div_(update, root)
    del root  # else it lives until the end, one more copy on a device
    if weight_decay:
        torch._foreach_add_(update, parameters, alpha=weight_decay)
    take_in(parameters, fast, list(update), share=share, lr=lr, beta1=beta1)


def take_in(
    parameters: list[Tensor],  # y, any shapes, moved in place
    fast: list[Tensor],  # z, moved in place
    update: list[Tensor],  # u, decay included; overwritten
    *,
    share: Tensor | list[Tensor],  # c, 0-dim, or one for each parameter
    lr: float,
    beta1: float,
) -> None:
    """The step of z along an update of any rule, and what it makes of y, by the last line of the module's formula."""
    part = [1 - beta1 * (1 - own) for own in share] if isinstance(share, list) else 1 - beta1 * (1 - share)
    ahead = torch._foreach_sub(fast, parameters)
    torch._foreach_mul_(ahead, share)
    torch._foreach_add_(parameters, ahead)
    del ahead
    torch._foreach_mul_(update, lr)
    torch._foreach_sub_(fast, update)
    torch._foreach_mul_(update, part)
    torch._foreach_sub_(parameters, update)


def share_of_step(weight_sum: Tensor, lr: float) -> Tensor:
    """c of this step, 0-dim; S, (1,) or (n, 1), is updated in place. 0 while no step had a rate."""
    weight_sum.add_(lr * lr)
    return (lr * lr / weight_sum.clamp_min(torch.finfo(weight_sum.dtype).tiny)).squeeze(0)


def averaged(parameter: Tensor, fast: Tensor, settings: Settings) -> Tensor:
    """x from y and z, a fresh tensor shaped as the parameter; z may be a stack of its logical matrices, `laid_out`."""
    weight = 1 - 1 / settings["betas"][0]
    x = parameter.to(fast.dtype, copy=True)
    if fast.shape == parameter.shape:
        x.lerp_(fast, weight)
    else:
        for matrix, own in zip(logical(x, settings), fast, strict=True):
            laid_out(matrix, settings).lerp_(own, weight)
    return x.to(parameter.dtype)


class ScheduleFreeRule(ElementwiseRule):
    """Schedule-Free AdamW for every parameter."""

    name = "schedule_free"
    state = ("fast", "exp_avg_sq")
    reads_weights = True

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Two tensors as the parameter, and the sum of squared rates."""
        return {**super().state_shapes(shape, settings), "weight_sum": (1,)}

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """There is none without the weights: `advance` takes the whole step."""
        raise NotImplementedError("an update of Schedule-Free depends on the weights; use `advance`")

    def advance(
        self, parameters: Tensors, gradients: Tensors, state: ListState, settings: Settings, step: int, divisor: Divisor
    ) -> None:
        """`schedule_free_update` portion by portion."""
        if step == 1:
            torch._foreach_copy_(state["fast"], parameters)
        (beta1, beta2), lr = settings["betas"], settings["lr"]
        shares = [share_of_step(weight_sum, lr) for weight_sum in state["weight_sum"]]
        words: dict[str, Any] = {name: settings[name] for name in ("lr", "eps", "weight_decay")}
        words |= {"beta1": beta1, "beta2": beta2}
        columns = [parameters, gradients, *(state[key] for key in self.state)]
        for places, (own, grads, *held) in portions(columns) if parameters else ():
            gradient = divided(grads, divisor)
            schedule_free_update(own, gradient, *held, share=shares[places[0]], step=step, **words)


class AveragedOptimizer(Optimizer):
    """An optimizer whose rules keep z as ``fast``, and that is evaluated and kept at x."""

    def evaluated(self) -> Mapping[Tensor, Tensor]:
        """x of each parameter that has stepped."""
        return {
            parameter: averaged(parameter.detach(), self.state[parameter]["fast"], group)
            for group in self.param_groups
            for parameter in group["params"]
            if "fast" in self.state.get(parameter, {})
        }


class ScheduleFree(AveragedOptimizer):
    """Schedule-Free AdamW for every parameter; one joint clip to ``max_grad_norm`` (0 = off).

    The rate is meant to stay at ``lr`` after a warmup. Evaluate and keep `tuneopt.optim.base.Optimizer.evaluated`
    weights, as the training loop does; the parameters themselves are where gradients are to be taken. ``betas`` are the
    share of x in y, above 0, and the decay of the second moment.
    """

    rules = (ScheduleFreeRule(),)

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        *,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        Bounds(above=True, high=1.0).checked("beta1", betas[0])
        super().__init__(params, settings_of(locals()), rules)
