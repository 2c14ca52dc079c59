"""Taking tensors a few at a time, so that what one pass over them leaves is in a core's cache for the next.

An elementwise rule makes four to twelve passes over its tensors, a matrix rule a dozen products over its stack. On a
CPU, passes over everything run at the speed of memory; over a portion of it, all but the first run at the speed of the
cache. On other devices portions are large, because there a launch costs more than a pass, and bounded, because what a
rule computes with would otherwise be several times the model.
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

DEVICE_PORTION = 9 * 2**24
"""Elements of a portion of lists, and of a bucket's stack, on other devices: 576 MiB in fp32. Without bounds SOAP's
update of a 1.2b model computes with 38 GiB beside its state (counted on a pretended device, docs/benchmarks.md). It
holds 64 of that model's attention matrices or 16 of its MLP's, so that no stack is nearly empty: with 2^27 SOAP's
refresh took 46 calls of QR, and now takes 32."""

DEVICE_SLICE = DEVICE_PORTION // 2
"""Elements of a slice of a stack on other devices; matrix rules keep up to eight tensors of that size."""


def portions(columns: Sequence[list[Tensor]]) -> Iterator[tuple[list[int], list[list[Tensor]]]]:
    """Portions of aligned lists (parameters, gradients, state, ...), each with the positions that it comes from.

    Tensors of one position share their first dimension; large ones are cut along it into views, small ones are put
    together. Cut tensors must be contiguous where a kernel goes through memory (`tuneopt.optim.bucket` sees to it).
    """
    if not columns[0]:
        yield [], list(columns)
        return
    most = PORTION if columns[0][0].device.type == "cpu" else DEVICE_PORTION
    positions: list[int] = []
    elements = 0
    for position, tensor in enumerate(columns[0]):
        count = tensor.numel()
        if count > most:
            rows = max(1, most * tensor.shape[0] // count)
            parts = (torch.split(column[position], rows) for column in columns)
            for part in zip(*parts, strict=True):
                yield [position], [[piece] for piece in part]
            continue
        if elements and elements + count > most:
            yield positions, [[column[row] for row in positions] for column in columns]
            positions, elements = [], 0
        positions.append(position)
        elements += count
    if positions:
        yield positions, [[column[row] for row in positions] for column in columns]


def slices(stack: Tensor) -> Iterator[slice]:
    """Slices along the first dimension of a stack (n, a, b), of at most `STACK_PORTION` elements, or `DEVICE_SLICE`."""
    count = len(stack)
    most = STACK_PORTION if stack.device.type == "cpu" else DEVICE_SLICE
    size = max(1, most // max(1, stack[0].numel())) if count else 1
    yield from (slice(first, first + size) for first in range(0, count, size))
