"""An estimate of the Hessian's diagonal from one Hessian-vector product, for optimizers that ask for one (Sophia).

The product is the derivative of a gradient. What that would hold grows with T^2 in attention and is several times an
ordinary pass elsewhere, so on sequences of more than `ATTENTION_ROWS` tokens attention goes block by block of queries
and layers are computed again, whether or not training itself uses activation checkpointing: floating-point sums are
ordered by the shapes alone.

The estimate is taken on the last micro-batch of the specification, on the weights that the step's gradient was taken
at. Ranks share it: each takes a part, and the sum over ranks is the estimate (`rank_share`).

Source: Hutchinson's estimator as in Liu et al., arXiv 2305.14342 (Sophia-H), algorithm 1.

**Attention.** Fused kernels have no second derivative, and plain products, differentiated twice, hold several T x T
matrices of every head and layer until the pass ends: ~50 GB at T = 4096 for 32 layers of 8 heads. Here a pass keeps the
queries, keys, values and output gradients, (T, K) each, and computes everything else again, `ATTENTION_ROWS` queries
and a few heads at a time. A query's output depends on no other query, so blocks of queries are independent, and the
gradients of keys and values are sums over blocks. A block of queries meets the keys up to its own end alone, which
leaves out half of the products.

For a block with queries Q, output gradient G, keys K, values V and s = 1 / sqrt(width of a head), let * multiply
element by element, and let centre(X) = X - (row sums of P * X):

    P = softmax(s Q K^T)        O = P V
    A = centre(G V^T)           D = P * A
    dQ = s D K                  dK = s D^T Q                dV = P^T G

and for the product of the second derivative with directions (a, b, c) of (Q, K, V):

    U = centre(s (a K^T + Q b^T))                           W = P * U
    F = P * centre(A * U + G c^T)
    dQ = s (F K + D b)          dK = s (F^T Q + D^T a)      dV = W^T G      dG = W V + P c

Source of the idea that attention needs no T x T memory, derivatives included: Rabe and Staats, arXiv 2112.05682; the
second derivative follows from the first by the chain rule.

**Layers.** A pass for second derivatives otherwise keeps the activations of the forward pass and of the backward pass,
about three times those of an ordinary pass. `torch.utils.checkpoint` gives hardly any of it back: what it computes
again for the first derivative is kept for the second. Here a layer's gradient is a function of its own, of the
layer's input and the gradient of its output: layer and gradient keep what they were given and compute the rest again,
one layer at a time. That costs three more forward passes of each layer, and one more backward pass.

Source: Chen et al., arXiv 1604.06174 (activation checkpointing), applied to the gradient as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tuneopt.optim.probes import gaussian
from tuneopt.spec import TrialSpec
from tuneopt.training.memory import ATTENTION_ELEMENTS, ATTENTION_ROWS
from tuneopt.training.model import Decoder, fused_attention
from tuneopt.training.ranks import Ranks

Layer = Callable[[Tensor], Tensor]


def twice_differentiable_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v over the tokens up to each query's own; all tensors are (B, H, T, K).

    Computed in the precision of its inputs, and differentiable twice, not more.
    """
    out: Tensor = _Attention.apply(q, k, v)  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """Attention by the quickest kernel there is; the gradient as a function of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,  # (B, H, T, K), as k and v
        k: Tensor,
        v: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return fused_attention(q, k, v)

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        of_q, of_k, of_v = _AttentionGradient.apply(*ctx.saved_tensors, along)  # type: ignore[no-untyped-call]
        return of_q, of_k, of_v


class _AttentionGradient(torch.autograd.Function):
    """The gradient of <G, attention(q, k, v)> by q, k and v, as a function of them and of G."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(q, k, v, g)
        of_q, of_k, of_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for rows, keys in _blocks(q):
            of_q[rows], to_k, to_v = _first(q[rows], k[keys], v[keys], g[rows])
            of_k[keys] += to_k
            of_v[keys] += to_v
        return of_q, of_k, of_v

    @staticmethod
    def backward(ctx: Any, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The product of the second derivative with directions ``a``, ``b``, ``c`` of q, k, v, and that of G."""
        if torch.is_grad_enabled():
            raise RuntimeError("attention in blocks of queries has no third derivative")
        q, k, v, g = ctx.saved_tensors
        of_q, of_k, of_v, of_g = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v), torch.empty_like(g)
        for rows, keys in _blocks(q):
            of_q[rows], to_k, to_v, of_g[rows] = _second(q[rows], k[keys], v[keys], g[rows], a[rows], b[keys], c[keys])
            of_k[keys] += to_k
            of_v[keys] += to_v
        return of_q, of_k, of_v, of_g


def _first(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A block's part of the gradient by q, k and v; ``q`` and ``g`` are (h, R, K), the others (h, T, K)."""
    scale = q.shape[-1] ** -0.5
    p = _probabilities(q, k, scale)
    d = _centre(p, g @ v.mT).mul_(p)
    return (d @ k).mul_(scale), (d.mT @ q).mul_(scale), p.mT @ g


def _second(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A block's part of the product with directions ``a`` (h, R, K), ``b`` and ``c`` (h, T, K), by q, k, v and g."""
    scale = q.shape[-1] ** -0.5
    p = _probabilities(q, k, scale)
    u = _centre(p, (a @ k.mT).baddbmm_(q, b.mT).mul_(scale))
    x = _centre(p, g @ v.mT)
    f = _centre(p, (g @ c.mT).addcmul_(x, u)).mul_(p)
    d, w = x.mul_(p), u.mul_(p)  # in place: matrices of a block are the largest tensors here
    of_q = (f @ k).baddbmm_(d, b).mul_(scale)
    of_k = (f.mT @ q).baddbmm_(d.mT, a).mul_(scale)
    return of_q, of_k, w.mT @ g, (w @ v).baddbmm_(p, c)


Index = tuple[int, slice, slice]
"""One sequence, a few of its heads and a range of its tokens."""


def _blocks(q: Tensor) -> Iterator[tuple[Index, Index]]:
    """Blocks of queries of a (B, H, T, K) tensor, each with the keys up to its end; its keys' last rows are its own."""
    sequences, heads, seq_len, _ = q.shape
    size = max(1, min(ATTENTION_ROWS, ATTENTION_ELEMENTS // seq_len))
    together = max(1, ATTENTION_ELEMENTS // (size * seq_len))
    for sequence in range(sequences):
        for head in range(0, heads, together):
            some = slice(head, head + together)
            for first in range(0, seq_len, size):
                end = min(first + size, seq_len)
                yield (sequence, some, slice(first, end)), (sequence, some, slice(0, end))


def _probabilities(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Causal attention of the last queries over all keys so far: (h, R, K) and (h, T, K) give (h, R, T)."""
    size, scores = q.shape[-2], (q @ k.mT).mul_(scale)
    later = torch.ones(size, size, dtype=torch.bool, device=q.device).triu_(1)
    scores[..., -size:].masked_fill_(later, -torch.inf)
    return scores.softmax(dim=-1)


def _centre(p: Tensor, x: Tensor) -> Tensor:
    """``x`` less its mean over each row of probabilities ``p``, in place."""
    return x.sub_((p * x).sum(dim=-1, keepdim=True))


def recomputed(run: Layer, x: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """``run(x)``, differentiable twice by ``x`` and by ``parameters``, which are all else that ``run`` reads."""
    out: Tensor = _RecomputedLayer.apply(run, x, *parameters)  # type: ignore[no-untyped-call]
    return out


class _RecomputedLayer(torch.autograd.Function):
    """The layer; ``parameters`` are those that ``run`` reads, named so that autograd knows of them."""

    @staticmethod
    def forward(ctx: Any, run: Layer, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        ctx.run = run
        return run(x)

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_LayerGradient.apply(ctx.run, along, *ctx.saved_tensors)  # type: ignore[no-untyped-call]


class _LayerGradient(torch.autograd.Function):
    """The gradient of <along, layer(x)> by x and the parameters, as a function of them and of ``along``."""

    @staticmethod
    def forward(ctx: Any, run: Layer, along: Tensor, x: Tensor, *parameters: Tensor) -> tuple[Tensor | None, ...]:
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
    asking = [tensor for tensor in inputs if tensor.requires_grad]
    gradients = iter(torch.autograd.grad(outputs, asking, along, create_graph=create_graph, allow_unused=True))
    return tuple(next(gradients) if tensor.requires_grad else None for tensor in inputs)


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
