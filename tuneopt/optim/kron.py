"""Kron: PSGD with Kronecker factors. Source: Li, arXiv 2211.04422, as run in arXiv 2509.02046."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.invariants.kron import KronInvariant
from tuneopt.optim.kron_diagonal import KronDiagonalRule, PreconditionedRule, clip_rms, normalized
from tuneopt.optim.portions import portions
from tuneopt.optim.psgd import BALANCE_EVERY, DAMPING, fit_triangular
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import MatrixRule, Shape
from tuneopt.optim.settings import DECAY_RATE, Bounds, Settings
from tuneopt.optim.tiles import cut, paste, tiles


def kron_update(
    gradients: Tensor,
    probe: Tensor | None,
    blocks: list[tuple[Tensor, Tensor, Tensor]],
    *,
    step: int,
    fit: int,
    beta1: float,
    factor_lr: float,
    init_scale: float,
    block_size: int,
    normalize: bool,
) -> Tensor:
    """The direction u of Kron for matrices G (n, a, b), cut into tiles of blocks (see `tiles`), in place of G.

    ``blocks`` holds momentum M (k, r, c) and upper triangular factors L (k, r, r), R (k, c, c) of each tile, updated
    in place; factors start at init_scale^(1/2) times the identity.
    G <- G / ||G||_F when ``normalize``;   M <- beta1 M + (1 - beta1) G;   M_hat = M / (1 - beta1^t)
    on steps with a fit:  one fit of L and R to M_hat + damping V  (`fit_triangular`)
    u = L^T L M_hat R^T R,  as a whole matrix scaled down to rms 1.1 where it exceeds that
    """
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
        sums = [momentum.view(len(gradients), -1).abs().sum(dim=1) for momentum, _, _ in blocks]
        damping = torch.stack(sums).sum(dim=0).mul_(DAMPING / gradients[0].numel() / correction)
        for tile, (momentum, left, right) in zip(parts, blocks, strict=True):
            noise = cut(probe, tile)
            damped = momentum / correction
            damped.addcmul_(noise, damping.repeat_interleave(tile.count).view(-1, 1, 1))
            fit_triangular(left, right, damped, noise, lr=factor_lr, balance=fit % BALANCE_EVERY == 0)
    for tile, (momentum, left, right) in zip(parts, blocks, strict=True):
        update = torch.bmm(left.mT, torch.bmm(left, momentum))
        paste(gradients, tile, torch.bmm(torch.bmm(update, right.mT), right))
    return clip_rms(gradients, correction)


class KronRule(PreconditionedRule, MatrixRule):
    """Kron for hidden matrices, cut into blocks without padding."""

    name = "kron"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Per tile: the momentum of its blocks and their left and right factors."""
        shapes: dict[str, Shape] = {}
        for tile in tiles(shape, settings["block_size"]):
            k, r, c = tile.count, tile.height, tile.width
            shapes |= {
                f"momentum_{tile.index}": (k, r, c),
                f"left_{tile.index}": (k, r, r),
                f"right_{tile.index}": (k, c, c),
            }
        return shapes

    def invariant(self) -> KronInvariant:
        """Triangular factors that leave the identity when due, and the gradient preconditioned by them."""
        return KronInvariant()

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """See `kron_update`."""
        parts = tiles(tuple(gradients.shape[1:]), settings["block_size"])
        keys = [(f"momentum_{tile.index}", f"left_{tile.index}", f"right_{tile.index}") for tile in parts]
        probe = state.get("probe")
        for some in portions(gradients):
            kron_update(
                gradients[some],
                None if probe is None else probe[some],
                [
                    (state[m][some].flatten(0, 1), state[q][some].flatten(0, 1), state[r][some].flatten(0, 1))
                    for m, q, r in keys
                ],
                step=step,
                fit=self.fit(settings, step),
                beta1=settings["beta1"],
                factor_lr=settings["preconditioner_lr"],
                init_scale=settings["preconditioner_init_scale"],
                block_size=settings["block_size"],
                normalize=settings["normalize_grads"],
            )
        return gradients


class Kron(Optimizer):
    """PSGD with triangular factors for hidden matrices, with diagonal ones for everything else, at the same rate.

    ``preconditioner_lr`` is the step size of the factors, fitted at every step until ``update_prob_flat_start`` and
    ever more rarely afterwards, down to once in 1 / ``preconditioner_update_probability`` steps. With
    ``normalize_grads`` each matrix's gradient is brought to norm 1 and nothing is clipped; without, one joint norm is
    clipped to ``max_grad_norm`` (0 = off). ``block_size`` is the largest side of a block.
    """

    rules = (KronRule(), KronDiagonalRule())
    bounds: ClassVar = {
        "beta1": DECAY_RATE,
        "preconditioner_lr": Bounds(above=True),
        "preconditioner_init_scale": Bounds(above=True),
        "preconditioner_update_probability": Bounds(above=True),
        "update_prob_flat_start": Bounds(whole=True),
        "block_size": Bounds(low=1, whole=True),
        "probe_seed": Bounds(whole=True),
    }
    fixed: ClassVar = {"partition_grads_into_blocks": True}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.002,
        beta1: float = 0.95,
        weight_decay: float = 0.5,
        *,
        preconditioner_lr: float = 0.2,
        preconditioner_init_scale: float = 1.0,
        preconditioner_update_probability: float = 0.05,
        update_prob_flat_start: int = 500,
        block_size: int = 256,
        normalize_grads: bool = True,
        max_grad_norm: float = 1.0,
        probe_seed: int = 0,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        settings = {
            "lr": lr,
            "beta1": beta1,
            "weight_decay": weight_decay,
            "preconditioner_lr": preconditioner_lr,
            "preconditioner_init_scale": preconditioner_init_scale,
            "preconditioner_update_probability": preconditioner_update_probability,
            "update_prob_flat_start": update_prob_flat_start,
            "block_size": block_size,
            "normalize_grads": bool(normalize_grads),
            "max_grad_norm": max_grad_norm,
            "probe_seed": probe_seed,
        }
        super().__init__(params, settings, rules)

    def rule_settings(self, rule: str, settings: Settings) -> Settings:
        """Normalised gradients are not clipped."""
        return {**settings, "max_grad_norm": 0.0} if settings["normalize_grads"] else settings
