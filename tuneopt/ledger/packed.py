"""A ledger in one file: what a finished study leaves for a repository, an archive or a mail.

Every document stands in the file as it is, in Parquet, with a seal over all of them. The documents keep their own
seals, so that what comes out is read and verified as any ledger is. A packed ledger is read where it lies, unfolded
once into the cache; nothing is recorded in it, because the next reader of the file would not see that.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tuneopt.ledger.damage import PREVIOUS, key
from tuneopt.ledger.files import Files, LocalFiles
from tuneopt.ledger.place import MARKER
from tuneopt.ledger.seal import seal, unseal
from tuneopt.paths import cache_folder
from tuneopt.spec import InputError

FOLDERS = ("trials", "sweeps", "runs", "comparisons")
"""What a report reads, and with it what is packed: logs, leases, weights and checkpoints stay behind."""

_SEAL_KEY = b"tuneopt_seal"


def pack(files: Files, only: Collection[str] | None = None) -> tuple[bytes, int]:
    """A ledger's documents as one Parquet file, the same bytes each time, and how many there are.

    ``only`` names those that are packed, as ``trials/<id>.json``; None packs all of them.
    """
    inside = (f"{folder}/{name}" for folder in FOLDERS for name in files.names(folder))
    names = [name for name in inside if name.endswith((".json", ".yaml")) and (only is None or name in only)]
    pairs = sorted(files.read_all([MARKER, *names]))
    if only is not None:
        pairs = list(_chained(pairs))
    table = pa.table({"name": [name for name, _ in pairs], "text": [data.decode() for _, data in pairs]})
    table = table.replace_schema_metadata({_SEAL_KEY: _digest(table).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=19)
    return sink.getvalue(), len(pairs)


def _chained(pairs: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Documents in the order of their names, each account of a run after the one before it that is still there."""
    before = ""
    for name, data in pairs:
        if name.startswith("runs/"):
            plain, _ = unseal(name, data, "JSON")
            data = seal(name, json.dumps({**plain, PREVIOUS: before}, sort_keys=True, allow_nan=False))
            before = key(name)
        yield name, data


def unpack(path: Path, folder: Path) -> int:
    """Unfold a packed ledger into ``folder``, which is made; returns how many documents it holds.

    What is there already is left alone. Raises `InputError` for a file that is not what was packed.
    """
    table = _table(path)
    files = LocalFiles(folder)
    for name, text in zip(table["name"].to_pylist(), table["text"].to_pylist(), strict=True):
        files.create(name, text.encode())
    return int(table.num_rows)


def unfolded(path: Path) -> Path:
    """The folder in the cache with the ledger of a packed file, under the digest of the file."""
    folder = cache_folder() / "ledgers" / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    unpack(path, folder)
    return folder


def _table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError):
        raise InputError(f"{path} is no packed ledger, or damaged; take another copy of it") from None
    seal = (table.schema.metadata or {}).get(_SEAL_KEY)
    if seal is None or table.column_names != ["name", "text"]:
        raise InputError(f"{path} is no packed ledger; `tuneopt ledger pack` makes one of a ledger")
    if seal != _digest(table).encode():
        raise InputError(f"{path} is damaged: its seal does not fit; take another copy of it")
    return table


def _digest(table: pa.Table) -> str:
    whole = hashlib.sha256()
    for name, text in zip(table["name"].to_pylist(), table["text"].to_pylist(), strict=True):
        whole.update(f"{name}\0{text}\0".encode())
    return f"sha256:{whole.hexdigest()}"
