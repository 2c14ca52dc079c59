"""One Parquet file beside the small ones, for fast reading.

The compacted file is derived data and may be deleted at any time. It is replaced in one step, so a reader sees the
old or the new one. A row in it counts only while the trial's own file is there; trials that it lacks are read from
their own files. A damaged or foreign compacted file is passed over (`Ledger.verify` reports it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tuneopt.ledger import table as tables
from tuneopt.ledger.checks import SCHEMA

if TYPE_CHECKING:
    from tuneopt.ledger.store import Ledger

NAME = "compacted/trials.parquet"
_FORMAT = f"1/{SCHEMA}".encode()
_KEY = b"tuneopt_compaction"
_DERIVED = ("curve", "record")


def compact(ledger: Ledger) -> int:
    """Write all records into the compacted file; raises `InputError` at a damaged record and changes nothing then."""
    texts = list(_stored_texts(ledger))
    if not texts:
        return 0
    records = [ledger.decode(trial, data) for trial, data in texts]
    whole = tables.build([tables.row(record) for record in records])
    curves = pa.array([tables.points(record) for record in records], pa.list_(tables.POINT))
    whole = whole.append_column("curve", curves)
    whole = whole.append_column("record", pa.array([data.decode() for _, data in texts], pa.string()))
    sink = pa.BufferOutputStream()
    pq.write_table(whole.replace_schema_metadata({_KEY: _FORMAT}), sink, compression="zstd", write_page_checksum=True)
    ledger.files.replace(NAME, sink.getvalue().to_pybytes())
    return len(records)


def load(ledger: Ledger, columns: tuple[str, ...] | None = None) -> pa.Table | None:
    """The compacted file, or None when there is none that this release can read; ``columns`` None means flat ones."""
    try:
        data = ledger.files.read(NAME)
    except FileNotFoundError:
        return None
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        if (file.schema_arrow.metadata or {}).get(_KEY) != _FORMAT:
            return None
        flat = [name for name in file.schema_arrow.names if name not in _DERIVED]
        return file.read(list(columns) if columns is not None else flat)
    except (pa.ArrowException, OSError, KeyError, RuntimeError):
        return None


def _split(ledger: Ledger, columns: tuple[str, ...] | None) -> tuple[pa.Table | None, list[str]]:
    """Compacted rows whose trial still has its file, and the ids that are in files alone."""
    ids = ledger.ids()
    folded = load(ledger, columns)
    if folded is None:
        return None, ids
    folded = folded.filter(pc.is_in(folded["trial"], pa.array(ids, pa.string())))
    known = set(folded["trial"].to_pylist())
    return folded, [trial for trial in ids if trial not in known]


def _stored_texts(ledger: Ledger, ids: list[str] | None = None) -> Iterator[tuple[str, bytes]]:
    names = [f"trials/{trial}.json" for trial in (ledger.ids() if ids is None else ids)]
    for name, data in ledger.files.read_all(names):
        yield name.removeprefix("trials/").removesuffix(".json"), data


def texts(ledger: Ledger) -> Iterator[tuple[str, bytes]]:
    """The JSON text of every record, ordered by id."""
    folded, newer = _split(ledger, ("trial", "record"))
    if folded is None:
        yield from _stored_texts(ledger, newer)
        return
    known = dict(zip(folded["trial"].to_pylist(), folded["record"].to_pylist(), strict=True))
    fresh = dict(_stored_texts(ledger, newer))
    for trial in sorted([*known, *fresh]):
        yield trial, fresh[trial] if trial in fresh else known[trial].encode()


def table(ledger: Ledger) -> pa.Table:
    """All trials as one flat table, ordered by id."""
    folded, newer = _split(ledger, None)
    fresh = tables.build([tables.row(ledger.decode(trial, data)) for trial, data in _stored_texts(ledger, newer)])
    if folded is None:
        return fresh
    folded = folded.replace_schema_metadata(None)
    return folded if not newer else tables.join([folded, fresh]).sort_by("trial")


def curves(ledger: Ledger) -> pa.Table:
    """All curve points, ordered by trial id and step."""
    folded, newer = _split(ledger, ("trial", "curve"))
    records = [ledger.decode(trial, data) for trial, data in _stored_texts(ledger, newer)]
    fresh = tables.flatten_curves(
        pa.array([record.trial for record in records], pa.string()),
        pa.array([tables.points(record) for record in records], pa.list_(tables.POINT)),
    )
    if folded is None:
        return fresh
    old = tables.flatten_curves(folded["trial"].combine_chunks(), folded["curve"].combine_chunks())
    return pa.concat_tables([old, fresh]).sort_by([("trial", "ascending"), ("step", "ascending")])
