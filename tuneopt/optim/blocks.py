"""Cutting lists of tensors into portions that stay in a core's cache.

An elementwise rule makes four to twelve passes over its tensors. On a CPU, passes over a whole matrix run at the speed
of memory; over a portion of it, all but the first run at the speed of the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 262_144
"""Elements per tensor of a portion, 1 MiB in fp32: smaller ones pay for more calls, larger ones leave the cache."""


def blocks(columns: Sequence[list[Tensor]]) -> Iterator[tuple[list[int], list[list[Tensor]]]]:
    """Portions of aligned lists (parameters, gradients, state, ...), each with the positions that it comes from.

    Tensors of one position share their first dimension; large ones are cut along it into views, small ones are put
    together. On other devices than CPUs everything comes at once, because there a launch costs more than a pass.
    """
    everything = list(range(len(columns[0])))
    if not everything or columns[0][0].device.type != "cpu":
        yield everything, list(columns)
        return
    positions: list[int] = []
    held = 0
    for position, tensor in enumerate(columns[0]):
        count = tensor.numel()
        if count > BLOCK:
            rows = max(1, BLOCK * tensor.shape[0] // count)
            parts = (torch.split(column[position], rows) for column in columns)
            for part in zip(*parts, strict=True):
                yield [position], [[piece] for piece in part]
            continue
        if held and held + count > BLOCK:
            yield positions, [[column[each] for each in positions] for column in columns]
            positions, held = [], 0
        positions.append(position)
        held += count
    if positions:
        yield positions, [[column[each] for each in positions] for column in columns]
