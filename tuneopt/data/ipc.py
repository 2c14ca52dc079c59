"""Record batches of an Arrow IPC file that somebody else may have written.

Arrow decompresses a compressed batch as soon as it is read, and 300 bytes can stand for gigabytes. Files here are never
compressed, because they are read through memory maps: a compressed batch is refused before Arrow unpacks it. Batches
are read in the order of the file, so a footer that points elsewhere changes nothing.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow as pa

_MAGIC_BYTES = 8
"""``ARROW1`` and two bytes of padding in front of the first message."""

_HEADER, _COMPRESSION = 2, 3
"""Places of fields: of a Message its header, of a RecordBatch its compression (format/Message.fbs of Arrow)."""


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
    """Where a field of a flatbuffer table stands, 0 when it is left out."""
    offsets = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, offsets)[0]
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", data, offsets + place)[0] if place + 2 <= size else 0
    return table + offset if offset else 0
