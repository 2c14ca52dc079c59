"""Kron: PSGD with Kronecker factors. Source: Li, arXiv 2211.04422, as run in arXiv 2509.02046.

G <- G / ||G||_F when ``normalize``;   M <- beta1 M + (1 - beta1) G;   M_hat = M / (1 - beta1^t)
on steps with a fit:  one fit of L and R to M_hat + damping V, with a random probe V  (`tuneopt.optim.psgd`)
u  = L^T L M_hat R^T R,  as a whole matrix scaled down to rms 1.1 where it exceeds that
p <- p - lr (u + wd p)

Hidden matrices are cut into blocks with triangular factors L (r, r) and R (c, c); embeddings, head, norms and vectors
have diagonal factors over their whole tensor. Factors start at init_scale^(1/2) times the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import (
    Count,
    DecayRate,
    FallbackDecay,
    FallbackRate,
    Index,
    Matrices,
    Positive,
    Settings,
    Switch,
    settings_of,
)
from tuneopt.optim.portions import cut, paste, slices, tiles
from tuneopt.optim.psgd import BALANCE_EVERY, DAMPING, clip_rms, fit_diagonal, fit_number, fit_triangular, normalized
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import ElementwiseRule, ListState, MatrixRule, Rule, Shape, Tensors


def kron_update(
    gradients: Tensor,  # G, (n, a, b), overwritten by u
    probe: Tensor | None,  # V, (n, a, b), on steps with a fit
    blocks: list[tuple[Tensor, Tensor, Tensor]],  # of each tile M (k, r, c), L (k, r, r), R (k, c, c), in place
    *,
    step: int,
    fit: int,
    beta1: float,
    factor_lr: float,
    init_scale: float,
    block_size: int,
    normalize: bool,
) -> Tensor:
    """The direction u of Kron for whole matrices, cut into tiles of blocks (see `tiles`)."""
    if normalize:
        normalized(gradients)
    parts = tiles(tuple(gradients.shape[1:]), block_size)
    correction = 1 - beta1**step
    for tile, (momentum, *factors) in zip(parts, blocks, strict=True):
        momentum.lerp_(cut(gradients, tile), 1 - beta1)
        if step == 1:
            for factor in factors:
                factor.diagonal(dim1=1, dim2=2).fill_(init_scale**0.5)
    if probe is not None:
        # The damping is a share of the mean entry of the whole matrix, not of its block.
        sums = [momentum.view(len(gradients), -1).abs().sum(dim=1) for momentum, _, _ in blocks]
        damping = torch.stack(sums).sum(dim=0).mul_(DAMPING / gradients[0].numel() / correction)  # (n,)
        for tile, (momentum, left, right) in zip(parts, blocks, strict=True):
            noise = cut(probe, tile)
            damped = momentum / correction
            damped.addcmul_(noise, damping.repeat_interleave(tile.count).view(-1, 1, 1))
            fit_triangular(left, right, damped, noise, lr=factor_lr, balance=fit % BALANCE_EVERY == 0)
    for tile, (momentum, left, right) in zip(parts, blocks, strict=True):
        update = torch.bmm(left.mT, torch.bmm(left, momentum))
        paste(gradients, tile, torch.bmm(torch.bmm(update, right.mT), right))
    return clip_rms(gradients, correction)


def kron_diagonal_update(
    gradients: Tensor,  # G, (n, a, b), overwritten; vectors are (n, a, 1)
    probe: Tensor | None,  # V, (n, a, b), on steps with a fit
    momentum: Tensor,  # M, (n, a, b), updated in place
    left: Tensor,  # diagonal l of L, (n, a), updated in place
    right: Tensor,  # diagonal r of R, (n, b), updated in place; (n, 0) for vectors, which have one factor
    *,
    step: int,
    fit: int,
    beta1: float,
    factor_lr: float,
    init_scale: float,
    normalize: bool,
) -> Tensor:
    """The direction u = l^2 M_hat r^2 of Kron with diagonal factors for whole tensors, (n, a, b)."""
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


class PreconditionedRule(Rule):
    """What both rules share: when factors are fitted, and the settings of an update."""

    def draws(self, settings: Settings, step: int) -> bool:
        """A probe on every step with a fit."""
        return self.fit(settings, step) > 0

    def fit(self, settings: Settings, step: int) -> int:
        """The number of the fit on this step, 0 for none."""
        return fit_number(step, settings["preconditioner_update_probability"], settings["update_prob_flat_start"])

    def words(self, settings: Settings, step: int) -> Settings:
        """The arguments that both update functions take."""
        return {
            "step": step,
            "fit": self.fit(settings, step),
            "beta1": settings["beta1"],
            "factor_lr": settings["preconditioner_lr"],
            "init_scale": settings["preconditioner_init_scale"],
            "normalize": settings["normalize_grads"],
        }


class KronRule(PreconditionedRule, MatrixRule):
    """Kron for hidden matrices, cut into blocks without padding."""

    name = "kron"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Per tile: the momentum of its blocks and their left and right factors."""
        shapes: dict[str, Shape] = {}
        for tile in tiles(shape, settings["block_size"]):
            k, r, c = tile.count, tile.height, tile.width
            index = tile.index
            shapes |= {f"momentum_{index}": (k, r, c), f"left_{index}": (k, r, r), f"right_{index}": (k, c, c)}
        return shapes

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """See `kron_update`."""
        indices = [tile.index for tile in tiles(tuple(gradients.shape[1:]), settings["block_size"])]
        probe = state.get("probe")
        words = {**self.words(settings, step), "block_size": settings["block_size"]}
        for some in slices(gradients):
            m, q, r = (
                [state[f"{key}_{i}"][some].flatten(0, 1) for i in indices] for key in ("momentum", "left", "right")
            )
            noise = None if probe is None else probe[some]
            kron_update(gradients[some], noise, list(zip(m, q, r, strict=True)), **words)
        return gradients


class KronDiagonalRule(PreconditionedRule, ElementwiseRule):
    """Kron with diagonal factors, for embeddings, head, norms and vectors; same-shape tensors are stacked.

    A factor sums over its whole tensor, so a step cannot be taken in portions.
    """

    name = "kron_diagonal"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """The momentum and the diagonals; tensors of one dimension have no right one."""
        rows = shape[0] if shape else 1
        columns = torch.Size(shape[1:]).numel() if len(shape) > 1 else 0
        return {"momentum": shape, "left": (rows,), "right": (columns,)}

    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """See `kron_diagonal_update`, applied to all tensors of one shape at once."""
        shapes: dict[torch.Size, list[int]] = {}
        for row, gradient in enumerate(gradients):
            shapes.setdefault(gradient.shape, []).append(row)
        directions = list(gradients)
        words = self.words(settings, step)
        for shape, rows in shapes.items():
            # An embedding is alone of its shape, and stepped in place: copies of its state would be a GiB each.
            alone = len(rows) == 1
            stacks = {
                key: tensors[rows[0]][None] if alone else torch.stack([tensors[row] for row in rows])
                for key, tensors in state.items()
            }
            matrices = (len(rows), shape[0] if shape else 1, -1)
            probe = stacks["probe"].view(matrices) if "probe" in stacks else None
            momentum = stacks["momentum"].view(matrices)
            update = kron_diagonal_update(
                torch.stack([gradients[row] for row in rows]).view(matrices),
                probe,
                momentum,
                stacks["left"],
                stacks["right"],
                **words,
            )
            for key in ("momentum", "left", "right") if not alone else ():
                torch._foreach_copy_([state[key][row] for row in rows], list(stacks[key].unbind(0)))
            for row, one in zip(rows, update.unbind(0), strict=True):
                directions[row] = one.view(shape)
        return directions


class Kron(Optimizer):
    """PSGD with triangular factors for hidden matrices, with diagonal ones for everything else, at the same rate.

    ``preconditioner_lr`` is the step size of the factors, fitted at every step until ``update_prob_flat_start`` and
    ever more rarely afterwards, down to once in 1 / ``preconditioner_update_probability`` steps. With
    ``normalize_grads`` each matrix's gradient is brought to norm 1 and nothing is clipped; without, one joint norm is
    clipped to ``max_grad_norm`` (0 = off). ``block_size`` is the largest side of a block.
    """

    rules = (KronRule(), KronDiagonalRule())
    fixed: ClassVar = {"partition_grads_into_blocks": True}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.002,
        beta1: DecayRate = 0.95,
        weight_decay: float = 0.5,
        *,
        preconditioner_lr: Positive = 0.2,
        preconditioner_init_scale: Positive = 1.0,
        preconditioner_update_probability: Positive = 0.05,
        update_prob_flat_start: Index = 500,
        block_size: Count = 256,
        normalize_grads: bool = True,
        max_grad_norm: float = 1.0,
        probe_seed: Index = 0,
        hyperball: Switch = False,
        cautious_decay: Switch = False,
        decay_follows_lr: Switch = False,
        matrices: Matrices = "hidden",
        fallback_weight_decay: FallbackDecay = None,
        fallback_learning_rate: FallbackRate = None,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        normalize_grads = bool(normalize_grads)
        super().__init__(params, settings_of(locals()), rules)

    def rule_settings(self, rule: str, settings: Settings) -> Settings:
        """Normalised gradients are not clipped."""
        own = super().rule_settings(rule, settings)
        return {**own, "max_grad_norm": 0.0} if settings["normalize_grads"] else own
