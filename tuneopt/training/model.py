"""The decoder of every trial: the study's Llama 2, and by options of its `Scale` GPT-2, Qwen3, nanochat and kin.

Parameter names follow transformers' Llama without its ``model.`` prefix; `tuneopt.training.weights` converts them for
each family. Shape letters used below: B sequences, T tokens per sequence, D model width, H heads, G heads of keys
and values, K head width, V vocabulary.

Sources: Touvron et al., arXiv 2307.09288 (Llama 2), with sizes and initializer of Wen et al., arXiv 2509.02046; Radford
et al. 2019 (GPT-2); Yang et al., arXiv 2505.09388 (Qwen3); Ainslie et al., arXiv 2305.13245 (grouped queries); So et
al., arXiv 2109.08668 (squared ReLU).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tuneopt.spec import Scale
from tuneopt.training.head import Head

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Causal attention: queries, keys and values (B, H, T, K) give (B, H, T, K)."""


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(K)) v by torch's quickest kernel, which can be differentiated once.

    For second derivatives another function takes its place (`tuneopt.training.second_order`).
    """
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class RMSNorm(nn.Module):
    """Scale each vector to unit root mean square, then by a learned weight of shape (D,) if it has one."""

    def __init__(self, width: int, eps: float, *, weighted: bool = True) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width)) if weighted else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) in and out."""
        return F.rms_norm(x, (self.width,), self.weight, self.eps)


def make_norm(scale: Scale, width: int) -> nn.Module:
    """The norm of an architecture over vectors of that width."""
    if scale.norm == "layernorm":
        return nn.LayerNorm(width, scale.norm_eps, bias=scale.biases)
    return RMSNorm(width, scale.norm_eps, weighted=scale.norm == "rmsnorm")


def rotary_table(seq_len: int, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables of shape (T, K), laid out for the half-split rotation."""
    # In float64 until the end: at position 4096 the angle in fp32 would be off by some ten-thousandths.
    frequencies = 1.0 / base ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(seq_len, dtype=torch.float64), frequencies)
    angles = torch.cat((angles, angles), dim=-1)  # entry i turns with entry i + K / 2
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys of shape (B, H, T, K) by their position."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention of H heads over G heads of keys and values; H / G queries share one of them."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.heads, self.groups, self.head_dim = scale.heads, scale.groups, scale.head_width
        self.rotary, self.norm_last = scale.positions == "rope", scale.qk_norm == "after_rope"
        width, keys = scale.attention_width, scale.groups * scale.head_width
        self.q_proj = nn.Linear(scale.d_model, width, bias=scale.biases)
        self.k_proj = nn.Linear(scale.d_model, keys, bias=scale.biases)
        self.v_proj = nn.Linear(scale.d_model, keys, bias=scale.biases)
        self.o_proj = nn.Linear(width, scale.d_model, bias=scale.biases)
        if scale.qk_norm != "none":
            self.q_norm = make_norm(scale, scale.head_width)
            self.k_norm = make_norm(scale, scale.head_width)
        self.normed = scale.qk_norm != "none"

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend = fused_attention) -> Tensor:
        """(B, T, D) in and out; the tables are (T, K)."""
        batch, seq_len, _ = x.shape
        q, k, v = (
            projection(x).view(batch, seq_len, heads, -1).transpose(1, 2)  # (B, H or G, T, K)
            for projection, heads in ((self.q_proj, self.heads), (self.k_proj, self.groups), (self.v_proj, self.groups))
        )
        if self.normed and not self.norm_last:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary:
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.normed and self.norm_last:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.groups != self.heads:
            # Spelt out, because not every kernel of SDPA takes shared heads.
            k, v = (shared.repeat_interleave(self.heads // self.groups, dim=1) for shared in (k, v))
        mixed = attend(q, k, v)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, seq_len, -1))
        return out


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2, element by element."""
    return F.relu(x).square()


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the tanh approximation, as GPT-2 was trained with."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "relu2": relu_squared,
}


class MLP(nn.Module):
    """Feed-forward: SwiGLU down(silu(gate(x)) * up(x)), else down(activation(up(x)))."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.gated, self.activation = scale.activation == "swiglu", ACTIVATIONS[scale.activation]
        if self.gated:
            self.gate_proj = nn.Linear(scale.d_model, scale.d_ff, bias=scale.biases)
        self.up_proj = nn.Linear(scale.d_model, scale.d_ff, bias=scale.biases)
        self.down_proj = nn.Linear(scale.d_ff, scale.d_model, bias=scale.biases)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) in and out."""
        # The gate first, as ever: the order of two products is an order of floating-point work in the backward pass.
        gate = self.activation(self.gate_proj(x) if self.gated else self.up_proj(x))
        out: Tensor = self.down_proj(gate * self.up_proj(x) if self.gated else gate)
        return out


class Block(nn.Module):
    """One pre-norm decoder layer."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.input_layernorm = make_norm(scale, scale.d_model)
        self.self_attn = Attention(scale)
        self.post_attention_layernorm = make_norm(scale, scale.d_model)
        self.mlp = MLP(scale)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend = fused_attention) -> Tensor:
        """(B, T, D) in and out; the tables are (T, K)."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, attend)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """The whole model. ``forward(tokens)`` gives logits; ``loss(tokens, targets)`` the mean nats per token.

    With ``checkpointing`` each block keeps its input alone and computes the rest again in the backward pass: a third
    more work for the memory of one block, and the same bits.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, scale: Scale, vocab_size: int, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing, self.scale = checkpointing, scale
        self.embed_tokens = nn.Embedding(vocab_size, scale.d_model)
        self.embed_positions = nn.Embedding(scale.seq_len, scale.d_model) if scale.positions == "learned" else None
        self.embed_norm = make_norm(scale, scale.d_model) if scale.embed_norm else None
        self.layers = nn.ModuleList(Block(scale) for _ in range(scale.layers))
        self.norm = make_norm(scale, scale.d_model)
        self.lm_head = Head(scale.d_model, vocab_size, softcap=scale.softcap)
        if scale.tied:
            # One tensor under two names. torch lists it once, as the embedding, and so it is routed and counted.
            self.lm_head.weight = self.embed_tokens.weight
        # Without rotary positions nothing reads the tables; there they have one row of two.
        rotary = (scale.seq_len, scale.head_width) if scale.positions == "rope" else (1, 2)
        cos, sin = rotary_table(*rotary, scale.rope_base)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def initialize(self, seed: int) -> None:
        """Fill matrices from a normal distribution, one generator in parameter order; norms get ones, biases zeros."""
        with torch.no_grad():
            for parameter, (_, values) in zip(self.parameters(), self.initial_values(seed), strict=True):
                parameter.copy_(values)

    def initial_values(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """What `initialize` fills in, by name, on the CPU, one tensor at a time; needs the shapes of weights alone."""
        generator = torch.Generator().manual_seed(seed)
        shapes = [(name, parameter.shape) for name, parameter in self.named_parameters()]
        for name, shape in shapes:
            values = torch.empty(shape)
            if len(shape) == 1:
                yield name, values.fill_(0.0 if name.endswith(".bias") else 1.0)
            else:
                scaled = self.scale.init == "fan_in" and name.startswith("layers.")
                std = shape[1] ** -0.5 if scaled else self.scale.init_std
                yield name, values.normal_(0.0, std, generator=generator)

    def hidden(
        self, tokens: Tensor, blocks: Iterable[Callable[..., Tensor]] | None = None, *, checkpointing: bool = True
    ) -> Tensor:
        """What the head reads, (B, T, D), for token ids of shape (B, T); ``blocks`` stand in for the layers.

        ``checkpointing=False`` is for blocks that see to it themselves.
        """
        x: Tensor = self.embed_tokens(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        if self.embed_positions is not None:
            x = x + self.embed_positions.weight[: tokens.shape[1]]
        if self.embed_norm is not None:
            x = self.embed_norm(x)
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

        With large vocabularies it is computed in chunks (`tuneopt.training.head`).
        """
        loss: Tensor = self.lm_head(self.hidden(tokens), targets)
        return loss
