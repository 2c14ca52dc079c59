"""Taking a stack of matrices a few at a time on a CPU, so that what one product leaves is in cache for the next."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

PORTION = 524_288
"""Elements of the matrices that are taken at a time, 2 MiB in fp32; a larger matrix is taken alone."""


def portions(stack: Tensor) -> Iterator[slice]:
    """Slices along the first dimension of a stack (n, a, b); the whole of it on devices other than CPUs."""
    count = len(stack)
    size = max(1, PORTION // stack[0].numel()) if stack.device.type == "cpu" else count
    yield from (slice(first, first + size) for first in range(0, count, size))
