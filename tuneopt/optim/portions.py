"""Taking tensors a few at a time, so that what one pass leaves is in a core's cache for the next, and in blocks.

An elementwise rule makes four to twelve passes over its tensors, a matrix rule a dozen products over its stack. On a
CPU, passes over everything run at the speed of memory; over a portion of it, all but the first run at the speed of the
cache. On other devices portions are large, because there a launch costs more than a pass, and bounded, because what a
rule computes with would otherwise be several times the model.

Matrices are cut into blocks of a largest size, equal blocks together, without padding. A matrix (a, b) cut every
``block`` rows and columns has at most four kinds of blocks: the full ones, those at the right edge, those at the lower
edge, and the one in the corner. Each kind is a tile: a rectangle of the matrix that holds ``count`` equal blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

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


@dataclass(frozen=True, slots=True)
class MatrixTile:
    """``down`` x ``across`` blocks of height x width each, from row ``top`` and column ``left`` of the matrix."""

    index: int
    top: int
    left: int
    down: int
    across: int
    height: int
    width: int

    @property
    def count(self) -> int:
        """Blocks in the tile, in row order."""
        return self.down * self.across

    def of(self, stack: Tensor) -> Tensor:
        """The tile's rectangle as a view of a stack (n, a, b)."""
        return stack[:, self.top : self.top + self.down * self.height, self.left : self.left + self.across * self.width]


def _cuts(length: int, block: int) -> list[tuple[int, int, int]]:
    """(start, blocks, size): the full blocks, then the rest."""
    full, rest = divmod(length, block)
    return [(0, full, block)] * (full > 0) + [(full * block, 1, rest)] * (rest > 0)


@lru_cache(maxsize=1024)
def tiles(shape: tuple[int, ...], block: int) -> tuple[MatrixTile, ...]:
    """The tiles of a matrix of this shape; together they cover each element once."""
    pairs = [(rows, columns) for rows in _cuts(shape[0], block) for columns in _cuts(shape[1], block)]
    return tuple(
        MatrixTile(index, top, left, down, across, height, width)
        for index, ((top, down, height), (left, across, width)) in enumerate(pairs)
    )


def cut(stack: Tensor, tile: MatrixTile) -> Tensor:
    """The blocks of one tile of each matrix, (n * count, height, width), as a copy."""
    # Not reshape: of a single matrix it may give a view, which cannot be pasted back.
    return _grid(stack, tile).clone(memory_format=torch.contiguous_format).view(-1, tile.height, tile.width)


def paste(stack: Tensor, tile: MatrixTile, blocks: Tensor) -> None:
    """Put blocks, ordered as `cut` gives them, back into their places."""
    _grid(stack, tile).copy_(blocks.view(-1, tile.down, tile.across, tile.height, tile.width))


def update_blocks(
    stack: Tensor,  # matrices (n, a, b), overwritten
    state: Mapping[str, Tensor],  # key_index of each key and tile, (n, count, ...), updated in place
    keys: Sequence[str],
    block: int,
    update: Callable[..., Tensor],
) -> None:
    """Put ``update(blocks, *state)`` in the place of all blocks, a slice of equal ones (k, height, width) at a time."""
    parts = tiles(tuple(stack.shape[1:]), block)
    whole = len(parts) == 1 and parts[0].count == 1
    for tile in parts:
        own = [state[f"{key}_{tile.index}"].flatten(0, 1) for key in keys]
        blocks = stack if whole else cut(stack, tile)
        for some in slices(blocks):
            blocks[some] = update(blocks[some], *(tensor[some] for tensor in own))
        if not whole:
            paste(stack, tile, blocks)


def _grid(stack: Tensor, tile: MatrixTile) -> Tensor:
    """The tile's rectangle as a view of shape (n, down, across, height, width)."""
    return tile.of(stack).view(-1, tile.down, tile.height, tile.across, tile.width).transpose(2, 3)
