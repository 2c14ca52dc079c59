"""Windows of tokens out of memory-mapped shards, and batches of them in training order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuneopt.data.order import SampleOrder


class Windows:
    """Non-overlapping windows over a token stream that is stored in several arrays.

    Window i holds tokens i * T to i * T + T, both included: T inputs and, shifted by one, T targets. Its last token is
    the first of window i + 1, so every token but the very first is predicted once. Up to T tokens at the end are left.
    """

    def __init__(self, views: Sequence[NDArray[np.unsignedinteger]], seq_len: int) -> None:
        if seq_len < 1:
            raise ValueError(f"seq_len must be positive, not {seq_len}")
        self.seq_len = seq_len
        self._views = views
        self._ends = np.cumsum([len(view) for view in views], dtype=np.int64)

    def __len__(self) -> int:
        tokens = int(self._ends[-1]) if len(self._ends) else 0
        return max(0, (tokens - 1) // self.seq_len)

    def take(self, indices: ArrayLike) -> NDArray[np.int32]:
        """Windows of those indices, shape (n, T + 1), copied out of the map; raises IndexError outside 0..len-1."""
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"window indices must lie in 0..{len(self) - 1}")
        length = self.seq_len + 1
        out = np.empty((len(wanted), length), np.int32)
        firsts = wanted * self.seq_len
        numbers = np.searchsorted(self._ends, firsts, side="right")
        for row, first, number in zip(out, firsts.tolist(), numbers.tolist(), strict=True):
            view = self._views[number]
            part = view[first - int(self._ends[number]) + len(view) :][:length]
            row[: len(part)] = part
            while len(part) < len(row):  # the window goes on in the next array
                row, number = row[len(part) :], number + 1
                part = self._views[number][: len(row)]
                row[: len(part)] = part
        return out


def batch(
    windows: Windows, order: SampleOrder, step: int, batch_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Inputs and targets of an optimizer step, each of shape (batch_size, T), as views of one array.

    Step s takes samples s * batch_size onwards, so the stream of samples is the same for every batch size.
    """
    if order.windows != len(windows):
        raise ValueError(f"the order is over {order.windows} windows, not over these {len(windows)}")
    block = windows.take(order.indices(step * batch_size, batch_size))
    return block[:, :-1], block[:, 1:]
