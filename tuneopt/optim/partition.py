"""Blocks of Adam-mini: which entries of a matrix share one second moment.

A block is a row (an output neuron, a token of the embedding or the head), or the rows of one attention head.
"""

from __future__ import annotations

import re

from torch import Tensor, nn

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.rule import Shape

QUERY_OR_KEY = r"(^|[._])(w?[qk]|query|key)(_?proj)?\.weight$"
"""Names of the projections that have one block per head."""

HEAD_COUNTS = ("num_key_value_heads", "num_kv_heads", "heads", "num_heads", "n_heads", "num_attention_heads")
"""Attributes in which attention modules and their configurations say how many key and value heads they have."""


def block_count(shape: Shape, settings: Settings) -> int:
    """Blocks of a parameter: the group's ``heads`` for each of its logical matrices; where that is 0, its rows."""
    rows = shape[1] if settings["transposed"] else shape[0]
    return int(settings["heads"] * settings["pieces"]) or rows


def by_block(tensor: Tensor, settings: Settings) -> Tensor:
    """A parameter-shaped tensor as a view (blocks, rows of a block, in)."""
    matrix = tensor.mT if settings["transposed"] else tensor
    return matrix.view(block_count(tuple(tensor.shape), settings), -1, matrix.shape[1])


def heads_of(model: object) -> int:
    """The number of key and value heads that every attention module of a model agrees on; 0 where it is unknown."""
    if not isinstance(model, nn.Module):
        return 0
    found = set()
    for module in model.modules():
        if any(re.search(QUERY_OR_KEY, f"{child}.weight") for child, _ in module.named_children()):
            homes = (module, getattr(module, "config", None), getattr(model, "config", None))
            counts = (getattr(home, name, None) for home in homes for name in HEAD_COUNTS)
            found.add(next((count for count in counts if isinstance(count, int)), 0))
    return found.pop() if len(found) == 1 else 0
