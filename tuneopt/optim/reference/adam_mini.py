"""Adam-mini after Zhang et al., arXiv 2406.16793, algorithm 1, with the blocks of the study (arXiv 2509.02046).

All entries of a block share one second moment: the mean of the squared gradient over the block. A block is a row, that
is an output neuron or a token; in query and key projections it is the rows of one head. Vectors have AdamW.
"""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import SAMPLE, Hyperparameters, Reference, Shape, State, adamw, zeros


def init(shape: Shape, h: Hyperparameters) -> State:
    """The first moment (rows, columns), and a second moment for each row; rows of one block have equal ones."""
    return {"m": zeros(shape), "v": zeros((shape[0], 1))}


def step_with(
    mean_square: Tensor, p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters
) -> tuple[Tensor, State]:
    """AdamW with ``mean_square`` (rows, 1) in the place of g^2."""
    m = h["beta1"] * state["m"] + (1 - h["beta1"]) * g
    v = h["beta2"] * state["v"] + (1 - h["beta2"]) * mean_square
    m_hat, v_hat = m / (1 - h["beta1"] ** step), v / (1 - h["beta2"] ** step)
    direction = m_hat / (v_hat.sqrt() + h["epsilon"])
    return p - h["learning_rate"] * (direction + h["weight_decay"] * p), {"m": m, "v": v}


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """One block for each row."""
    return step_with((g**2).mean(dim=1, keepdim=True), p, g, state, step, h)


def update_heads(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """One block for each of ``heads`` heads; one for each row where their number is unknown (0)."""
    heads = int(h["heads"]) or g.shape[0]
    mean_square = (g**2).reshape(heads, -1).mean(dim=1)  # (heads,)
    return step_with(mean_square.repeat_interleave(g.shape[0] // heads)[:, None], p, g, state, step, h)


def rows(tensor: Tensor, h: Hyperparameters) -> Tensor:
    """Whole rows, evenly spaced."""
    return tensor[:: max(1, tensor.numel() // SAMPLE)]


def rule_of(name: str, kind: str) -> str:
    """Vectors have AdamW, query and key projections blocks of heads, everything else rows."""
    if kind == "vector":
        return "adamw"
    return "adam_mini_heads" if name.endswith(("q_proj.weight", "k_proj.weight")) else "adam_mini"


def clipped(h: Hyperparameters) -> bool:
    """Matrices are clipped only where ``clipped`` says all; vectors always are."""
    return bool(h["clipped"] == "all")


RULES = {
    "adam_mini": Reference(init, update, part=rows, clipped=clipped),
    "adam_mini_heads": Reference(init, update_heads, clipped=clipped),
    **adamw.RULES,
}
