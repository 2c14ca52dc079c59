"""One Parquet file beside the small ones, for fast reading: ``compacted/trials.parquet``.

It has the flat columns of `tuneopt.ledger.table`, the curve of each trial (``curve``, a list of points) and the text of
its record (``record``). zstd, with page checksums; the key ``tuneopt_compaction`` in its metadata names the format.

The compacted file is derived data and may be deleted at any time. It is written by ``tuneopt ledger compact`` alone,
and replaced in one step, so a reader sees the old or the new one. A row in it counts only while the trial's own file is
there; trials that it lacks are read from their own files. So a compaction while workers run loses nothing, and a
damaged or foreign compacted file is passed over (`problems` reports it).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tuneopt.ledger import table as tables
from tuneopt.ledger.damage import decode, json_names, key, set_aside
from tuneopt.ledger.files import Files
from tuneopt.ledger.record import SCHEMA, TrialRecord

NAME = "compacted/trials.parquet"
_FORMAT = f"1/{SCHEMA}".encode()
_KEY = b"tuneopt_compaction"
_DERIVED = ("curve", "record")


def compact(files: Files, uri: str) -> int:
    """Write all records into the compacted file, and return how many.

    Raises `InputError` at a damaged record, and changes nothing then: a compaction never hides damage.
    """
    texts = list(_stored_texts(files, json_names(files, "trials")))
    if not texts:
        return 0
    records = [decode(uri, trial, data) for trial, data in texts]
    whole = tables.build([tables.row(record) for record in records])
    curves = pa.array([tables.points(record) for record in records], pa.list_(tables.POINT))
    whole = whole.append_column("curve", curves)
    whole = whole.append_column("record", pa.array([data.decode() for _, data in texts], pa.string()))
    sink = pa.BufferOutputStream()
    pq.write_table(whole.replace_schema_metadata({_KEY: _FORMAT}), sink, compression="zstd", write_page_checksum=True)
    files.replace(NAME, sink.getvalue().to_pybytes())
    return len(records)


def load(files: Files, columns: tuple[str, ...] | None = None) -> pa.Table | None:
    """The compacted file, or None when there is none that this release can read; ``columns`` None means flat ones.

    The file is read whole, and only the columns asked for are decoded: on an object store one request is cheaper than
    many small ones. Whatever pyarrow raises for a damaged file means that there is none.
    """
    try:
        data = files.read(NAME)
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


def _split(files: Files, columns: tuple[str, ...] | None) -> tuple[pa.Table | None, list[str]]:
    """Compacted rows whose trial still has its file, and the names of the files that are not compacted.

    The listing comes first: a record that is put meanwhile is in neither, as if the reader had come a moment earlier.
    """
    names = json_names(files, "trials")
    folded = load(files, columns)
    if folded is None:
        return None, names
    folded = folded.filter(pc.is_in(folded["trial"], pa.array(map(key, names), pa.string())))
    known = set(folded["trial"].to_pylist())
    return folded, [name for name in names if key(name) not in known]


def _stored_texts(files: Files, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The id and JSON text of records, from their own files."""
    return ((key(name), data) for name, data in files.read_all(names))


def texts(files: Files) -> Iterator[tuple[str, bytes]]:
    """The id and JSON text of every record, ordered by id."""
    folded, newer = _split(files, ("trial", "record"))
    if folded is None:
        yield from _stored_texts(files, newer)
        return
    known = dict(zip(folded["trial"].to_pylist(), folded["record"].to_pylist(), strict=True))
    fresh = dict(_stored_texts(files, newer))
    for trial in sorted([*known, *fresh]):
        yield trial, fresh[trial] if trial in fresh else known[trial].encode()


def table(files: Files, uri: str) -> pa.Table:
    """All trials as one flat table, ordered by id; raises `DamagedRecordError` at a damaged record."""
    folded, newer = _split(files, None)
    fresh = tables.build([tables.row(decode(uri, trial, data)) for trial, data in _stored_texts(files, newer)])
    if folded is None:
        return fresh
    folded = folded.replace_schema_metadata(None)
    return folded if not newer else tables.join([folded, fresh]).sort_by("trial")


def curves(files: Files, uri: str) -> pa.Table:
    """All curve points, ordered by trial id and step."""
    folded, newer = _split(files, ("trial", "curve"))
    records = [decode(uri, trial, data) for trial, data in _stored_texts(files, newer)]
    fresh = tables.flatten_curves(
        pa.array([record.trial for record in records], pa.string()),
        pa.array([tables.points(record) for record in records], pa.list_(tables.POINT)),
    )
    if folded is None:
        return fresh
    old = tables.flatten_curves(folded["trial"].combine_chunks(), folded["curve"].combine_chunks())
    return pa.concat_tables([old, fresh]).sort_by([("trial", "ascending"), ("step", "ascending")])


def problems(files: Files, records: dict[str, tuple[bytes, TrialRecord]]) -> Iterator[str]:
    """The compacted rows against the good records (text and record by trial); what is not compacted is no problem."""
    if not files.exists(NAME):
        return
    folded, texts = load(files), load(files, ("trial", "record"))
    if folded is None or texts is None:
        yield f"{NAME}: damaged or of another release; compact again"
        return
    stored = dict(zip(texts["trial"].to_pylist(), texts["record"].to_pylist(), strict=True))
    known = [records[trial][1] for trial in folded["trial"].to_pylist() if trial in records]
    expected = {row["trial"]: row for row in tables.build(list(map(tables.row, known))).to_pylist()}
    present = set(map(key, json_names(files, "trials")))
    for row in folded.to_pylist():
        trial = row["trial"]
        if trial not in present:
            yield f"{NAME}: holds trial {trial}, whose record is gone; compact again"
        elif trial in records and (stored[trial].encode() != records[trial][0] or not _same(row, expected[trial])):
            yield f"{NAME}: disagrees with trials/{trial}.json; compact again"


def _same(row: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Equal where both have a column; a column's kind may differ by what other trials hold.

    A hyperparameter that is a number in all of these records may share its column with words in the file.
    """

    def form(value: Any) -> Any:
        return tables.word(value) if isinstance(value, bool | int | float) else value

    return all(form(row.get(name)) == form(expected.get(name)) for name in {*row, *expected})


def mend(files: Files, uri: str) -> str:
    """Set an unreadable compacted file aside: what was in it is in the files of the trials. A sentence, or nothing."""
    if not files.exists(NAME) or load(files, ()) is not None:
        return ""
    return set_aside(files, uri, NAME, lambda name, data: "not a table of this release; compact again")
