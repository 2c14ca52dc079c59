"""The output head with its cross entropy, chunk by chunk, so that the logits of a pass never exist whole.

Letters: n tokens, D model width, V vocabulary, c tokens of a chunk. With P the softmax of the logits x W^T and Y the
targets as unit rows, the loss is the mean of -log P at the targets, and G = (P - Y) / n gives both gradients, G W and
G^T x. The forward pass computes them with the loss, while a chunk's logits are at hand, so nothing is computed twice;
what waits for the backward pass is n x D and V x D.

In reduced precision (bf16 under autocast) products have bf16 inputs and results; softmax, loss and the sum of chunks
are fp32, and G is rounded to bf16 before it is multiplied, as autograd does for a whole head.

torch's `linear_cross_entropy` (2.13) chunks as well, but cannot be differentiated twice, which Sophia needs, and does
not exist in the oldest torch that this package supports.
Source of the idea to keep gradients rather than logits: Hsu et al., Liger Kernel, arXiv 2410.10989, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tuneopt.training.memory import chunk_tokens

Kernel = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def loss_and_slope(logits: Tensor, targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of a chunk over ``count``, and G; logits are (c, V), of which nothing is left."""
    z = logits if logits.dtype == torch.float64 else logits.float()
    normalizer = torch.logsumexp(z, dim=-1, keepdim=True)
    at_target = z.gather(1, targets[:, None])
    loss = (normalizer - at_target).sum() / count
    if logits.is_cuda and torch.compiler.is_compiling():
        return loss, fused_slope(z, normalizer, targets, count).to(logits.dtype)
    # In place: on large vocabularies a chunk's probabilities are the largest tensor of the step.
    probabilities = z.sub_(normalizer).exp_()
    probabilities.scatter_(1, targets[:, None], (at_target - normalizer).exp() - 1)
    return loss, probabilities.div_(count).to(logits.dtype)


def fused_slope(z: Tensor, normalizer: Tensor, targets: Tensor, count: int) -> Tensor:
    """G as one expression, which Inductor makes one kernel of: no probabilities in fp32, a gigabyte for each chunk.

    `loss_and_slope` scatters into them, which cannot be fused and is quicker where nothing is.
    """
    hit = torch.arange(z.shape[-1], device=z.device) == targets[:, None]
    return ((z - normalizer).exp() - hit.to(z.dtype)) / count


class Head(nn.Linear):
    """A linear layer without bias, of shape (V, D), that also gives the loss of its logits.

    With a ``softcap`` c the logits are c tanh(z / c), which keeps them within c; 0 leaves them as they are.
    """

    def __init__(self, width: int, vocab_size: int, *, softcap: float = 0.0) -> None:
        super().__init__(width, vocab_size, bias=False)
        self.softcap = softcap

    def logits(self, x: Tensor) -> Tensor:
        """Logits (..., V) of ``x`` (..., D)."""
        logits = super().forward(x)
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits

    def forward(self, x: Tensor, targets: Tensor | None = None, kernel: Kernel = loss_and_slope) -> Tensor:
        """Logits (..., V) of ``x`` (..., D); with ``targets`` (...) the mean cross entropy in nats, in fp32.

        ``kernel`` is `loss_and_slope`, or that function compiled.
        """
        if targets is None:
            return self.logits(x)
        chunk = chunk_tokens(targets.numel(), self.out_features)
        if chunk is None:
            return F.cross_entropy(self.logits(x).flatten(0, 1).float(), targets.flatten())
        if self.softcap:
            # The kernels below know no cap. Chunks are computed again in the backward pass instead.
            rows, wanted = x.flatten(0, -2), targets.flatten()
            parts = [
                checkpoint(self._summed, rows[part], wanted[part], use_reentrant=False, preserve_rng_state=False)
                for part in _chunks(len(rows), chunk)
            ]
            return torch.stack(parts).sum() / len(rows)
        return chunked_cross_entropy(x.flatten(0, -2), self.weight, targets.flatten(), chunk, kernel)

    def _summed(self, x: Tensor, targets: Tensor) -> Tensor:
        return _loss(self.logits(x), targets)


def chunked_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, chunk: int, kernel: Kernel = loss_and_slope
) -> Tensor:
    """Mean cross entropy in nats of the logits x W^T, ``chunk`` tokens at a time; differentiable twice.

    ``x`` is (n, D), ``weight`` (V, D), ``targets`` (n,) int64. Under autocast products run in its precision.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    with torch.autocast(device, enabled=False):
        loss: Tensor = _Loss.apply(x, weight, targets, chunk, dtype, kernel, wanted)  # type: ignore[no-untyped-call]
    return loss


class _Loss(torch.autograd.Function):
    """The loss; its gradients are computed with it, or anew where they are to be differentiated themselves."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        chunk: int,
        dtype: torch.dtype,
        kernel: Kernel,
        differentiated: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, targets)
        ctx.chunk, ctx.dtype = chunk, dtype
        if differentiated:
            loss, *gradients = _pass(x, weight, targets, chunk, dtype, kernel)
            ctx.gradients = gradients
            return loss
        low = weight.to(dtype)
        parts = [_loss(x[rows].to(dtype) @ low.T, targets[rows]) for rows in _chunks(len(x), chunk)]
        return torch.stack(parts).sum() / len(x)

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, targets = ctx.saved_tensors
        if torch.is_grad_enabled():
            of_x, of_weight = _Gradients.apply(x, weight, targets, ctx.chunk, ctx.dtype)  # type: ignore[no-untyped-call]
            return of_x * scale, of_weight * scale, None, None, None, None, None
        # Handed out once and scaled in place: a second copy of the head's gradient would be the peak of the step.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = _pass(x, weight, targets, ctx.chunk, ctx.dtype)[1:]
        of_x, of_weight = (gradient.mul_(scale.to(gradient.dtype)) for gradient in gradients)
        return of_x, of_weight, None, None, None, None, None


class _Gradients(torch.autograd.Function):
    """The loss's gradients as functions of activations and weight, for second derivatives."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight, targets)
        ctx.chunk = chunk
        _, of_x, of_weight = _pass(x, weight, targets, chunk, dtype)
        return of_x, of_weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, along_x: Tensor, along_weight: Tensor) -> tuple[Tensor | None, ...]:
        """The Hessian of the loss times (along_x, along_weight): a Hessian is its own transpose."""
        x, weight, targets = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        for rows in _chunks(len(x), ctx.chunk):
            logits = x[rows] @ weight.T
            moved = along_x[rows] @ weight.T + x[rows] @ along_weight.T
            _, slope = loss_and_slope(logits, targets[rows], len(x))  # (P - Y) / n
            of_x[rows] = slope @ along_weight
            of_weight.addmm_(slope.T, along_x[rows])
            # P / n again, then the change of the probabilities when the logits move.
            probabilities = slope.scatter_add_(1, targets[rows, None], slope.new_full((len(slope), 1), 1 / len(x)))
            mean = (probabilities * moved).sum(-1, keepdim=True) * len(x)
            change = moved.sub_(mean).mul_(probabilities)
            of_x[rows] += change @ weight
            of_weight.addmm_(change.T, x[rows])
        return of_x, of_weight, None, None, None


def _pass(
    x: Tensor, weight: Tensor, targets: Tensor, chunk: int, dtype: torch.dtype, kernel: Kernel = loss_and_slope
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its gradients by ``x`` and by ``weight``, in their own precisions."""
    low = weight.to(dtype)
    losses, of_x, of_weight = [], torch.empty_like(x), torch.zeros_like(weight)
    for rows in _chunks(len(x), chunk):
        part = x[rows].to(dtype)
        loss, slope = kernel(part @ low.T, targets[rows], len(x))
        losses.append(loss)
        of_x[rows] = slope @ low
        if dtype == weight.dtype:
            of_weight.addmm_(slope.T, part)
        elif of_weight.is_cuda:
            # Sums of bf16 products in fp32 without a product of their own: 12 bytes less for each element of a chunk.
            torch.addmm(of_weight, slope.T, part, out_dtype=of_weight.dtype, out=of_weight)
        else:
            of_weight.add_(slope.T @ part)
        del slope  # else it lives until the next chunk's is there
    return torch.stack(losses).sum(), of_x, of_weight


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross entropy of a chunk."""
    z = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(z, targets, reduction="sum")


def _chunks(count: int, chunk: int) -> Iterator[slice]:
    for first in range(0, count, chunk):
        yield slice(first, min(first + chunk, count))
