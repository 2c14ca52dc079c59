"""The example in the box: real trials of AdamW, Muon and SOAP on the embedded text, as a ledger to read.

What it shows, and the commands that made it, stand in docs/example.md. It travels in one file: every document as it
is, in Parquet, with a seal over all of them. The documents keep their own seals, so that what comes out is read and
verified as any ledger is.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tuneopt.data.cache import cache_folder
from tuneopt.errors import InputError
from tuneopt.ledger.place import MARKER
from tuneopt.ledger.store import Ledger

FILE = Path(__file__).with_name("ledger.parquet")
"""The packed ledger."""

FOLDERS = ("trials", "sweeps", "runs")
"""What a report reads, and with it what is packed: logs, leases and checkpoints stay behind."""

_SEAL_KEY = b"tuneopt_seal"


def example_ledger() -> Ledger:
    """The example, unfolded into the cache; raises `InputError` where the packed file is damaged."""
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]
    return unpack(FILE, cache_folder() / f"example-{digest}")


def pack(ledger: Ledger, path: Path) -> int:
    """Write a ledger's records, sweeps and accounts into one Parquet file; returns how many documents it holds."""
    inside = ((folder, name) for folder in FOLDERS for name in ledger.files.names(folder))
    names = [MARKER, *(f"{folder}/{name}" for folder, name in inside if name.endswith(".json"))]
    texts = [data.decode() for _, data in sorted(ledger.files.read_all(names))]
    table = pa.table({"name": sorted(names), "text": texts})
    table = table.replace_schema_metadata({_SEAL_KEY: _digest(table).encode()})
    pq.write_table(table, path, compression="zstd", compression_level=19)
    return len(names)


def unpack(path: Path, folder: Path) -> Ledger:
    """The ledger of a packed file, unfolded into ``folder``, which is made; what is there already is left alone.

    Raises `InputError` for a file that is not what was packed.
    """
    table = pq.read_table(path)
    if (table.schema.metadata or {}).get(_SEAL_KEY) != _digest(table).encode():
        raise InputError(f"{path} is damaged: its seal does not fit; install tuneopt again")
    ledger = Ledger(folder)
    for name, text in zip(table["name"].to_pylist(), table["text"].to_pylist(), strict=True):
        ledger.files.create(name, text.encode())
    return ledger


def _digest(table: pa.Table) -> str:
    whole = hashlib.sha256()
    for name, text in zip(table["name"].to_pylist(), table["text"].to_pylist(), strict=True):
        whole.update(f"{name}\0{text}\0".encode())
    return f"sha256:{whole.hexdigest()}"
