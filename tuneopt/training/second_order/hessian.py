"""An estimate of the Hessian's diagonal from one Hessian-vector product, for optimizers that ask for one.

The product is the derivative of a gradient. What that would hold grows with T^2 in attention and is several times an
ordinary pass elsewhere, so on sequences of more than `ATTENTION_ROWS` tokens attention goes block by block of queries
and layers are computed again (`tuneopt.training.second_order.layers`), whether or not training itself uses activation
checkpointing: floating-point sums are ordered by the shapes alone.

The estimate is taken on the last micro-batch of the specification, on the weights that the step's gradient was taken
at. Ranks share it: each takes a part, and the sum over ranks is the estimate (`rank_share`).

Source: Hutchinson's estimator as in Liu et al., arXiv 2305.14342 (Sophia-H), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tuneopt.optim.probes import gaussian
from tuneopt.spec import TrialSpec
from tuneopt.training.chunks import ATTENTION_ROWS
from tuneopt.training.model import Decoder
from tuneopt.training.ranks import Ranks
from tuneopt.training.second_order.layers import recomputed, twice_differentiable_attention

PASS_COST = 3
"""FLOPs of a product over those of training on the same tokens: going back through a pass costs twice the pass."""


def hessian_diagonal(
    model: Decoder,
    tokens: Tensor,  # (B, T) int64
    targets: Tensor,  # (B, T) int64
    seed: int,
    step: int,
) -> dict[Tensor, Tensor]:
    """v * (H v), by parameter, of the mean loss on one micro-batch; its mean over v is the diagonal.

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
        if long:
            # Each layer keeps its input alone. The model must not checkpoint activations on top.
            layers = [partial(_recomputed_block, layer) for layer in model.layers]
            loss = model.lm_head(model.hidden(tokens, layers, checkpointing=False), targets)
        else:
            loss = model.loss(tokens, targets)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        products = list(torch.autograd.grad(gradients, parameters, grad_outputs=probes))
    del gradients
    for position, probe in enumerate(probes):
        products[position] = probe * products[position]  # one by one, so that no further copy of the model is alive
    return dict(zip(parameters, products, strict=True))


def _recomputed_block(layer: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """A layer of the model, with its attention in blocks; ``x`` is (B, T, D)."""

    def run(x: Tensor) -> Tensor:
        out: Tensor = layer(x, cos, sin, twice_differentiable_attention)
        return out

    return recomputed(run, x, layer.parameters())


def sequences_of_estimate(spec: TrialSpec) -> int:
    """Sequences of an estimate: the specification's micro-batch, however many a pass takes here."""
    return min(spec.micro_batch, spec.batch)


def rank_share(spec: TrialSpec, step: int, ranks: Ranks) -> tuple[int, int, float]:
    """First sample, number of samples and weight of this rank's part of the estimate after ``step``."""
    size = sequences_of_estimate(spec)
    first = (step + 1) * spec.batch - size
    if size % ranks.world:
        # Where the micro-batch does not divide, rank 0 takes all of it. The others compute what does not count:
        # under stage 3 all have to run, for they gather the weights together.
        return first, size, float(ranks.rank == 0)
    own = size // ranks.world
    return first + ranks.rank * own, own, 1 / ranks.world


def estimate(
    model: Decoder,
    window: Tensor,  # (sequences, T + 1) int64
    weight: float,
    micro_batch: int,
    seed: int,
    step: int,
) -> dict[Tensor, Tensor]:
    """``weight`` times the estimate on ``window``, in passes of at most ``micro_batch`` sequences.

    All passes of a step share one probe, so products with it add up.
    """
    total: dict[Tensor, Tensor] = {}
    for part in torch.split(window, micro_batch):
        for parameter, own in hessian_diagonal(model, part[:, :-1], part[:, 1:], seed, step).items():
            # Each pass is a mean over its own sequences, so it counts by how many they are.
            mean = own if len(part) == len(window) else own * (len(part) / len(window))
            total[parameter] = total[parameter] + mean if parameter in total else mean
    return total if weight == 1 else {parameter: mean * weight for parameter, mean in total.items()}


def whole_copy(model: Decoder, spec: TrialSpec) -> Decoder:
    """A plain model with the gathered weights of one that stage 3 has cut up; all ranks together.

    A pass for second derivatives needs all weights at once, so each rank holds the whole model while it lasts.
    """
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    device = next(model.parameters()).device
    copy = Decoder(spec.regime.scale, spec.regime.corpus.vocab_size).to(device)
    with torch.no_grad():
        for own, shard in zip(copy.parameters(), model.parameters(), strict=True):
            with GatheredParameters([shard]):
                own.copy_(shard)
            own.requires_grad_(shard.requires_grad)
    return copy


def reduced_to_owners(estimates: Mapping[str, Tensor], owners: Mapping[str, int], ranks: Ranks) -> dict[str, Tensor]:
    """The sum over ranks of each tensor, on its owner rank alone; one message per owner."""
    kept: dict[str, Tensor] = {}
    for owner in range(ranks.world):
        names = [name for name in estimates if owners[name] == owner]
        if not names:
            continue
        message = torch.cat([estimates[name].reshape(-1) for name in names])
        dist.reduce(message, owner)
        if owner == ranks.rank:
            pieces = torch.split(message, [estimates[name].numel() for name in names])
            kept |= {name: piece.view_as(estimates[name]) for name, piece in zip(names, pieces, strict=True)}
    return kept
