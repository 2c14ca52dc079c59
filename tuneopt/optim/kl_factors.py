"""Factors that minimize a Kullback-Leibler divergence. Source: Lin et al., arXiv 2509.03378 (KL-Shampoo, KL-SOAP).

For each block G (r, c) with factors L, R, bases Q_L, Q_R and running eigenvalues l (r), k (c), s = ``shampoo_beta``:
L <- s L + (1 - s) / c  G Q_R diag(1 / max(k, eps)) Q_R^T G^T
R <- s R + (1 - s) / r  G^T Q_L diag(1 / max(l, eps)) Q_L^T G
l_i <- s l_i + (1 - s) mean_j G'_ij^2 / max(k_j, eps),   k_j <- s k_j + (1 - s) mean_i G'_ij^2 / max(l_i, eps)
with G' = Q_L^T G Q_R; right sides hold what was there before. Shampoo's factors G G^T and G^T G fit each side as if the
other were the identity; these fit both together. L and R are both in units of |G|.

All eigenvalues of a block begin at the root mean square of its first gradient that is not 0, so that their products
are its mean square. The released code begins at 0.1, which takes a hundred steps to forget where gradients are 1e-3,
and bounds 1 / sqrt(l) by the side of the block (between 10 and 4000) where eps stands here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def begin_values(gradients: Tensor, left_values: Tensor, right_values: Tensor) -> None:
    """Eigenvalues of blocks (n, r, c) that have seen no gradient, all 0, become the root mean square of this one."""
    size = gradients.square().mean(dim=(1, 2)).sqrt().unsqueeze(1)  # (n, 1)
    for values in (left_values, right_values):
        values.add_(size * (values.amax(dim=1, keepdim=True) == 0))


def begin_factors(
    gradients: Tensor,  # G, (n, r, c)
    left: Tensor,  # L, (n, r, r); this and all below are updated in place
    right: Tensor,  # R, (n, c, c)
    left_values: Tensor,  # l, (n, r)
    right_values: Tensor,  # k, (n, c)
    *,
    shampoo_beta: float,
    eps: float,
) -> None:
    """The first step, which has no bases yet and needs none: all eigenvalues are equal, and they stay as they are."""
    begin_values(gradients, left_values, right_values)
    whitened = gradients / left_values[:, :1, None].clamp_min(eps).sqrt()
    left.baddbmm_(whitened, whitened.mT, beta=shampoo_beta, alpha=(1 - shampoo_beta) / gradients.shape[2])
    right.baddbmm_(whitened.mT, whitened, beta=shampoo_beta, alpha=(1 - shampoo_beta) / gradients.shape[1])


def update_factors(
    gradients: Tensor,  # G, (n, r, c)
    left: Tensor,  # L, (n, r, r), updated in place, as are R, l and k
    right: Tensor,  # R, (n, c, c)
    left_basis: Tensor,  # Q_L, (n, r, r)
    right_basis: Tensor,  # Q_R, (n, c, c)
    left_values: Tensor,  # l, (n, r)
    right_values: Tensor,  # k, (n, c)
    *,
    shampoo_beta: float,
    eps: float,
) -> None:
    """The module's formula for a stack of blocks."""
    begin_values(gradients, left_values, right_values)
    by_left = left_values.clamp_min(eps).rsqrt().unsqueeze(2)  # (n, r, 1)
    by_right = right_values.clamp_min(eps).rsqrt().unsqueeze(1)  # (n, 1, c)
    whitened = torch.bmm(gradients, right_basis).mul_(by_right)  # G R^-1/2 but for a rotation on the right
    left.baddbmm_(whitened, whitened.mT, beta=shampoo_beta, alpha=(1 - shampoo_beta) / gradients.shape[2])
    seen_left = torch.bmm(left_basis.mT, whitened).square_().mean(dim=2)  # (n, r)
    whitened = torch.bmm(left_basis.mT, gradients).mul_(by_left)  # L^-1/2 G but for a rotation on the left
    right.baddbmm_(whitened.mT, whitened, beta=shampoo_beta, alpha=(1 - shampoo_beta) / gradients.shape[1])
    seen_right = torch.bmm(whitened, right_basis).square_().mean(dim=1)  # (n, c)
    left_values.lerp_(seen_left, 1 - shampoo_beta)
    right_values.lerp_(seen_right, 1 - shampoo_beta)
