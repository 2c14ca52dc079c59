"""SOAP: Adam in the eigenbasis of Shampoo's factors. Source: Vyas et al., arXiv 2409.11321, run as in 2509.02046.

For each block G (r, c) of a matrix, with s = ``shampoo_beta`` and k = ``correction_step``:
step 1 only initialises, u = 0:   L = (1 - s) G G^T,  R = (1 - s) G^T G,  Q_L, Q_R = their eigenvectors.
From step 2 on, with G' = Q_L^T G Q_R and moments m, v that live in the bases:
m <- beta1 m + (1 - beta1) G';    v <- beta2 v + (1 - beta2) G'^2
u  = Q_L [ m / (sqrt(v) + eps) ] Q_R^T sqrt(1 - beta2^k) / (1 - beta1^k)
every ``frequency`` steps:  Q_L <- qr(L Q_L),  Q_R <- qr(R Q_R),  m and v carried over to the new bases
L <- s L + (1 - s) G G^T;  R <- s R + (1 - s) G^T G
p <- p - lr (u + wd p)

``factors="kl"`` takes the L and R of `tuneopt.optim.kl_factors` instead (KL-SOAP, Lin et al., arXiv 2509.03378), before
the refresh, for they belong to the bases that whitened this gradient.
``orthogonalize`` puts u <- h NS(u) behind the blocks, over the whole matrix and in its own basis (SOAP-Muon, Vyas et
al., nikhilvyas.github.io/SOAP_Muon.pdf), with NS as in `tuneopt.optim.orthogonalize.newton_schulz` and h by name,
``spectral`` or ``match_rms``, as for Muon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.hyperparameters import (
    Count,
    DecayRate,
    FallbackDecay,
    FallbackRate,
    Matrices,
    OneOf,
    Settings,
    Switch,
    settings_of,
)
from tuneopt.optim.kl_factors import begin_factors, update_factors
from tuneopt.optim.orthogonalize import COEFFICIENTS, PRECISIONS, newton_schulz, shape_factors
from tuneopt.optim.portions import slices, tiles, update_blocks
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import MatrixRule, Shape

STATE = ("left", "right", "left_basis", "right_basis", "exp_avg", "exp_avg_sq")
"""Of each tile, in the order of `soap_update`'s arguments."""

VALUES = ("left_values", "right_values")
"""What follows them with ``factors="kl"``: running eigenvalues."""


def eigenbasis(factor: Tensor, eps: float) -> Tensor:
    """Eigenvectors of a stack of factors (n, r, r) as columns, largest eigenvalue first.

    Entries that are not finite count as 0, so that a diverged gradient shows in the parameters and not as an error.
    """
    shifted = torch.nan_to_num(factor, 0.0, 0.0, 0.0)
    shifted = shifted + eps * torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    try:
        vectors: Tensor = torch.linalg.eigh(shifted).eigenvectors
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        # Solvers in fp32 give up on some factors of low rank, which a first gradient gives.
        vectors = torch.linalg.eigh(shifted.double()).eigenvectors.to(factor.dtype)
    return vectors.flip(-1)


def refresh_basis(factor: Tensor, basis: Tensor, exp_avg_sq: Tensor, dim: int, values: Tensor | None = None) -> Tensor:
    """One orthogonal iteration from the present basis (n, r, r): Q <- qr(F Q), columns sorted by their eigenvalue.

    Permutes ``exp_avg_sq`` along ``dim`` in the same order, in place, and ``values`` (n, r), and returns the new basis.
    """
    product = torch.bmm(factor, basis)
    order = torch.linalg.vecdot(basis, product, dim=1).argsort(dim=-1, descending=True)  # diag(Q^T F Q), (n, r)
    index = order.unsqueeze(3 - dim)
    exp_avg_sq.copy_(exp_avg_sq.gather(dim, index.expand_as(exp_avg_sq)))
    if values is not None:
        values.copy_(values.gather(1, order))
    sorted_product = product.gather(2, order.unsqueeze(1).expand_as(product))
    return orthonormalized(sorted_product)


def orthonormalized(stack: Tensor) -> Tensor:
    """Q of the QR decomposition of each square matrix of a stack (n, r, r).

    On CUDA ``torch.linalg.qr`` computes Q one matrix at a time, 37 thousand launches for a refresh at 1.2b. There Q is
    built from the reflectors of the whole stack at once (`assembled`); on CPUs LAPACK keeps its bits.
    """
    if stack.device.type == "cpu":
        q: Tensor = torch.linalg.qr(stack).Q
        return q
    return assembled(*torch.geqrf(stack))


def assembled(reflectors: Tensor, tau: Tensor) -> Tensor:
    """Q = I - V T V^T from Householder reflectors (n, r, r), below the diagonal as LAPACK stores them, and tau (n, r).

    The triangular T follows from T^-1 = triu(V^T V, 1) + diag(1 / tau) by one solve for the stack (Joffrain et al.,
    ACM TOMS 32, 2006). A reflector with tau = 0 is the identity: its column of V is 0.
    """
    identity = torch.eye(reflectors.shape[-1], dtype=reflectors.dtype, device=reflectors.device)
    none = tau == 0
    v = (reflectors.tril(-1) + identity).masked_fill_(none.unsqueeze(-2), 0)
    inverse = torch.bmm(v.mT, v).triu_(1) + torch.diag_embed(tau.masked_fill(none, 1).reciprocal())
    return identity - torch.bmm(v, torch.linalg.solve_triangular(inverse, v.mT, upper=True))


def soap_update(
    gradients: Tensor,  # G, (n, r, c)
    left: Tensor,  # L, (n, r, r); this and all below are updated in place
    right: Tensor,  # R, (n, c, c)
    left_basis: Tensor,  # Q_L, (n, r, r)
    right_basis: Tensor,  # Q_R, (n, c, c)
    exp_avg: Tensor,  # m, (n, r, c), in the bases
    exp_avg_sq: Tensor,  # v, (n, r, c), in the bases
    left_values: Tensor | None = None,  # l, (n, r), and k, (n, c): running eigenvalues of factors by KL
    right_values: Tensor | None = None,
    *,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
    shampoo_beta: float,
    frequency: int,
    correction_step: int,
) -> Tensor:
    """The direction u of the module's formula, (n, r, c); ``step`` counts from 1."""
    words = {"shampoo_beta": shampoo_beta, "eps": eps}
    if step == 1:
        if left_values is not None and right_values is not None:
            begin_factors(gradients, left, right, left_values, right_values, **words)
        else:
            average_factors(gradients, left, right, shampoo_beta)
        left_basis.copy_(eigenbasis(left, eps))
        right_basis.copy_(eigenbasis(right, eps))
        return torch.zeros_like(gradients)
    rotated = torch.bmm(torch.bmm(left_basis.mT, gradients), right_basis)
    exp_avg.lerp_(rotated, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
    ratio = exp_avg / exp_avg_sq.sqrt().add_(eps)
    ratio.mul_((1 - beta2**correction_step) ** 0.5 / (1 - beta1**correction_step))
    direction = torch.bmm(torch.bmm(left_basis, ratio), right_basis.mT)
    if left_values is not None and right_values is not None:
        update_factors(gradients, left, right, left_basis, right_basis, left_values, right_values, **words)
    if step % frequency == 0:  # the direction above is still that of the old bases; v is permuted, m is rotated
        new_left = refresh_basis(left, left_basis, exp_avg_sq, 1, left_values)
        new_right = refresh_basis(right, right_basis, exp_avg_sq, 2, right_values)
        turn_left, turn_right = torch.bmm(new_left.mT, left_basis), torch.bmm(right_basis.mT, new_right)
        exp_avg.copy_(torch.bmm(torch.bmm(turn_left, exp_avg), turn_right))
        left_basis.copy_(new_left)
        right_basis.copy_(new_right)
    if left_values is None:  # last, as in the study
        average_factors(gradients, left, right, shampoo_beta)
    return direction


def average_factors(gradients: Tensor, left: Tensor, right: Tensor, shampoo_beta: float) -> None:
    """Shampoo's factors: L <- s L + (1 - s) G G^T, R <- s R + (1 - s) G^T G, in place."""
    left.baddbmm_(gradients, gradients.mT, beta=shampoo_beta, alpha=1 - shampoo_beta)
    right.baddbmm_(gradients.mT, gradients, beta=shampoo_beta, alpha=1 - shampoo_beta)


class SOAPRule(MatrixRule):
    """SOAP for hidden matrices, cut into blocks without padding."""

    name = "soap"

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Per tile (see `tiles`): left and right factor and basis, both moments in the rotated basis, eigenvalues."""
        shapes: dict[str, Shape] = {}
        for tile in tiles(shape, settings["block_size"]):
            k, r, c = tile.count, tile.height, tile.width
            sides = ((k, r, r), (k, c, c), (k, r, r), (k, c, c), (k, r, c), (k, r, c))
            shapes |= {f"{key}_{tile.index}": side for key, side in zip(STATE, sides, strict=True)}
            if settings.get("factors") == "kl":
                shapes |= {f"{key}_{tile.index}": side for key, side in zip(VALUES, ((k, r), (k, c)), strict=True)}
        return shapes

    def constants(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> dict[str, Tensor]:
        """What an orthogonal update of each matrix is multiplied with."""
        return shape_factors(shapes, like)

    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """See `soap_update`, applied to the blocks of each tile, then Newton-Schulz of the whole if asked for."""
        names = STATE + (VALUES if settings.get("factors") == "kl" else ())
        beta1, beta2 = settings["betas"]

        def update(*tensors: Tensor) -> Tensor:
            return soap_update(
                *tensors,
                step=step,
                beta1=beta1,
                beta2=beta2,
                eps=settings["eps"],
                shampoo_beta=settings["shampoo_beta"],
                frequency=settings["precondition_frequency"],
                correction_step=step if settings["bias_correction"] == "steps" else step - 1,
            )

        update_blocks(gradients, state, names, settings["block_size"], update)
        kind = settings.get("orthogonalize", "none")
        if kind != "none":
            words = [settings[f"ns_{word}"] for word in ("steps", "precision", "coefficients")]
            for some in slices(gradients):
                orthogonal = newton_schulz(gradients[some], settings["eps"], *words)
                gradients[some] = orthogonal.mul_(state[kind][some])
        return gradients


class SOAP(Optimizer):
    """SOAP for hidden matrices; AdamW at the same rate for embeddings, head, norms and vectors; one joint clip.

    ``shampoo_beta`` averages the factors, ``precondition_frequency`` counts steps between refreshes of the bases,
    ``block_size`` is the largest side of a block. ``bias_correction`` counts ``steps``, the initialising first one
    included (the study's rule), or moment ``updates``. ``factors`` are ``shampoo``'s or ``kl``; ``orthogonalize`` is
    ``none``, ``spectral`` or ``match_rms``, and the ``ns_`` arguments belong to it, as for `tuneopt.optim.muon.Muon`.
    """

    rules = (SOAPRule(), AdamWRule())
    fixed: ClassVar = {"partition_grads_into_blocks": True}

    def __init__(
        self,
        params: Parameters,
        lr: float = 0.008,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-15,
        weight_decay: float = 0.1,
        *,
        shampoo_beta: DecayRate = 0.95,
        precondition_frequency: Count = 10,
        block_size: Count = 256,
        max_grad_norm: float = 1.0,
        bias_correction: Annotated[str, OneOf(("steps", "updates"))] = "steps",
        factors: Annotated[str, OneOf(("shampoo", "kl"))] = "shampoo",
        orthogonalize: Annotated[str, OneOf(("none", "spectral", "match_rms"))] = "none",
        ns_steps: Count = 5,
        ns_precision: Annotated[str, OneOf(PRECISIONS)] = "fp32",
        ns_coefficients: Annotated[str, OneOf(COEFFICIENTS)] = "quintic",
        decay_follows_lr: Switch = False,
        matrices: Matrices = "hidden",
        fallback_weight_decay: FallbackDecay = None,
        fallback_learning_rate: FallbackRate = None,
        rules: Sequence[RouteRule] | None = None,
    ) -> None:
        super().__init__(params, settings_of(locals()), rules)
