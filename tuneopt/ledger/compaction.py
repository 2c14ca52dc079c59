"""One Parquet file beside the small ones, for fast reading: ``compacted/trials.parquet``.

It has the flat columns of `tuneopt.ledger.table`, the curve of each trial (``curve``, a list of points) and the text of
its record (``record``). zstd; the key ``tuneopt_compaction`` in its metadata names the format, and ``tuneopt_seal``
holds the SHA-256 of the whole file, computed with zeros in its own place.

The compacted file is derived data and may be deleted at any time. It is written by ``tuneopt ledger compact`` alone,
and replaced in one step, so a reader sees the old or the new one. A row in it counts only while the trial's own file is
there; trials that it lacks are read from their own files. So a compaction while workers run loses nothing, and a
damaged or foreign compacted file is passed over: a warning says so once, and `problems` reports it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tuneopt.ledger import table as tables
from tuneopt.ledger.damage import decode, document_names, key, seal_file, set_aside, warn_of_odd, warn_once
from tuneopt.ledger.durable import NoPlainFileError
from tuneopt.ledger.files import Files
from tuneopt.ledger.record import SCHEMA, TrialRecord
from tuneopt.ledger.seal import has_seal

NAME = "compacted/trials.parquet"
_FORMAT = f"2/{SCHEMA}".encode()
_KEY = b"tuneopt_compaction"
_DERIVED = ("curve", "record")

_SEAL_KEY, _NO_SEAL = "tuneopt_seal", "sha256:" + "0" * 64
_SEAL = re.compile(rb"sha256:[0-9a-f]{64}")

_UNREADABLE = (pa.ArrowException, OSError, KeyError, ValueError, RuntimeError)
"""What pyarrow raises for a file that is no Parquet, or whose names are no UTF-8."""

AGAIN = "make it again with `tuneopt ledger compact`"


def compact(files: Files, uri: str) -> int:
    """Write all records into the compacted file, and return how many; records of earlier releases are sealed first.

    Raises `InputError` at a damaged record, and changes nothing then: a compaction never hides damage.
    """
    names = document_names(files, "trials")
    texts = list(_stored_texts(files, names))
    if not texts:
        return 0
    records = [decode(uri, trial, data) for trial, data in texts]
    # Files of earlier releases get their seals on this occasion; then the texts are read again, as they are now.
    if [seal_file(files, f"trials/{trial}.json") for trial, data in texts if not has_seal(data)]:
        texts = list(_stored_texts(files, names))
    whole = tables.build([tables.row(record) for record in records])
    curves = pa.array([tables.points(record) for record in records], pa.list_(tables.POINT))
    whole = whole.append_column("curve", curves)
    whole = whole.append_column("record", pa.array([data.decode() for _, data in texts], pa.string()))
    sink = pa.BufferOutputStream()
    whole = whole.replace_schema_metadata({_KEY: _FORMAT})
    with pq.ParquetWriter(sink, whole.schema, compression="zstd") as writer:
        writer.write_table(whole)
        writer.add_key_value_metadata({_SEAL_KEY: _NO_SEAL})
    files.replace(NAME, _sealed(sink.getvalue().to_pybytes()))
    return len(records)


def _sealed(data: bytes) -> bytes:
    """A Parquet file with its own SHA-256 where `_NO_SEAL` stood; of equal length, so that no offset changes."""
    return data.replace(_NO_SEAL.encode(), b"sha256:" + hashlib.sha256(data).hexdigest().encode())


def resealed(data: bytes) -> bytes:
    """The file with a seal that fits its content, where it has one. The footer, and the seal in it, come last."""
    places = [match.span() for match in _SEAL.finditer(data)]
    for start, end in places[-1:]:
        return _sealed(data[:start] + _NO_SEAL.encode() + data[end:])
    return data


def _fits_seal(data: bytes) -> bool:
    """Whether a compacted file is what was written, to the bit."""
    return _SEAL.search(data) is not None and resealed(data) == data


def load(files: Files, columns: tuple[str, ...] | None = None) -> pa.Table | None:
    """The compacted file, or None when there is none that this release can read; ``columns`` None means flat ones.

    The file is read whole, and only the columns asked for are decoded: on an object store one request is cheaper than
    many small ones. One that was changed since it was written counts as none.
    """
    file = _open(files)
    if file is None:
        return None
    flat = [name for name in file.schema_arrow.names if name not in _DERIVED]
    try:
        return file.read(list(columns) if columns is not None else flat)
    except _UNREADABLE:  # sealed by somebody who wrote no table
        return None


def _open(files: Files) -> pq.ParquetFile | None:
    """The compacted file where it is whole, of this release, and holds each trial once."""
    try:
        data = files.read(NAME)
    except (FileNotFoundError, NoPlainFileError):
        return None
    try:
        file = pq.ParquetFile(pa.BufferReader(data)) if _fits_seal(data) else None
        if file is None or (file.schema_arrow.metadata or {}).get(_KEY) != _FORMAT or not _typed(file.schema_arrow):
            return None
        # Twice in the file would be twice in every count; no release writes that, but a file may come from anywhere.
        trials = file.read(["trial"])["trial"]
        return file if len(trials) == len(trials.unique()) else None
    except _UNREADABLE:
        return None


def _typed(schema: pa.Schema) -> bool:
    """Whether every column is there once and of its type, so that readers need not ask."""
    fixed = [*tables.FIXED, pa.field("curve", pa.list_(tables.POINT)), pa.field("record", pa.string())]
    if len(set(schema.names)) != len(schema.names) or not {field.name for field in fixed} <= set(schema.names):
        return False
    tuned = [schema.field(name).type for name in schema.names if name.startswith("hp_")]
    return all(schema.field(field.name).type == field.type for field in fixed) and all(
        kind in (pa.bool_(), pa.float64(), pa.string()) for kind in tuned
    )


def _warn(files: Files, uri: str) -> None:
    """Say that the compacted file is passed over, so that nobody wonders why reading is slow."""
    if files.exists(NAME) or files.oddity(NAME):
        warn_once(uri, NAME, f"{NAME} in {uri} is damaged or of another release, and was passed over; {AGAIN}")


def _split(files: Files, uri: str, columns: tuple[str, ...] | None) -> tuple[pa.Table | None, list[str]]:
    """Compacted rows whose trial still has its file, and the names of the files that are not compacted.

    The listing comes first: a record that is put meanwhile is in neither, as if the reader had come a moment earlier.
    """
    names = document_names(files, "trials")
    warn_of_odd(files, uri, "trials")
    folded = load(files, columns)
    if folded is None:
        _warn(files, uri)
        return None, names
    # A trial whose own file is gone is gone: the compacted file is derived, and deleting the record must be enough.
    folded = folded.filter(pc.is_in(folded["trial"], pa.array(map(key, names), pa.string())))
    known = set(folded["trial"].to_pylist())
    return folded, [name for name in names if key(name) not in known]


def _stored_texts(files: Files, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """The id and JSON text of records, from their own files."""
    return ((key(name), data) for name, data in files.read_all(names))


def texts(files: Files, uri: str, later: bool = False) -> Iterator[tuple[str, bytes | None]]:
    """The id and JSON text of every record, ordered by id; with ``later`` None for a text that its own file holds."""
    folded, newer = _split(files, uri, ("trial", "record"))
    fresh = ((key(name), None) for name in newer) if later else _stored_texts(files, newer)
    if folded is None:
        yield from fresh
        return
    known = dict(zip(folded["trial"].to_pylist(), folded["record"].to_pylist(), strict=True))
    held = dict(fresh)
    for trial in sorted([*known, *held]):
        yield trial, held[trial] if trial in held else known[trial].encode()


def table(files: Files, uri: str) -> pa.Table:
    """All trials as one flat table, ordered by id; raises `DamagedRecordError` at a damaged record."""
    folded, newer = _split(files, uri, None)
    fresh = tables.build([tables.row(decode(uri, trial, data)) for trial, data in _stored_texts(files, newer)])
    if folded is None:
        return fresh
    folded = folded.replace_schema_metadata(None)
    return folded if not newer else tables.join([folded, fresh]).sort_by("trial")


def curves(files: Files, uri: str) -> pa.Table:
    """All curve points, ordered by trial id and step."""
    folded, newer = _split(files, uri, ("trial", "curve"))
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
    if not files.exists(NAME) and not files.oddity(NAME):
        return
    folded, texts = load(files), load(files, ("trial", "record"))
    if folded is None or texts is None:
        yield f"{NAME}: damaged or of another release; {AGAIN}"
        return
    stored = dict(zip(texts["trial"].to_pylist(), texts["record"].to_pylist(), strict=True))
    known = [records[trial][1] for trial in folded["trial"].to_pylist() if trial in records]
    expected = {row["trial"]: row for row in tables.build(list(map(tables.row, known))).to_pylist()}
    present = set(map(key, document_names(files, "trials")))
    for row in folded.to_pylist():
        trial = row["trial"]
        if trial not in present:
            yield f"{NAME}: holds trial {trial}, whose record is gone; {AGAIN}"
        elif trial in records and (stored[trial].encode() != records[trial][0] or not _same(row, expected[trial])):
            yield f"{NAME}: disagrees with trials/{trial}.json; {AGAIN}"


def _same(row: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Equal where both have a column; a column's kind may differ by what other trials hold.

    A hyperparameter that is a number in all of these records may share its column with words in the file.
    """

    def form(value: Any) -> Any:
        return tables.word(value) if isinstance(value, bool | int | float) else value

    return all(form(row.get(name)) == form(expected.get(name)) for name in {*row, *expected})


def mend(files: Files, uri: str) -> str:
    """Set an unreadable compacted file aside: what was in it is in the files of the trials. A sentence, or nothing."""
    if not (files.exists(NAME) or files.oddity(NAME)) or _open(files) is not None:
        return ""
    return set_aside(files, uri, NAME, lambda name, data: f"not a table of this release; {AGAIN}")
