"""Token shards: Arrow IPC files with one column ``tokens``, written as a stream, read through a memory map.

The writer holds one record batch in memory, the reader none: what it hands out are views of the map.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tuneopt.data.ipc import read_batches
from tuneopt.data.manifest import DamagedCorpusError, Shard, file_sha256

Tokens = NDArray[np.unsignedinteger]

BATCH_TOKENS = 1 << 22
"""Tokens of a record batch: 8 MiB of uint16, the writer's only buffer."""

SHARD_TOKENS = 1 << 28
"""Tokens of a file: 512 MiB of uint16."""


class ShardWriter:
    """Writes the tokens of one split into numbered shards; a context manager that closes the open file."""

    def __init__(
        self,
        folder: Path,
        split: str,
        dtype: np.dtype[np.unsignedinteger],
        batch_tokens: int = BATCH_TOKENS,
        shard_tokens: int = SHARD_TOKENS,
        first: int = 0,
        digest: hashlib._Hash | None = None,
    ) -> None:
        """``first`` is the number of the first file; ``digest`` has seen the tokens of the files before it."""
        self.tokens = 0
        self._folder, self._split = folder, split
        self._schema = pa.schema([pa.field("tokens", pa.from_numpy_dtype(dtype), nullable=False)])
        self._buffer = np.empty(batch_tokens, dtype)
        self._filled = 0
        self._batches_per_shard = max(1, shard_tokens // batch_tokens)
        self._batches = 0
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._files: list[tuple[str, int]] = []
        self._first = first
        self._digest = digest or hashlib.sha256()

    def append(self, tokens: Tokens) -> None:
        """Add tokens, shape (n,)."""
        while len(tokens):
            taken = min(len(tokens), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + taken] = tokens[:taken]
            self._filled += taken
            tokens = tokens[taken:]
            if self._filled == len(self._buffer):
                self._flush()

    def finish(self) -> tuple[str, tuple[Shard, ...]]:
        """Close the last file; the SHA-256 of all tokens, and the shards."""
        self._flush()
        self._close()
        shards = tuple(
            Shard(name, tokens, (self._folder / name).stat().st_size, file_sha256(self._folder / name))
            for name, tokens in self._files
        )
        return self._digest.hexdigest(), shards

    def _flush(self) -> None:
        if not self._filled:
            return
        block = self._buffer[: self._filled]
        # Little-endian whatever the machine, so that the fingerprint is the same everywhere.
        self._digest.update(block.astype(block.dtype.newbyteorder("<"), copy=False).data)
        if self._writer is None or self._batches == self._batches_per_shard:
            self._close()
            name = f"{self._split}-{self._first + len(self._files):05d}.arrow"
            self._writer = pa.ipc.new_file(str(self._folder / name), self._schema)
            self._files.append((name, 0))
            self._batches = 0
        self._writer.write_batch(pa.record_batch([pa.array(block)], schema=self._schema))
        name, tokens = self._files[-1]
        self._files[-1] = (name, tokens + self._filled)
        self.tokens += self._filled
        self._batches += 1
        self._filled = 0

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def map_shard(folder: Path, shard: Shard) -> list[Tokens]:
    """Views of a shard's record batches in a memory map; nothing is read until it is used.

    Raises `DamagedCorpusError` for a file that is no such shard.
    """
    try:
        with pa.memory_map(str(folder / shard.file)) as source:
            columns = [batch.column("tokens") for batch in read_batches(source)]
        views = [column.to_numpy(zero_copy_only=True) for column in columns]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DamagedCorpusError(folder, f"{shard.file}: {str(error).splitlines()[0]}") from None
    if sum(map(len, views)) != shard.tokens or any(view.dtype.kind != "u" for view in views):
        raise DamagedCorpusError(folder, f"{shard.file} does not hold {shard.tokens} tokens")
    return views
