"""Cutting matrices into blocks of a largest size, equal blocks together, without padding.

A matrix (a, b) cut every ``block`` rows and columns has at most four kinds of blocks: the full ones, those at the
right edge, those at the lower edge, and the one in the corner. Each kind is a tile: a rectangle of the matrix that
holds ``count`` equal blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tuneopt.optim.portions import slices


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
