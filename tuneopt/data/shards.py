"""Token shards on disk: Arrow IPC files, written as a stream and read through a memory map, with the documents in them.

A shard ``train-00000.arrow`` has one column, ``tokens`` (uint16 or uint32), in uncompressed record batches. Beside a
shard that was prepared from a recipe lies ``train-00000.documents.arrow``: for each document its ``end`` (uint64, the
tokens up to its end, counted from the shard's begin) and its ``source`` (uint16, the number of its source).

The writer holds one record batch in memory, the reader none: what it hands out are views of the map. Shards are read as
files that somebody else may have written. Arrow decompresses a compressed batch as soon as it is read, and 300 bytes
can stand for gigabytes, so a compressed batch, which no shard has, is refused before Arrow unpacks it. Batches are read
in the order of the file, so a footer that points elsewhere changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tuneopt.data.manifest import Boundaries, DamagedCorpusError, Shard, file_sha256
from tuneopt.errors import lasting
from tuneopt.spec import InputError

Tokens = NDArray[np.unsignedinteger]

BATCH_TOKENS = 1 << 22
"""Tokens of a record batch: 8 MiB of uint16, the writer's only buffer."""

SHARD_TOKENS = 1 << 28
"""Tokens of a file: 512 MiB of uint16."""

BOUNDARIES = pa.schema([pa.field("end", pa.uint64(), nullable=False), pa.field("source", pa.uint16(), nullable=False)])
"""Columns of the file of documents. Sources are numbered as the recipe lists them, those of the evaluation behind."""

_MAGIC_BYTES = 8
"""``ARROW1`` and two bytes of padding in front of the first message."""

_HEADER, _COMPRESSION = 2, 3
"""Places of fields: of a Message its header, of a RecordBatch its compression (format/Message.fbs of Arrow)."""

_KEPT = 8
"""Shards whose boundaries are held open: neighbours are asked for one after another."""


class ShardWriter:
    """Writes the tokens of one split into numbered shards; a context manager that closes the open file.

    A shard ends behind a whole number of record batches, wherever the documents end. A kill leaves a file without its
    footer, which is no shard: nothing counts before the manifest names it.
    """

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
        """Write the buffer as a record batch, into the next file where the last one is full."""
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

    def __exit__(self, *_: object) -> None:
        self._close()


def map_shard(folder: Path, shard: Shard) -> list[Tokens]:
    """Views of a shard's record batches in a memory map; nothing is read until it is used.

    Raises `DamagedCorpusError` for a file that is no such shard.
    """
    views: list[Tokens] = [columns[0] for columns in _map_columns(folder, shard.file, "tokens")]
    if sum(map(len, views)) != shard.tokens or any(view.dtype.kind != "u" for view in views):
        raise DamagedCorpusError(folder, f"{shard.file} does not hold {shard.tokens} tokens")
    return views


def map_boundaries(folder: Path, bounds: Boundaries, tokens: int) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
    """Views of the ends and sources of a shard's documents; raises `DamagedCorpusError` for any other file."""
    batches = _map_columns(folder, bounds.file, "end", "source")
    if len(batches) == 1:
        ends, sources = batches[0]
        sound = len(ends) == bounds.documents and ends.dtype == np.uint64 and sources.dtype == np.uint16
        if sound and ends[-1] == tokens and bool(np.all(ends[1:] > ends[:-1])):
            return ends, sources
    raise DamagedCorpusError(folder, f"{bounds.file} does not hold the ends of {bounds.documents} documents")


def _map_columns(folder: Path, file: str, *names: str) -> list[list[NDArray[Any]]]:
    """Columns of each record batch of a file, as views of its map."""
    try:
        with pa.memory_map(str(folder / file)) as source:
            columns = [[batch.column(name) for name in names] for batch in read_batches(source)]
        return [[column.to_numpy(zero_copy_only=True) for column in batch] for batch in columns]
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        if isinstance(error, OSError) and not lasting(error):
            raise
        # What pyarrow says of an error of the system holds its number and its own call.
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number).lower() if number else str(error).splitlines()[0]
        raise DamagedCorpusError(folder, f"{file}: {reason}") from None


class Documents:
    """Random access to the documents of a split by number, from 0; nothing is read until it is asked for.

    They are in the order of the mixture, which training then shuffles by windows. Raises `InputError` for a corpus
    without boundaries.
    """

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
        """The shard that a document is in, and its number there."""
        if not 0 <= number < len(self):
            raise IndexError(f"document numbers must lie in 0..{len(self) - 1}, not {number}")
        shard = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return shard, number - int(self._firsts[shard])

    def _read(self, shard: int) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
        return map_boundaries(self._folder, self._bounds[shard], self._shards[shard].tokens)


def read_batches(source: Any) -> list[pa.RecordBatch]:
    """All record batches of a seekable Arrow file; views of it where it is a memory map.

    Raises ValueError for a compressed batch, and what pyarrow raises (ArrowException, OSError) for a damaged file.
    """
    expected = pa.ipc.open_file(source).num_record_batches
    source.seek(_MAGIC_BYTES)
    reader = pa.ipc.MessageReader.open_stream(source)
    first = next(iter(reader), None)
    if first is None or first.type != "schema":
        raise ValueError("it does not begin with a schema")
    schema = pa.ipc.read_schema(first)
    batches: list[pa.RecordBatch] = []
    while len(batches) < expected:
        try:
            message = reader.read_next_message()
        except StopIteration:
            raise ValueError(f"it has {len(batches)} of {expected} record batches") from None
        if message.type != "record batch" or _compressed(message.metadata):
            raise ValueError("it holds compressed data, which no token shard does")
        batches.append(pa.ipc.read_record_batch(message, schema))
        batches[-1].validate()  # that its buffers are as long as it says
    return batches


def _compressed(metadata: pa.Buffer) -> bool:
    """Whether a record batch's message says that its body is compressed."""
    data = metadata.to_pybytes()
    try:
        message = struct.unpack_from("<I", data, 0)[0]
        header = _field(data, message, _HEADER)
        if not header:
            return True
        return bool(_field(data, header + struct.unpack_from("<I", data, header)[0], _COMPRESSION))
    except struct.error:
        raise ValueError("its metadata is damaged") from None


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer table stands, 0 when it is left out.

    A table begins with the distance back to its vtable: two sizes of 16 bits, then the offset of each field or 0.
    """
    offsets = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, offsets)[0]
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", data, offsets + place)[0] if place + 2 <= size else 0
    return table + offset if offset else 0
