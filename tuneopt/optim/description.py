"""What a class says of itself: family, fallback, source and state bytes, for optimizers from outside tuneopt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from tuneopt.optim.adapter import Adapted
from tuneopt.optim.base import Optimizer
from tuneopt.optim.factory import implementation
from tuneopt.optim.info import OptimizerInfo
from tuneopt.optim.rule import MatrixRule

LAYER = ((1024, 1024),) * 4 + ((4096, 1024),) * 2 + ((1024, 4096),)
"""The matrices of one transformer layer at d = 1024, f = 4096, the size that state bytes are stated for."""


def describe(entry: OptimizerInfo) -> OptimizerInfo:
    """``entry`` completed from its class, which is imported; a built-in entry comes back as it is.

    A plain `torch.optim.Optimizer` class declares nothing, so its family and state bytes stay None. Raises `InputError`
    for a class that cannot be imported or is no optimizer.
    """
    if entry.family is not None:
        return entry
    kind = implementation(entry.name)
    if issubclass(kind, Adapted):
        return replace(entry, source=entry.origin)
    return replace(
        entry,
        family="matrix" if isinstance(kind.rules[0], MatrixRule) else "scalar",
        fallback=kind.rules[-1].name if len(kind.rules) > 1 else None,
        source=kind.source or entry.origin,
        state_bytes_per_parameter=state_bytes_per_parameter(cast(Callable[[nn.Module], Optimizer], kind)),
    )


def state_bytes_per_parameter(kind: Callable[[nn.Module], Optimizer]) -> float:
    """Bytes of fp32 state per parameter of a transformer layer's matrices under the class's defaults, from shapes."""
    matrices = nn.Module()
    with torch.device("meta"):
        for index, shape in enumerate(LAYER):
            matrices.register_parameter(f"matrix{index}", nn.Parameter(torch.empty(shape)))
    return kind(matrices).predicted_state_bytes() / sum(p.numel() for p in matrices.parameters())
