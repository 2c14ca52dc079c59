"""An estimate of the Hessian's diagonal from one Hessian-vector product, for optimizers that ask for one.

The product is the derivative of a gradient. What that would hold grows with T^2 in attention and is several times an
ordinary pass elsewhere, so on sequences of more than `ATTENTION_ROWS` tokens attention goes block by block of queries
(`tuneopt.train.attention`) and layers are computed again (`tuneopt.train.recomputed`), whether or not
training itself checkpoints activations: floating-point sums are ordered by the shapes alone.

Source: Hutchinson's estimator as in Liu et al., arXiv 2305.14342 (Sophia-H), algorithm 1.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tuneopt.optim.probes import gaussian
from tuneopt.train.attention import twice_differentiable_attention
from tuneopt.train.chunks import ATTENTION_ROWS
from tuneopt.train.model import Llama
from tuneopt.train.recomputed import recomputed

PASS_COST = 3
"""FLOPs of a product over those of training on the same tokens: going back through a pass costs twice the pass."""


def hessian_diagonal(model: Llama, tokens: Tensor, targets: Tensor, seed: int, step: int) -> dict[Tensor, Tensor]:
    """v * (H v), by parameter, of the mean loss on one micro-batch of shape (B, T); its mean over v is the diagonal.

    v is standard normal and follows from ``seed``, ``step`` and the parameter's name, so a resumed run repeats it.
    The pass runs in fp32 and outside compiled code, since fused attention has no second derivative. Gradients in
    ``p.grad`` are left as they are. A frozen parameter has no entry.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = list(named.values())
    probes = [gaussian(parameter, seed, step, name) for name, parameter in named.items()]
    long = tokens.shape[1] > ATTENTION_ROWS
    kernels = nullcontext() if long else sdpa_kernel(SDPBackend.MATH)
    with torch.enable_grad(), torch.autocast(tokens.device.type, enabled=False), kernels:
        loss = _frugal_loss(model, tokens, targets) if long else model.loss(tokens, targets)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        products = list(torch.autograd.grad(gradients, parameters, grad_outputs=probes))
    del gradients
    for position, probe in enumerate(probes):
        products[position] = probe * products[position]  # one by one, so that no further copy of the model is alive
    return dict(zip(parameters, products, strict=True))


def _frugal_loss(model: Llama, tokens: Tensor, targets: Tensor) -> Tensor:
    """The model's loss; each layer keeps its input alone."""
    layers = [partial(_recomputed, layer) for layer in model.layers]
    loss: Tensor = model.lm_head(model.hidden(tokens, layers, checkpointing=False), targets)
    return loss


def _recomputed(layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """A layer of the model, with its attention in blocks."""

    def run(x: Tensor) -> Tensor:
        out: Tensor = layer(x, cos, sin, twice_differentiable_attention)
        return out

    return recomputed(run, x, layer.parameters())
