"""Prodigy: Adam that estimates its own learning rate. Source: Mishchenko and Defazio, arXiv 2306.06101, algorithm 4.

m <- beta1 m + (1 - beta1) d g;    v <- beta2 v + (1 - beta2) d^2 g^2
r <- sqrt(beta2) r + (1 - sqrt(beta2)) lr d^2 <g, p_0 - p>;    s <- sqrt(beta2) s + (1 - sqrt(beta2)) lr d^2 g
p <- p - lr d (m / (sqrt(v) + d eps) + wd p)
d <- max(d, r / ||s||_1)

d estimates the distance from the first weights p_0 to the solution; it begins at d_0 and is one number for the whole
model: r and the norm of s are sums over all parameters. lr is a factor of the estimate, 1 unless tuned, and follows
the trial's schedule. As in the paper, moments have no bias correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import Positive, Settings, settings_of
from tuneopt.optim.portions import portions
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Divisor, ElementwiseRule, ListState, Shape, Tensors, divided

STATE = ("exp_avg", "exp_avg_sq", "gradient_sum", "initial")
"""m, v, s and p_0."""

NUMERATOR, NORM, DISTANCE = range(3)
"""Places in the state ``estimate`` of each parameter: its part of r, the 1-norm of its s, and d."""


def prodigy_update(
    parameters: list[Tensor],  # p, any shapes, moved in place
    gradients: list[Tensor],  # g, shaped as parameters, as all lists here
    exp_avg: list[Tensor],  # m, updated in place
    exp_avg_sq: list[Tensor],  # v, likewise
    gradient_sum: list[Tensor],  # s, likewise
    initial: list[Tensor],  # p_0
    *,
    distance: Tensor,  # d, 0-dim
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[list[Tensor], list[Tensor]]:
    """Take one step but for r and d; of each tensor, what it adds to r and to the norm of s, both 0-dim."""
    memory, rate = beta2**0.5, lr * distance
    away = torch._foreach_sub(initial, parameters)
    torch._foreach_mul_(away, gradients)
    progress = [x.sum() for x in away]
    torch._foreach_mul_(progress, (1 - memory) * rate * distance)
    del away  # else it lives until the end, one more copy on a device
    scaled = torch._foreach_mul(gradients, distance)
    torch._foreach_lerp_(exp_avg, scaled, 1 - beta1)
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, scaled, scaled, 1 - beta2)
    torch._foreach_mul_(scaled, rate)
    torch._foreach_lerp_(gradient_sum, scaled, 1 - memory)
    del scaled
    root = torch._foreach_sqrt(exp_avg_sq)
    torch._foreach_mul_(root, 1 / distance)
    torch._foreach_add_(root, eps)  # a number: with a tensor, this would wait for the device
    torch._foreach_mul_(root, distance)
    update = torch._foreach_div(exp_avg, root)
    del root
    if weight_decay:
        torch._foreach_add_(update, parameters, alpha=weight_decay)
    torch._foreach_mul_(update, rate)
    torch._foreach_sub_(parameters, update)
    return progress, [s.abs().sum() for s in gradient_sum]


def next_distance(distance: Tensor, numerator: Tensor, norm: Tensor) -> Tensor:
    """max(d, r / ||s||_1), all 0-dim; NaN stays NaN, and before a step with a rate d is what it was."""
    return torch.maximum(distance, numerator / norm.clamp_min(torch.finfo(norm.dtype).tiny))


class ProdigyRule(ElementwiseRule):
    """Prodigy for every parameter; the optimizer takes sums over them."""

    name = "prodigy"
    state = STATE
    reads_weights = True

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Four tensors as the parameter, and three numbers."""
        return {**super().state_shapes(shape, settings), "estimate": (3,)}

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """There is none without the weights: `advance` takes the whole step."""
        raise NotImplementedError("Prodigy's update depends on the weights; use `advance`")

    def advance(
        self, parameters: Tensors, gradients: Tensors, state: ListState, settings: Settings, step: int, divisor: Divisor
    ) -> None:
        """`prodigy_update` portion by portion; sums of a parameter over its portions go into its ``estimate``."""
        (beta1, beta2), memory = settings["betas"], settings["betas"][1] ** 0.5
        numerators, norms, distances = ([e[place] for e in state["estimate"]] for place in (NUMERATOR, NORM, DISTANCE))
        if step == 1:
            torch._foreach_copy_(state["initial"], parameters)
            torch._foreach_clamp_min_(distances, settings["initial_distance"])
        torch._foreach_mul_(numerators, memory)
        torch._foreach_zero_(norms)
        words: dict[str, Any] = {name: settings[name] for name in ("lr", "eps", "weight_decay")}
        words |= {"beta1": beta1, "beta2": beta2}
        columns = [parameters, gradients, *(state[key] for key in self.state)]
        for places, (own, grads, *held) in portions(columns) if parameters else ():
            sums = prodigy_update(own, divided(grads, divisor), *held, distance=distances[0], **words)
            for totals, parts in zip((numerators, norms), sums, strict=True):
                torch._foreach_add_([totals[place] for place in places], parts)


class Prodigy(Optimizer):
    """Prodigy with decoupled weight decay, for every parameter; one joint clip to ``max_grad_norm`` (0 = off).

    ``lr`` multiplies the estimated distance d, which begins at ``initial_distance`` and never falls. A parameter that
    joins late takes its first step at ``initial_distance``.
    """

    rules = (ProdigyRule(),)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        *,
        initial_distance: Positive = 1e-6,
        max_grad_norm: float = 1.0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)

    def joint_sums(self) -> Tensor:
        """r and the 1-norm of s over all parameters that have stepped, (2,)."""
        estimates = self._estimates()
        if not estimates:
            return torch.zeros(2, dtype=torch.float32)
        wide = torch.float64 if any(e.dtype == torch.float64 for e in estimates) else torch.float32
        return torch.stack([e[:DISTANCE].to(estimates[0].device, wide) for e in estimates]).sum(dim=0)

    def take_sums(self, sums: Tensor) -> None:
        """Let d grow, and be the same for all parameters."""
        distances = [estimate[DISTANCE] for estimate in self._estimates()]
        if distances:
            numerator, norm = sums.to(distances[0].device)
            before = torch.stack([d.to(numerator) for d in distances]).amax()
            torch._foreach_copy_(distances, [next_distance(before, numerator, norm)] * len(distances))

    def _estimates(self) -> list[Tensor]:
        members = (parameter for group in self.param_groups for parameter in group["params"])
        return [self.state[p]["estimate"] for p in members if "estimate" in self.state.get(p, {})]
