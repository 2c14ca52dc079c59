"""The order in which training samples are drawn: every epoch a fresh permutation of all windows, computed on demand.

No permutation is stored. Sample i of the budget lies in epoch i // n at place i % n, and the place is sent through a
permutation of 0..n-1 that seed and epoch key: a Feistel network over pairs (l, r) with l < a, r < b, a * b >= n,

    l <- (l + F(r)) mod a,    r <- (r + F(l)) mod b,    alternating, F a 64-bit hash of its input and a round key,

walked along its cycle until the result is below n. The result depends on integer arithmetic alone, never on a library's
random stream, so it stays the same over versions and machines.

Source: Luby and Rackoff, 1988 (Feistel networks as permutations); Black and Rogaway, 2002 (arbitrary domains: modular
networks and cycle walking); Steele et al., 2014 (SplitMix64, whose finaliser makes the round keys).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Words = NDArray[np.uint64]

ROUNDS = 8
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
        samples = np.arange(first, first + count, dtype=np.uint64)
        epochs, places = np.divmod(samples, np.uint64(self.windows))
        keys = _mix(_mix(epochs + self._key())[None, :] ^ _ROUND_KEYS)  # (R, count)
        places = self._permute(places, keys)
        outside = np.flatnonzero(places >= self.windows)
        while len(outside):
            places[outside] = self._permute(places[outside], keys[:, outside])
            outside = outside[places[outside] >= self.windows]
        return places.astype(np.int64)

    def _key(self) -> np.uint64:
        digest = hashlib.sha256(f"tuneopt sample order {self.seed}".encode()).digest()
        return np.uint64(int.from_bytes(digest[:8], "little"))

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


def _mix(words: _Words) -> _Words:
    """SplitMix64's finaliser: a bijection of 64-bit words in which every input bit moves every output bit."""
    words = (words ^ (words >> _30)) * _FIRST
    words = (words ^ (words >> _27)) * _SECOND
    return words ^ (words >> _31)


def _hash_below(words: _Words, bound: np.uint64) -> _Words:
    """Hash words to numbers below a bound of at most 2^32: the hash's high half times the bound, without a division."""
    words = words * _FIRST
    words = (words ^ (words >> _32)) * _SECOND
    return ((words >> _32) * bound) >> _32
