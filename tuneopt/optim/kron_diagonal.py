"""Kron's fallback: PSGD with diagonal factors, for embeddings, head, norms and vectors; and what both rules share."""

from __future__ import annotations

import torch
from torch import Tensor

from tuneopt.optim.invariants.kron import KronDiagonalInvariant
from tuneopt.optim.psgd import BALANCE_EVERY, DAMPING, fit_diagonal, fit_number
from tuneopt.optim.rule import ElementwiseRule, Rule, Shape
from tuneopt.optim.settings import Settings

UPDATE_RMS = 1.1
"""Largest root mean square of a direction; above it the direction is scaled down."""

TINY = 1e-16
"""Added to the norm that a gradient is divided by."""


class PreconditionedRule(Rule):
    """What both rules share: when factors are fitted, and what becomes of gradient and direction."""

    def draws(self, settings: Settings, step: int) -> bool:
        """A probe on every step with a fit."""
        return self.fit(settings, step) > 0

    def fit(self, settings: Settings, step: int) -> int:
        """The number of the fit on this step, 0 for none."""
        return fit_number(step, settings["preconditioner_update_probability"], settings["update_prob_flat_start"])


def normalized(gradients: Tensor) -> Tensor:
    """Each matrix of a stack (n, a, b) divided by its Frobenius norm, in place; zero stays zero."""
    return gradients.div_(torch.linalg.vector_norm(gradients, dim=(1, 2), keepdim=True).add_(TINY))


def clip_rms(directions: Tensor, correction: float) -> Tensor:
    """Each matrix of a stack divided by ``correction``, then brought to rms 1.1 where its entries exceed that."""
    size = directions[0].numel() ** 0.5 * UPDATE_RMS
    rms = torch.linalg.vector_norm(directions, dim=(1, 2), keepdim=True).div_(size)
    return directions.div_(rms.clamp_(min=correction))


def kron_diagonal_update(
    gradients: Tensor,
    probe: Tensor | None,
    momentum: Tensor,
    left: Tensor,
    right: Tensor,
    *,
    step: int,
    fit: int,
    beta1: float,
    factor_lr: float,
    init_scale: float,
    normalize: bool,
) -> Tensor:
    """The direction u of `kron_update` with diagonal factors l (n, a) and r (n, b), for whole tensors G (n, a, b).

    u = l^2 M_hat r^2;  vectors are (n, a, 1) with one factor, r (n, 0). State is updated in place, G overwritten.
    """
    if normalize:
        normalized(gradients)
    momentum.lerp_(gradients, 1 - beta1)
    correction = 1 - beta1**step
    two_sided = right.shape[1] > 0
    if step == 1:
        left.fill_(init_scale**0.5 if two_sided else init_scale)
        right.fill_(init_scale**0.5)
    if probe is not None:
        damping = momentum.flatten(1).abs().mean(dim=1).view(-1, 1, 1).mul_(DAMPING / correction)
        damped = (momentum / correction).addcmul_(probe, damping)
        fit_diagonal(left, right, damped, probe, lr=factor_lr, balance=fit % BALANCE_EVERY == 0)
    update = momentum * left.square().unsqueeze(2)
    if two_sided:
        update.mul_(right.square().unsqueeze(1))
    return clip_rms(update, correction)


class KronDiagonalRule(PreconditionedRule, ElementwiseRule):
    """Kron with diagonal factors, for embeddings, head, norms and vectors; same-shape tensors are stacked.

    A factor sums over its whole tensor, so a step cannot be taken in portions.
    """

    name = "kron_diagonal"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """The momentum and the diagonals; tensors of one dimension have no right one."""
        rows = shape[0] if shape else 1
        columns = torch.Size(shape).numel() // rows if len(shape) > 1 else 0
        return {"momentum": shape, "left": (rows,), "right": (columns,)}

    def invariant(self) -> KronDiagonalInvariant:
        """Factors that change when due, and the gradient preconditioned by them."""
        return KronDiagonalInvariant()

    def direction(
        self, gradients: list[Tensor], state: dict[str, list[Tensor]], settings: Settings, step: int
    ) -> list[Tensor]:
        """See `kron_diagonal_update`, applied to all tensors of one shape at once."""
        shapes: dict[torch.Size, list[int]] = {}
        for row, gradient in enumerate(gradients):
            shapes.setdefault(gradient.shape, []).append(row)
        directions = list(gradients)
        for shape, rows in shapes.items():
            stacks = {key: torch.stack([tensors[row] for row in rows]) for key, tensors in state.items()}
            matrices = (len(rows), shape[0] if shape else 1, -1)
            probe = stacks.get("probe")
            update = kron_diagonal_update(
                torch.stack([gradients[row] for row in rows]).view(matrices),
                None if probe is None else probe.view(matrices),
                stacks["momentum"].view(matrices),
                stacks["left"],
                stacks["right"],
                step=step,
                fit=self.fit(settings, step),
                beta1=settings["beta1"],
                factor_lr=settings["preconditioner_lr"],
                init_scale=settings["preconditioner_init_scale"],
                normalize=settings["normalize_grads"],
            )
            for key in ("momentum", "left", "right"):
                torch._foreach_copy_([state[key][row] for row in rows], list(stacks[key].unbind(0)))
            for row, one in zip(rows, update.unbind(0), strict=True):
                directions[row] = one.view(shape)
        return directions
