"""SF-Muon: Muon on averaged weights, without a schedule. Source: Apte et al., arXiv 2605.23061 (with rows evened).

M <- mu M + G                                       (G is the gradient at y)
u  = s NS(mu M + G)                                 as in `tuneopt.optim.muon`
z <- z - lr (u + wd z);    S <- S + lr^2;    c = lr^2 / S
x <- (1 - c) x + c z;      y <- (1 - beta1) z + beta1 x

What parameters hold, where x comes from and when it is evaluated: as in `tuneopt.optim.schedule_free`, which all other
parameters have. Decay is at z, which the source finds necessary in long runs. With
``row_normalize`` it is SF-NorMuon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from tuneopt.optim.base import Parameters
from tuneopt.optim.hyperparameters import (
    Bounds,
    Count,
    DecayRate,
    FallbackDecay,
    FallbackRate,
    Matrices,
    OneOf,
    Only,
    Positive,
    ScalesRate,
    Settings,
    Switch,
    settings_of,
)
from tuneopt.optim.muon import MuonRule, RowDecay, ShapeScale
from tuneopt.optim.orthogonalize import COEFFICIENTS, PRECISIONS
from tuneopt.optim.portions import slices
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Shape, Tensors
from tuneopt.optim.schedule_free import AveragedOptimizer, ScheduleFreeRule, share_of_step, take_in


class SFMuonRule(MuonRule):
    """SF-Muon for hidden matrices."""

    name = "sf_muon"
    reads_weights = True

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Muon's, the fast weights, and the sum of squared rates."""
        return {**super().state_shapes(shape, settings), "fast": shape, "weight_sum": (1,)}

    def move(
        self, targets: Tensors, direction: Tensor, state: dict[str, Tensor], settings: Settings, step: int
    ) -> None:
        """`take_in` of u + wd z, a slice of the stack at a time."""
        shares = share_of_step(state["weight_sum"], settings["lr"]).view(-1, 1, 1)
        for some in slices(direction):
            weights, fast = torch.stack(targets[some]).to(direction.dtype), state["fast"][some]
            if step == 1:
                fast.copy_(weights)
            update = direction[some].add_(fast, alpha=settings["weight_decay"])
            words = {"lr": settings["lr"], "beta1": settings["betas"][0]}
            take_in([weights], [fast], [update], share=[shares[some]], **words)
            torch._foreach_copy_(targets[some], list(weights.unbind(0)))


class SFMuon(AveragedOptimizer):
    """SF-Muon for hidden matrices; Schedule-Free AdamW at ``muon_to_adam_lr`` times the rate for all others.

    The rate is meant to stay at ``lr`` after a warmup. ``betas`` are the share of x in y, above 0 and the same for all
    parameters, and the decay of AdamW's second moment. The other arguments are as for `tuneopt.optim.muon.Muon`.
    Evaluate and keep `evaluated` weights, as the training loop does.
    """

    rules = (SFMuonRule(), ScheduleFreeRule())

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        *,
        momentum: DecayRate = 0.9,
        muon_epsilon: Positive = 1e-15,
        muon_to_adam_lr: Annotated[float, Bounds(), ScalesRate("schedule_free")] = 0.3,
        max_grad_norm: Annotated[float, Bounds(), Only("schedule_free")] = 1.0,
        ns_steps: Count = 5,
        ns_precision: Annotated[str, OneOf(PRECISIONS)] = "fp32",
        ns_coefficients: Annotated[str, OneOf(COEFFICIENTS)] = "quintic",
        scale: ShapeScale = "spectral",
        row_normalize: RowDecay = 0.0,
        split_heads: Switch = False,
        matrices: Matrices = "hidden",
        fallback_weight_decay: FallbackDecay = None,
        fallback_learning_rate: FallbackRate = None,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        Bounds(above=True, high=1.0).checked("beta1", betas[0])
        super().__init__(params, settings_of(locals()), rules)
