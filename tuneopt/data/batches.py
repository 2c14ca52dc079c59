"""Training batches: the order in which windows of tokens are drawn, and the windows out of memory-mapped shards.

Every epoch is a fresh permutation of all windows, computed on demand: no permutation is stored. Sample i of the budget
lies in epoch i // n at place i % n, and the place is sent through a permutation of 0..n-1 that seed and epoch key: a
Feistel network over pairs (l, r) with l < a, r < b, a * b >= n,

    l <- (l + F(r)) mod a,    r <- (r + F(l)) mod b,    alternating, F a 64-bit hash of its input and a round key,

walked along its cycle until the result is below n. The result depends on integer arithmetic alone, never on a library's
random stream, so it stays the same over versions and machines: a batch is a function of (seed, step, batch size).

Source: Luby and Rackoff, 1988 (Feistel networks as permutations); Black and Rogaway, 2002 (arbitrary domains: modular
networks and cycle walking); Steele et al., 2014 (SplitMix64, whose finaliser makes the round keys).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Words = NDArray[np.uint64]

ROUNDS = 8
"""Passes of the network: twice the four that Luby and Rackoff need, because F is a fast hash and no cipher."""

_LARGEST = 1 << 62  # half-domains then stay below 2^32, which `_hash_below` needs
_GOLDEN, _FIRST, _SECOND = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_27, _30, _31, _32 = map(np.uint64, (27, 30, 31, 32))  # made once: a batch is drawn in many tiny array operations
_ROUND_KEYS = np.arange(1, ROUNDS + 1, dtype=np.uint64)[:, None] * _GOLDEN  # (R, 1)


@dataclass(frozen=True, slots=True)
class SampleOrder:
    """Which of ``windows`` windows is drawn as sample 0, 1, 2, ... under a seed (any integer)."""

    windows: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.windows < _LARGEST:
            raise ValueError(f"windows must be positive and below 2**62, not {self.windows}")

    def indices(self, first: int, count: int) -> NDArray[np.int64]:
        """Window indices of samples ``first`` to ``first + count - 1``, shape (count,); uses memory for these only."""
        if first < 0 or count < 0:
            raise ValueError(f"first and count must not be negative, not {first} and {count}")
        samples = np.arange(first, first + count, dtype=np.uint64)  # (count,)
        epochs, places = np.divmod(samples, np.uint64(self.windows))
        # The seed as a word whose bits look random: seeds 0 and 1 must not give related permutations.
        digest = hashlib.sha256(f"tuneopt sample order {self.seed}".encode()).digest()
        word = np.uint64(int.from_bytes(digest[:8], "little"))
        keys = mix(mix(epochs + word)[None, :] ^ _ROUND_KEYS)  # (R, count)
        places = self._permute(places, keys)
        # Cycle walking: a * b exceeds n by less than sqrt(n) + 1, so hardly any place leaves the domain, and few twice.
        outside = np.flatnonzero(places >= self.windows)
        while len(outside):
            places[outside] = self._permute(places[outside], keys[:, outside])
            outside = outside[places[outside] >= self.windows]
        return places.astype(np.int64)

    def _permute(self, places: _Words, keys: _Words) -> _Words:
        """One pass of the network over a * b places, shape (n,), with round keys of shape (R, n)."""
        rows = math.isqrt(self.windows - 1) + 1
        columns = -(-self.windows // rows)
        a, b = np.uint64(rows), np.uint64(columns)
        left, right = np.divmod(places, b)
        for number, key in enumerate(keys):
            if number % 2 == 0:
                left = (left + _hash_below(right ^ key, a)) % a
            else:
                right = (right + _hash_below(left ^ key, b)) % b
        return left * b + right


def mix(words: _Words) -> _Words:
    """SplitMix64's finaliser: a bijection of 64-bit words in which every input bit moves every output bit."""
    words = (words ^ (words >> _30)) * _FIRST
    words = (words ^ (words >> _27)) * _SECOND
    return words ^ (words >> _31)


def _hash_below(words: _Words, bound: np.uint64) -> _Words:
    """Hash words to numbers below a bound of at most 2^32: the hash's high half times the bound, without a division."""
    words = words * _FIRST
    words = (words ^ (words >> _32)) * _SECOND
    return ((words >> _32) * bound) >> _32


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
        asked = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(asked) and (asked.min() < 0 or asked.max() >= len(self)):
            raise IndexError(f"window indices must lie in 0..{len(self) - 1}")
        length = self.seq_len + 1
        out = np.empty((len(asked), length), np.int32)
        firsts = asked * self.seq_len  # (n,), the first token of each window in the stream
        numbers = np.searchsorted(self._ends, firsts, side="right")  # (n,), the array that holds it
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
