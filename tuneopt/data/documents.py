"""Documents of a prepared split by number: their tokens, and which source each is from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tuneopt.data.ipc import read_batches
from tuneopt.data.manifest import Boundaries, DamagedCorpusError, Shard
from tuneopt.data.shards import Tokens, map_shard
from tuneopt.spec import InputError

_KEPT = 8  # shards whose boundaries are held open: neighbours are asked for one after another


class Documents:
    """Random access to the documents of a split; nothing is read until it is asked for."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        if any(shard.boundaries is None for shard in shards):
            raise InputError(f"the corpus in {folder} keeps no boundaries of documents; prepare it from a recipe")
        self._folder, self._shards = folder, shards
        self._bounds = [shard.boundaries for shard in shards if shard.boundaries is not None]
        self._firsts = np.cumsum([0, *(bounds.documents for bounds in self._bounds)])
        self._open = lru_cache(maxsize=_KEPT)(self._read)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def tokens(self, number: int) -> Tokens:
        """The tokens of document ``number``, from 0, its end of text included; a copy. Raises IndexError."""
        shard, row = self._place(number)
        ends, _ = self._open(shard)
        begin, end = int(ends[row - 1]) if row else 0, int(ends[row])
        parts, start = [], 0
        for view in map_shard(self._folder, self._shards[shard]):
            if start < end and start + len(view) > begin:
                parts.append(view[max(0, begin - start) : end - start])
            start += len(view)
        return np.concatenate(parts)

    def source(self, number: int) -> int:
        """The number of its source in the recipe, those of the evaluation behind the others. Raises IndexError."""
        shard, row = self._place(number)
        return int(self._open(shard)[1][row])

    def _place(self, number: int) -> tuple[int, int]:
        if not 0 <= number < len(self):
            raise IndexError(f"document numbers must lie in 0..{len(self) - 1}, not {number}")
        shard = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return shard, number - int(self._firsts[shard])

    def _read(self, shard: int) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
        return map_boundaries(self._folder, self._bounds[shard], self._shards[shard].tokens)


def map_boundaries(folder: Path, bounds: Boundaries, tokens: int) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
    """Views of the ends and sources of a shard's documents; raises `DamagedCorpusError` for any other file."""
    try:
        with pa.memory_map(str(folder / bounds.file)) as source:
            (batch,) = read_batches(source)
        ends = batch.column("end").to_numpy(zero_copy_only=True)
        sources = batch.column("source").to_numpy(zero_copy_only=True)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedCorpusError(folder, f"{bounds.file}: {str(error).splitlines()[0]}") from None
    sound = len(ends) == bounds.documents and ends.dtype == np.uint64 and sources.dtype == np.uint16
    if not sound or ends[-1] != tokens or not bool(np.all(ends[1:] > ends[:-1])):
        raise DamagedCorpusError(folder, f"{bounds.file} does not hold the ends of {bounds.documents} documents")
    return ends, sources
