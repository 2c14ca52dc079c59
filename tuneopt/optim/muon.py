"""Muon: momentum orthogonalized by Newton-Schulz. Source: Jordan et al. 2024; as run in arXiv 2509.02046.

M <- mu M + G                                     (a sum, not an average)
u  = s NS(mu M + G),                              NS as in `tuneopt.optim.orthogonalize.newton_schulz`
p <- p - lr (u + wd p)

s is sqrt(max(1, out / in)), or 0.2 sqrt(max(out, in)) with ``scale="match_rms"`` (Liu et al., arXiv 2502.16982), which
gives an update the root mean square of AdamW's. Further switches: `tuneopt.optim.switches`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.base import Optimizer, Parameters
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
from tuneopt.optim.orthogonalize import COEFFICIENTS, PRECISIONS, newton_schulz, shape_factors
from tuneopt.optim.portions import slices
from tuneopt.optim.routing import MAIN, RouteRule
from tuneopt.optim.rule import MatrixRule, Shape
from tuneopt.optim.switches import normalized_rows

ShapeScale: TypeAlias = Annotated[str, OneOf(("spectral", "match_rms"))]
RowDecay: TypeAlias = Annotated[float, Bounds(high=1.0), Only(MAIN)]


def muon_update(
    gradients: Tensor,  # G, (n, a, b)
    momentum_buffer: Tensor,  # M, (n, a, b), updated in place
    scale: Tensor,  # s of each matrix, (n, 1, 1)
    *,
    momentum: float,
    eps: float,
    steps: int = 5,
    precision: str = "fp32",
    coefficients: str = "quintic",
) -> Tensor:
    """The direction u of Muon for a stack of matrices, (n, a, b)."""
    torch.add(gradients, momentum_buffer, alpha=momentum, out=momentum_buffer)
    lookahead = torch.add(gradients, momentum_buffer, alpha=momentum)
    return newton_schulz(lookahead, eps, steps, precision, coefficients).mul_(scale)


class MuonRule(MatrixRule):
    """Muon for hidden matrices."""

    name = "muon"
    state = ("momentum_buffer",)
    epsilon: ClassVar[str] = "muon_epsilon"
    """The setting that is the update's eps."""

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """The momentum, and with ``row_normalize`` a number for each row."""
        rows: dict[str, Shape] = {"row_second_moment": (shape[0], 1)} if settings.get("row_normalize") else {}
        return {**super().state_shapes(shape, settings), **rows}

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """The words of the update function."""
        return {
            "momentum": settings["momentum"],
            "eps": settings[self.epsilon],
            "steps": settings["ns_steps"],
            "precision": settings["ns_precision"],
            "coefficients": settings["ns_coefficients"],
        }

    def update(self, *tensors: Tensor, **settings: Any) -> Tensor:
        """`muon_update`, looked up when it is called, so that tests may put a wrong one in its place."""
        return muon_update(*tensors, **settings)

    def constants(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> dict[str, Tensor]:
        """Both scales of each matrix, which its stack no longer tells: there the short side comes first."""
        factors = shape_factors(shapes, like)
        return {"scale": factors["spectral"], "match_rms": factors["match_rms"]}

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """See the class's update function."""
        scale = state["match_rms" if settings.get("scale") == "match_rms" else "scale"]
        for some in slices(gradients):
            gradients[some] = self.update(
                gradients[some],
                state["momentum_buffer"][some],
                scale[some],
                **self.arguments(settings),
            )
        if settings.get("row_normalize"):
            return normalized_rows(gradients, state["row_second_moment"], settings["row_normalize"])
        return gradients


class Muon(Optimizer):
    """Muon for hidden matrices; AdamW at ``muon_to_adam_lr`` times the rate for embeddings, head, norms and vectors.

    ``betas`` and ``eps`` belong to the AdamW part, which alone is clipped, to the joint norm ``max_grad_norm``
    (0 = off). Decay is decoupled, with each part's own rate. ``ns_precision`` is ``fp32``, ``tf32`` or ``bf16``,
    ``ns_coefficients`` is ``quintic`` (the study's) or ``polar_express``. What follows them are switches, off by
    default (docs/optimizers.md).
    """

    rules = (MuonRule(), AdamWRule())
    fixed: ClassVar = {"nesterov": True}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.016,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-15,
        weight_decay: float = 0.1,
        *,
        momentum: DecayRate = 0.98,
        muon_epsilon: Positive = 1e-15,
        muon_to_adam_lr: Annotated[float, Bounds(), ScalesRate("adamw")] = 0.2,
        max_grad_norm: Annotated[float, Bounds(), Only("adamw")] = 1.0,
        ns_steps: Count = 5,
        ns_precision: Annotated[str, OneOf(PRECISIONS)] = "fp32",
        ns_coefficients: Annotated[str, OneOf(COEFFICIENTS)] = "quintic",
        scale: ShapeScale = "spectral",
        row_normalize: RowDecay = 0.0,
        hyperball: Switch = False,
        cautious_decay: Switch = False,
        decay_follows_lr: Switch = False,
        split_heads: Switch = False,
        matrices: Matrices = "hidden",
        fallback_weight_decay: FallbackDecay = None,
        fallback_learning_rate: FallbackRate = None,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
