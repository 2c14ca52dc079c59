"""A layer that keeps its input alone, in a pass that is differentiated twice.

A pass for second derivatives otherwise keeps the activations of the forward pass and of the backward pass, about three
times those of an ordinary pass; and `torch.utils.checkpoint` gives hardly any of it back, since what it computes again
for the first derivative is kept for the second. Here a layer's gradient is a function of its own, of the layer's input
and the gradient of its output: layer and gradient keep what they were given and compute the rest again, one layer at a
time. That costs three more forward passes of each layer, and one more backward pass.

Source: Chen et al., arXiv 1604.06174 (computing activations again), applied to the gradient as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]


def recomputed(run: Run, x: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """``run(x)``, differentiable twice by ``x`` and by ``parameters``, which are all that ``run`` reads beside."""
    out: Tensor = _Layer.apply(run, x, *parameters)  # type: ignore[no-untyped-call]
    return out


class _Layer(torch.autograd.Function):
    """The layer; ``parameters`` are those that ``run`` reads, named so that autograd knows of them."""

    @staticmethod
    def forward(ctx: Any, run: Run, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        ctx.run = run
        return run(x)

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_Gradient.apply(ctx.run, along, *ctx.saved_tensors)  # type: ignore[no-untyped-call]


class _Gradient(torch.autograd.Function):
    """The gradient of <along, layer(x)> by x and the parameters, as a function of them and of ``along``."""

    @staticmethod
    def forward(ctx: Any, run: Run, along: Tensor, x: Tensor, *parameters: Tensor) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(along, x, *parameters)
        ctx.run = run
        with torch.enable_grad():
            x = _leaf(x)
            return _gradients(run(x), (x, *parameters), [along])

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("a layer that is computed again has no third derivative")
        along, x, *parameters = ctx.saved_tensors
        with torch.enable_grad():
            along, x = along.detach().requires_grad_(), _leaf(x)
            first = _gradients(ctx.run(x), (x, *parameters), [along], create_graph=True)
            pairs = [(g, v) for g, v in zip(first, directions, strict=True) if g is not None and v is not None]
            gradients, probes = [gradient for gradient, _ in pairs], [probe for _, probe in pairs]
        return None, *_gradients(gradients, (along, x, *parameters), probes)


def _leaf(x: Tensor) -> Tensor:
    """``x`` without its history, so that derivatives end here."""
    return x.detach().requires_grad_(x.requires_grad)


def _gradients(
    outputs: Any, inputs: tuple[Tensor, ...], along: list[Tensor], *, create_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """Gradients of ``outputs`` by those inputs that ask for one; None for the others and where it is zero."""
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(outputs, wanted, along, create_graph=create_graph, allow_unused=True))
    return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)
