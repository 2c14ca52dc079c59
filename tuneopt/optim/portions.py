"""Taking tensors a few at a time, so that what one pass over them leaves is in a core's cache for the next.

An elementwise rule makes four to twelve passes over its tensors, a matrix rule a dozen products over its stack. On a
CPU, passes over everything run at the speed of memory; over a portion of it, all but the first run at the speed of the
cache. On other devices everything is one portion, because there a launch costs more than a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PORTION = 262_144
"""Elements per tensor of a portion of lists, 1 MiB in fp32: smaller ones pay for more calls, larger ones leave the
cache (measured with four tensors for each parameter)."""

STACK_PORTION = 524_288
"""Elements of a portion of a stack, 2 MiB in fp32; a larger matrix is taken alone."""


def portions(columns: Sequence[list[Tensor]]) -> Iterator[tuple[list[int], list[list[Tensor]]]]:
    """Portions of aligned lists (parameters, gradients, state, ...), each with the positions that it comes from.

    Tensors of one position share their first dimension; large ones are cut along it into views, small ones are put
    together. Cut tensors must be contiguous where a kernel goes through memory (`tuneopt.optim.bucket` sees to it).
    """
    everything = list(range(len(columns[0])))
    if not everything or columns[0][0].device.type != "cpu":
        yield everything, list(columns)
        return
    positions: list[int] = []
    elements = 0
    for position, tensor in enumerate(columns[0]):
        count = tensor.numel()
        if count > PORTION:
            rows = max(1, PORTION * tensor.shape[0] // count)
            parts = (torch.split(column[position], rows) for column in columns)
            for part in zip(*parts, strict=True):
                yield [position], [[piece] for piece in part]
            continue
        if elements and elements + count > PORTION:
            yield positions, [[column[row] for row in positions] for column in columns]
            positions, elements = [], 0
        positions.append(position)
        elements += count
    if positions:
        yield positions, [[column[row] for row in positions] for column in columns]


def slices(stack: Tensor) -> Iterator[slice]:
    """Slices along the first dimension of a stack (n, a, b), each of at most `STACK_PORTION` elements on a CPU."""
    count = len(stack)
    size = max(1, STACK_PORTION // stack[0].numel()) if stack.device.type == "cpu" else count
    yield from (slice(first, first + size) for first in range(0, count, size))
