"""Keeping evaluation text out of training: equal documents, and documents that share a run of words.

What it claims, exactly. The *letters* of a text are its lower-cased UTF-8 bytes without the ASCII bytes that are
neither letters nor digits; its *words* are the runs of bytes between such bytes. A training document is kept out when

- its letters equal those of an evaluation document (64 bits of SHA-256), or
- it holds n words in a row, n being the recipe's ``ngram``, that some evaluation document holds in a row (64-bit
  hashes).

Hashes can only keep out too much: with 10^8 runs to evaluate on, a run of training text is mistaken with a probability
of about 5e-12. Not found: paraphrases, translations, copies with a changed word in every n, and copies in writing
without spaces unless the whole document is equal. Of evaluation text that is held out of the sources themselves, equal
documents are in one split by construction, and runs of words are not compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tuneopt.data.batches import mix

Words = NDArray[np.uint64]

BLOCK = 1 << 18
"""Bytes of text that are hashed at once: some 40 bytes of memory for each."""

# Bytes from 128 on count as letters: they are parts of letters of other scripts in UTF-8, and are compared as they are.
_LETTERS = bytes(c for c in range(256) if chr(c).isalnum() or c >= 128)
_SIGNS = bytes(c for c in range(256) if c not in _LETTERS)
_SPACED = bytes(c if c in _LETTERS else 32 for c in range(256))
_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_INVERSE = pow(int(_BASE), -1, 1 << 64)
_STEP = np.uint64(0xD1B54A32D192ED03)


def fingerprint(text: str) -> bytes:
    """The first 8 bytes of the SHA-256 of a text's letters; of the text itself where it has none."""
    plain = text.lower().encode()
    return hashlib.sha256(plain.translate(None, _SIGNS) or text.encode()).digest()[:8]


class Runs:
    """Hashes every run of n words, about `BLOCK` bytes of text at a time, so that a long text takes little memory.

    A word's hash is a polynomial in its bytes, a run's one in its words' hashes. Both are taken modulo 2^64 (unsigned
    arithmetic wraps) and mixed: bit i of such a polynomial depends on the bits up to i of its terms alone.
    """

    def __init__(self, ngram: int) -> None:
        self.ngram = ngram
        self._powers, self._inverses = _powers(int(_BASE), BLOCK), _powers(_INVERSE, BLOCK)

    def hashes(self, texts: Sequence[str]) -> tuple[Words, NDArray[np.int64]]:
        """Hashes of the runs of all texts, shape (runs,), and the text each is from; texts of fewer words have none."""
        found = [(np.zeros(0, np.uint64), np.zeros(0, np.int64))]
        blocks: list[bytes] = []
        numbers: list[int] = []
        size = 0
        for number, text in enumerate(texts):
            for block in _blocks(text.lower().encode().translate(_SPACED), self.ngram):
                blocks.append(block)
                numbers.append(number)
                size += len(block)
                if size >= BLOCK:
                    found.append(self._hashes(blocks, numbers))
                    blocks, numbers, size = [], [], 0
        found.append(self._hashes(blocks, numbers))
        return np.concatenate([hashes for hashes, _ in found]), np.concatenate([owners for _, owners in found])

    def _hashes(self, blocks: Sequence[bytes], numbers: Sequence[int]) -> tuple[Words, NDArray[np.int64]]:
        """The runs of blocks of text (b bytes, w words), without those that go from one block into the next."""
        data = np.frombuffer(b" ".join(blocks) + b" ", np.uint8)  # (b,)
        edges = np.flatnonzero(np.diff(data != 32, prepend=False))  # where words begin and end, in turn
        begins = edges[0::2]
        # The hash of a word is a polynomial in its bytes: sum of byte * base^(place in the word), modulo 2^64. That is
        # the difference of two sums over the data up to its ends, over base^(where it begins): no loop over words.
        sums = self._sums(data, edges)  # (2w,)
        words = mix((sums[1::2] - sums[0::2]) * self._inverse(begins))
        count = max(0, len(words) - self.ngram + 1)
        hashes = np.zeros(count, np.uint64)
        for offset in range(self.ngram):  # a polynomial again, in the hashes of n words in a row
            hashes = hashes * _STEP + words[offset : offset + count]
        owners = np.searchsorted(np.cumsum([len(block) + 1 for block in blocks]), begins, side="right")  # (w,)
        # A run is whole where its first and its last word are of one block.
        whole = owners[:count] == owners[self.ngram - 1 :] if count else np.zeros(0, bool)
        return mix(hashes[whole]), np.array(numbers, np.int64)[owners[:count][whole]]

    def _sums(self, data: NDArray[np.uint8], places: NDArray[np.int64]) -> Words:
        """The sum of byte * base^(place in the data) over all bytes before each of the places, which ascend."""
        found = np.empty(len(places), np.uint64)
        total = np.zeros(1, np.uint64)
        for start in range(0, len(data), BLOCK):
            part = data[start : start + BLOCK]
            scale = np.uint64(pow(int(_BASE), start, 1 << 64))
            sums = np.concatenate([total, total + np.cumsum(part * self._powers[: len(part)]) * scale])
            first, stop = np.searchsorted(places, [start, start + BLOCK])
            found[first:stop] = sums[places[first:stop] - start]
            total = sums[-1:]
        return found

    def _inverse(self, places: NDArray[np.int64]) -> Words:
        """base^-place of each place; the base is odd, and so has an inverse modulo 2^64."""
        blocks = _powers(pow(_INVERSE, BLOCK, 1 << 64), 1 + int(places[-1] // BLOCK) if len(places) else 1)
        inverses: Words = self._inverses[places % BLOCK] * blocks[places // BLOCK]
        return inverses


def _powers(base: int, count: int) -> Words:
    """base^0 to base^(count - 1), modulo 2^64."""
    return np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full(count - 1, base, np.uint64)]), dtype=np.uint64)


def _blocks(spaced: bytes, ngram: int) -> Iterator[bytes]:
    """A text as it is, or a long one in blocks that go on for n - 1 words in the next one: the runs are the same."""
    if len(spaced) > BLOCK:
        data = np.frombuffer(spaced, np.uint8)
        spaced = data[np.append(True, (data[1:] != 32) | (data[:-1] != 32))].tobytes()  # one space between words
    start = 0
    while len(spaced) - start > BLOCK:
        end = cut = spaced.find(b" ", start + BLOCK)
        for _ in range(ngram - 1):
            end = spaced.find(b" ", end + 1) if end >= 0 else end
        if end < 0:
            break
        yield spaced[start:end]
        start = cut + 1
    yield spaced[start:]


@dataclass(frozen=True, slots=True)
class Guard:
    """Sorted 64-bit hashes of the evaluation documents and of their runs of words, both without repetition.

    It goes to every worker with the job, 8 bytes for each hash; the table of flags is made there.
    """

    documents: Words
    runs: Words
    ngram: int
    _filter: NDArray[np.bool_] = field(init=False, repr=False, compare=False)
    _shift: np.uint64 = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Most runs are in no evaluation text: one look into a table of flags by leading bits answers for nearly all.
        # Eight to sixteen flags for each run leave at most one in eight to be searched for; 27 bits are 128 MiB.
        bits = max(1, min(27, (8 * len(self.runs)).bit_length()))
        shift = np.uint64(64 - bits)
        flags = np.zeros(1 << bits, bool)
        flags[self.runs >> shift] = True
        object.__setattr__(self, "_filter", flags)
        object.__setattr__(self, "_shift", shift)

    def __reduce__(self) -> tuple[type[Guard], tuple[Words, Words, int]]:
        return Guard, (self.documents, self.runs, self.ngram)

    @classmethod
    def of(cls, documents: Sequence[Words], runs: Sequence[Words], ngram: int) -> Guard:
        """The guard over hashes that came in several arrays."""
        empty = np.zeros(0, np.uint64)
        return cls(np.unique(np.concatenate([empty, *documents])), np.unique(np.concatenate([empty, *runs])), ngram)

    def has_documents(self, hashes: Words) -> NDArray[np.bool_]:
        """Which documents equal an evaluation document, shape (documents,)."""
        return _among(hashes, self.documents)

    def has_runs(self, hashes: Words, owners: NDArray[np.int64], texts: int) -> NDArray[np.bool_]:
        """Which texts share a run of words with an evaluation document, shape (texts,).

        ``hashes`` and ``owners`` as `Runs.hashes` gives them, shape (runs,).
        """
        maybe = np.flatnonzero(self._filter[hashes >> self._shift])
        found = maybe[_among(hashes[maybe], self.runs)]
        shared = np.zeros(texts, bool)
        shared[owners[found]] = True
        return shared


def _among(asked: Words, known: Words) -> NDArray[np.bool_]:
    """Which of the hashes are among the known ones, which are sorted; shape (asked,)."""
    if not len(known):
        return np.zeros(len(asked), bool)
    among: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked
    return among
