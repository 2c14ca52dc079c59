"""An estimate of the Hessian's diagonal from one Hessian-vector product, for optimizers that ask for one.

Source: Hutchinson's estimator as in Liu et al., arXiv 2305.14342 (Sophia-H), algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tuneopt.optim.probes import gaussian
from tuneopt.train.model import Llama

PASS_COST = 3
"""FLOPs of a product over those of training on the same tokens: going back through a pass costs twice the pass."""


def hessian_diagonal(model: Llama, tokens: Tensor, targets: Tensor, seed: int, step: int) -> dict[Tensor, Tensor]:
    """v * (H v), by parameter, of the mean loss on one micro-batch of shape (B, T); its mean over v is the diagonal.

    v is standard normal and follows from ``seed``, ``step`` and the parameter's name, so a resumed run repeats it.
    The pass runs in fp32 and outside compiled code; fused attention kernels have no second derivative, so attention
    takes plain products here. Gradients in ``p.grad`` are left as they are. A frozen parameter has no entry.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = list(named.values())
    probes = [gaussian(parameter, seed, step, name) for name, parameter in named.items()]
    with torch.enable_grad(), torch.autocast(tokens.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
        loss = model.loss(tokens, targets)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        products = torch.autograd.grad(gradients, parameters, grad_outputs=probes)
    return {p: probe * product for p, probe, product in zip(parameters, probes, products, strict=True)}
