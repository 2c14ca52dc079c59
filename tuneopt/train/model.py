"""The Llama-2 style decoder of the study: RMSNorm, rotary embeddings, SwiGLU, no biases, untied head.

Parameter names follow transformers' Llama without its ``model.`` prefix, so weights convert by renaming alone.
Shape letters used below: B sequences, T tokens per sequence, D model width, H heads, K head width, V vocabulary.

Source: Touvron et al., arXiv 2307.09288; sizes and initializer of Wen et al., arXiv 2509.02046, appendix on setup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tuneopt.spec import Scale
from tuneopt.train.head import Head

RMS_NORM_EPS = 1e-5
ROPE_BASE = 10_000.0
INITIALIZER_RANGE = 0.02

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Causal attention: queries, keys and values (B, H, T, K) give (B, H, T, K)."""


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v by torch's quickest kernel, which can be differentiated once.

    For second derivatives another function takes its place (`tuneopt.train.second_order.layers`).
    """
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class RMSNorm(nn.Module):
    """Scale each vector to unit root mean square, then by a learned weight of shape (D,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) in and out."""
        return F.rms_norm(x, self.weight.shape, self.weight, RMS_NORM_EPS)


def rotary_table(seq_len: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of shape (T, K), laid out for the half-split rotation."""
    frequencies = 1.0 / ROPE_BASE ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(seq_len, dtype=torch.float64), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys of shape (B, H, T, K) by their position."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal multi-head self-attention; every head has its own keys and values."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.heads = scale.heads
        self.q_proj = nn.Linear(scale.d_model, scale.d_model, bias=False)
        self.k_proj = nn.Linear(scale.d_model, scale.d_model, bias=False)
        self.v_proj = nn.Linear(scale.d_model, scale.d_model, bias=False)
        self.o_proj = nn.Linear(scale.d_model, scale.d_model, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend = fused_attention) -> Tensor:
        """(B, T, D) in and out; the tables are (T, K)."""
        batch, seq_len, width = x.shape
        q, k, v = (
            projection(x).view(batch, seq_len, self.heads, -1).transpose(1, 2)  # (B, H, T, K)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, seq_len, width))
        return out


class MLP(nn.Module):
    """SwiGLU feed-forward: down(silu(gate(x)) * up(x))."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(scale.d_model, scale.d_ff, bias=False)
        self.up_proj = nn.Linear(scale.d_model, scale.d_ff, bias=False)
        self.down_proj = nn.Linear(scale.d_ff, scale.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) in and out."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(scale.d_model)
        self.self_attn = Attention(scale)
        self.post_attention_layernorm = RMSNorm(scale.d_model)
        self.mlp = MLP(scale)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend = fused_attention) -> Tensor:
        """(B, T, D) in and out; the tables are (T, K)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Llama(nn.Module):
    """The whole model. ``forward(tokens)`` gives logits; ``loss(tokens, targets)`` the mean nats per token.

    With ``checkpointing`` each block keeps its input alone and computes the rest again in the backward pass: a third
    more work for the memory of one block, and the same bits.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, scale: Scale, vocab_size: int, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.embed_tokens = nn.Embedding(vocab_size, scale.d_model)
        self.layers = nn.ModuleList(Block(scale) for _ in range(scale.layers))
        self.norm = RMSNorm(scale.d_model)
        self.lm_head = Head(scale.d_model, vocab_size)
        cos, sin = rotary_table(scale.seq_len, scale.d_model // scale.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def initialize(self, seed: int) -> None:
        """Fill every matrix from N(0, 0.02^2), one generator in parameter order, and every norm with ones."""
        with torch.no_grad():
            for parameter, (_, values) in zip(self.parameters(), self.initial_values(seed), strict=True):
                parameter.copy_(values)

    def initial_values(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """What `initialize` fills in, by name, on the CPU, one tensor at a time; needs the shapes of weights alone."""
        generator = torch.Generator().manual_seed(seed)
        shapes = [(name, parameter.shape) for name, parameter in self.named_parameters()]
        for name, shape in shapes:
            values = torch.empty(shape)
            yield (
                name,
                values.fill_(1.0) if len(shape) == 1 else values.normal_(0.0, INITIALIZER_RANGE, generator=generator),
            )

    def hidden(
        self, tokens: Tensor, blocks: Iterable[Callable[..., Tensor]] | None = None, *, checkpointing: bool = True
    ) -> Tensor:
        """What the head reads, (B, T, D), for token ids of shape (B, T); ``blocks`` stand in for the layers.

        ``checkpointing=False`` is for blocks that see to it themselves.
        """
        x: Tensor = self.embed_tokens(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for layer in self.layers if blocks is None else blocks:
            if checkpointing and self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, cos, sin, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, cos, sin)
        out: Tensor = self.norm(x)
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape (B, T, V) for token ids of shape (B, T)."""
        logits: Tensor = self.lm_head(self.hidden(tokens))
        return logits

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy in nats per token, computed in fp32; both inputs have shape (B, T).

        With large vocabularies it is computed in chunks (`tuneopt.train.head`).
        """
        loss: Tensor = self.lm_head(self.hidden(tokens), targets)
        return loss
