"""AdamW, through torch's fused kernel. Source: Loshchilov and Hutter, arXiv 1711.05101.

m <- beta1 m + (1 - beta1) g;    v <- beta2 v + (1 - beta2) g^2
p <- p (1 - lr wd) - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

Also the fallback rule of the matrix family, and the home of the second moment that all of the Adam family shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import FallbackDecay, FallbackRate, Matrices, Settings, Switch, settings_of
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Divisor, ElementwiseRule, ListState, MatrixRule, Tensors


def adamw_update(
    parameters: list[Tensor],  # any shapes; one device and dtype, contiguous, as all tensors here
    gradients: list[Tensor],  # shaped as parameters; overwritten by what they are after the clip
    exp_avg: list[Tensor],  # m, shaped as parameters
    exp_avg_sq: list[Tensor],  # v, shaped as parameters
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    divisor: Tensor | None = None,  # 0-dim
) -> None:
    """One AdamW step in place, as the module says, with g <- g / divisor first; ``step`` is t and counts from 1.

    The kernel is the one behind ``torch.optim.AdamW(fused=True)``.
    """
    count = torch.full((), float(step), dtype=torch.float32, device=parameters[0].device)
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


def root_second_moment(
    exp_avg_sq: list[Tensor], gradients: list[Tensor], *, beta2: float, eps: float, step: int
) -> tuple[list[Tensor], float]:
    """Update v in place; return fresh tensors sqrt(v) + s eps, and s = sqrt(1 - beta2^t).

    v <- beta2 v + (1 - beta2) g^2.  Then x / (sqrt(v / (1 - beta2^t)) + eps) is s x / (sqrt(v) + s eps), which leaves
    the bias correction to a factor that the numerator takes along.
    """
    torch._foreach_mul_(exp_avg_sq, beta2)
    torch._foreach_addcmul_(exp_avg_sq, gradients, gradients, 1 - beta2)
    root = torch._foreach_sqrt(exp_avg_sq)
    correction = (1 - beta2**step) ** 0.5
    torch._foreach_add_(root, eps * correction)
    return list(root), correction


def adamw_direction(gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
    """The bias-corrected ratio of moments, without the fused kernel: for apply steps that run elsewhere."""
    beta1, beta2 = settings["betas"]
    torch._foreach_lerp_(state["exp_avg"], gradients, 1 - beta1)
    root, correction = root_second_moment(state["exp_avg_sq"], gradients, beta2=beta2, eps=settings["eps"], step=step)
    ratio = torch._foreach_mul(state["exp_avg"], correction / (1 - beta1**step))
    torch._foreach_div_(ratio, root)
    return list(ratio)


class AdamWRule(ElementwiseRule):
    """AdamW as main rule or as fallback of the matrix family."""

    name = "adamw"
    state: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `adamw_direction`."""
        return adamw_direction(gradients, state, settings, step)

    def advance(
        self, parameters: Tensors, gradients: Tensors, state: ListState, settings: Settings, step: int, divisor: Divisor
    ) -> None:
        """The fused kernel: direction and apply in one pass."""
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


class AdamWMatrixRule(MatrixRule):
    """AdamW over stacks of whole matrices, for the switches of `tuneopt.optim.switches`."""

    name = "adamw_matrix"
    state: ClassVar[tuple[str, ...]] = AdamWRule.state

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """As `AdamWRule.direction`: entries do not see each other."""
        (update,) = adamw_direction([gradients], {key: [state[key]] for key in self.state}, settings, step)
        return update


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
        super().__init__(params, settings_of(locals()), rules)


class MatrixAdamW(Optimizer):
    """AdamW whose hidden matrices are stepped as a whole, so that they take the switches of matrix rules.

    Without a switch it is AdamW but for the fused kernel's rounding. `adamh` and `adamc` are made of it.
    """

    rules = (AdamWMatrixRule(), AdamWRule())

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        *,
        max_grad_norm: float = 1.0,
        hyperball: Switch = False,
        cautious_decay: Switch = False,
        decay_follows_lr: Switch = False,
        matrices: Matrices = "hidden",
        fallback_weight_decay: FallbackDecay = None,
        fallback_learning_rate: FallbackRate = None,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
