"""Units of work: which there are, and encoding one into a file of rows.

A unit is a range of a file, some row groups, a whole compressed file, or a shard of a data set on the hub. Which units
a source has, and in which order, depends on its files and on the recipe's seed alone. A plain file is cut every
`UNIT_BYTES`; compressed text cannot be entered in the middle, so each such file is one unit.

A unit is encoded, by any process, into Arrow record batches with one row for each document, in the order of the
documents (`schema`). A row says what becomes of its document (``fate``), the bytes of its text, and its tokens, end of
text included. What is kept out of training has no tokens; evaluation documents carry the hashes that the guard is made
of. The file of a unit has its checksum in its name and appears whole, so it is found again after a kill.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tuneopt.data.batches import SampleOrder
from tuneopt.data.encoder import Encoder
from tuneopt.data.readers import READERS, check_columns, ending, jsonl_range, read_parquet, readable, txt_range
from tuneopt.data.recipe import hub
from tuneopt.data.recipe.guard import Guard, Runs, fingerprint
from tuneopt.data.recipe.recipe import Recipe, SourceRecipe
from tuneopt.data.tokenizer import BATCH_CHARACTERS, parse_tokenizer, token_dtype
from tuneopt.spec import canonical_json

UNIT_BYTES = 1 << 23
"""Bytes of a plain file in one unit; of row groups, before compression."""

TRAIN, SELECT, REPORT, EQUAL, SHARED = range(5)
"""Fates of a document: a split, or kept out of training because it equals evaluation text or shares a run of words."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of a source. ``start`` and ``stop`` are bytes, row groups, or the number of a shard on the hub."""

    source: int
    """The number of its source among those of the phase."""
    number: int
    """Its place in the order of the source, from 0."""
    path: Path | None
    """Its file; None for a data set on the hub."""
    start: int = 0
    stop: int = 0

    @property
    def stem(self) -> str:
        """The name that the unit's rows have on disk, but for checksum and ending."""
        return f"{self.source:03d}-{self.number:08d}"


def units(source: SourceRecipe, index: int, recipe: Recipe) -> Iterator[Unit]:
    """The units of a source in the order of the recipe."""
    number = 0
    for place in _order(len(source.files) or hub.shards(source), recipe):
        path = source.files[place] if source.files else None
        for start, stop in [(place, 0)] if path is None else _ranges(path):
            yield Unit(index, number, path, start, stop)
            number += 1


def _order(count: int, recipe: Recipe) -> Iterator[int]:
    """All of 0 to ``count`` - 1, shuffled by the recipe's seed unless it says otherwise."""
    if not recipe.shuffle or count == 0:
        yield from range(count)
        return
    # A permutation that is computed place by place: a data set on the hub may have any number of shards.
    order = SampleOrder(count, recipe.seed)
    for place in range(count):
        yield int(order.indices(place, 1)[0])


def _ranges(path: Path) -> Iterator[tuple[int, int]]:
    """Where the units of a file begin and stop: in bytes, or in row groups of Parquet."""
    with readable(path):
        kind, size = ending(path), path.stat().st_size
        if kind in (".txt", ".jsonl"):
            # Cut anywhere: a reader of a range begins at the first document that begins in it, and reads the last one
            # to its end, so every document is in one unit and no unit needs to know of the one before.
            for start in range(0, size, UNIT_BYTES):
                yield start, min(size, start + UNIT_BYTES)
        elif kind == ".parquet":
            metadata = pq.read_metadata(path)
            start = size = 0
            for group in range(metadata.num_row_groups):
                size += metadata.row_group(group).total_byte_size
                if size >= UNIT_BYTES:
                    yield start, group + 1
                    start, size = group + 1, 0
            if start < metadata.num_row_groups:
                yield start, metadata.num_row_groups
        else:  # compressed: it can be read from its beginning alone, so the file is one unit
            yield 0, size


def documents(source: SourceRecipe, unit: Unit) -> Iterator[str]:
    """The documents of a unit; raises `InputError` for what cannot be read."""
    path = unit.path
    if path is None:
        yield from hub.read_shard(source, unit.start)
        return
    kind = ending(path)
    with readable(path):
        if kind == ".parquet":
            yield from read_parquet(path, source.text, range(unit.start, unit.stop))
        elif kind == ".jsonl":
            yield from jsonl_range(path, unit.start, unit.stop, source.text)
        elif kind == ".txt":
            yield from txt_range(path, unit.start, unit.stop)
        else:
            yield from READERS[kind](path, source.text)


def check(source: SourceRecipe, recipe: Recipe) -> None:
    """Raise `InputError` for a source that cannot be read: by its columns and its first document, before any work."""
    if source.text is None:
        check_columns(source.files)
    first = next(units(source, 0, recipe), None)
    if first is not None:  # one document is read and forgotten
        next(documents(source, first), None)


def stamp(source: SourceRecipe) -> str:
    """SHA-256 that changes when a source may have changed: its files' names, sizes and times, or its revision.

    Folders are left out, so a corpus that moves with its text is still the same; reading every byte would take as long
    as preparing.
    """
    listing = []
    for path in source.files:
        with readable(path):
            status = path.stat()
        listing.append([path.name, str(status.st_size), str(status.st_mtime_ns)])
    if source.hub is not None and not source.files:
        listing = hub.files(source.hub)
    return hashlib.sha256(canonical_json([source.origin, source.text or "", listing]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class EncodingJob:
    """What it takes to encode any unit. Buckets are the first two bytes of a document's fingerprint, big-endian.

    A document is for select below ``select_end``, for report from there to below ``report_end``, else for training.
    """

    sources: tuple[SourceRecipe, ...]
    tokenizer: str
    """The text of the tokenizer's file, so that a process elsewhere needs no file."""
    end: int
    """The id that follows every document."""
    vocab_size: int
    select_end: int
    report_end: int
    guard: Guard | None = None
    ngram: int = 0
    """Words of a run to hash for the guard, in evaluation documents; 0 for none."""


def schema(vocab_size: int) -> pa.Schema:
    """The columns of encoded rows. Lists have 64-bit offsets, as sums of numpy have."""
    return pa.schema(
        [
            ("fate", pa.uint8()),  # TRAIN to SHARED
            ("bytes", pa.int64()),  # of the text in UTF-8
            ("fingerprint", pa.uint64()),  # of its letters; the first 16 bits are its bucket
            ("tokens", pa.large_list(pa.from_numpy_dtype(token_dtype(vocab_size)))),  # none where it is kept out
            ("runs", pa.large_list(pa.uint64())),  # hashes of its runs of words; evaluation text alone has them
        ]
    )


def encode_unit(job: EncodingJob, unit: Unit) -> Iterator[pa.RecordBatch]:
    """The rows of a unit, about a million characters of text at a time; raises `InputError` for unreadable text."""
    for texts in _batches(documents(job.sources[unit.source], unit)):
        yield _encoded(job, texts)  # where batches are cut changes no row: the mixture knows rows alone


def encode_to_file(job: EncodingJob, unit: Unit, folder: Path) -> Path:
    """Encode a unit into a file of rows."""
    return write_rows(folder, unit.stem, encode_unit(job, unit), schema(job.vocab_size))


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts, about a million characters at a time."""
    waiting: list[str] = []
    characters = 0
    for text in texts:
        waiting.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield waiting
            waiting, characters = [], 0
    if waiting:
        yield waiting


def _encoded(job: EncodingJob, texts: list[str]) -> pa.RecordBatch:
    """Rows of some documents: n documents, t tokens, r runs."""
    fingerprints = np.frombuffer(b"".join(map(fingerprint, texts)), ">u8").astype(np.uint64)  # (n,)
    buckets = fingerprints >> np.uint64(48)  # the first two of eight bytes
    fates = np.where(buckets < job.select_end, SELECT, np.where(buckets < job.report_end, REPORT, TRAIN))
    fates = fates.astype(np.uint8)
    hashes, owners = np.zeros(0, np.uint64), np.zeros(0, np.int64)  # (r,) each
    if job.guard is not None:
        if len(job.guard.runs):
            fates[job.guard.has_runs(*_runs(job.guard.ngram).hashes(texts), len(texts))] = SHARED
        fates[job.guard.has_documents(fingerprints)] = EQUAL  # after SHARED: an equal document is counted as equal
    elif job.ngram:  # evaluation text: what the guard of the training phase will look for
        hashes, owners = _runs(job.ngram).hashes(texts)
    # What is kept out has no tokens: encoding is what costs, and its bytes alone are counted.
    kept = [text if fate < EQUAL else None for text, fate in zip(texts, fates.tolist(), strict=True)]
    tokens, ends = _tokens(job, kept)  # (t,), (n,)
    return pa.record_batch(
        [
            pa.array(fates),
            pa.array(np.fromiter((len(text.encode()) for text in texts), np.int64, len(texts))),
            pa.array(fingerprints),
            _lists(tokens.astype(token_dtype(job.vocab_size)), ends),
            _lists(hashes, np.cumsum(np.bincount(owners, minlength=len(texts)))),
        ],
        schema=schema(job.vocab_size),
    )


def _tokens(job: EncodingJob, texts: list[str | None]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Ids of all texts with the end of text after each, and where each ends; None has no ids at all.

    Shapes (tokens,) and (n,). Long texts are encoded piece by piece, and many short ones in one call.
    """
    encoder = _encoder(job.tokenizer)
    parts: list[str] = []
    counts = np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        if text is not None:
            pieces = list(encoder.pieces(text))
            parts += pieces
            counts[row] = len(pieces)
    encoded = [(np.zeros(0, np.uint32), np.zeros(1, np.int64))]
    encoded += [encoder.encode(some) for some in _batches(parts)]  # several where a document is long
    before = np.cumsum([0, *(len(some) for some, _ in encoded)])  # ids in the calls before each
    ids = np.concatenate([some for some, _ in encoded])
    ends = np.concatenate([some + start for (_, some), start in zip(encoded, before, strict=False)])
    # ``ends`` begins with a 0, so a text ends where the last of all pieces up to its own does.
    after = ends[np.cumsum(counts)]  # (n,), where the ids of each text end
    kept = counts > 0
    return np.insert(ids, after[kept], job.end).astype(np.uint32, copy=False), after + np.cumsum(kept)


def _lists(values: NDArray[np.unsignedinteger], ends: NDArray[np.int64]) -> pa.LargeListArray:
    """One list for each document, without copies: ``values`` of shape (v,), ``ends`` of shape (documents,)."""
    return pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int64()), pa.array(values))


@lru_cache(maxsize=1)
def _encoder(tokenizer: str) -> Encoder:
    """Kept for the process: its table of parts is what makes it fast."""
    return Encoder(parse_tokenizer(tokenizer, "the tokenizer"))


@lru_cache(maxsize=1)
def _runs(ngram: int) -> Runs:
    """Kept for the process: its tables of powers take 4 MiB and some time to make."""
    return Runs(ngram)


def write_rows(folder: Path, stem: str, batches: Iterable[pa.RecordBatch], kind: pa.Schema) -> Path:
    """Write rows to a file whose name ends in its own checksum, whole or not at all."""
    aside = folder / f"{stem}.{os.getpid()}.part"
    try:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, kind) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return aside.rename(folder / f"{stem}-{_checksum(aside)}.rows")
    finally:
        aside.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a file of rows is what its name says. Rows are not flushed: a power cut may leave a name without them."""
    return path.is_file() and path.stem.rpartition("-")[2] == _checksum(path)


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a unit (n documents) as arrays that view the mapped file.

    ``fates``, ``bytes``, ``fingerprints``, ``ends`` and ``run_ends`` have shape (n,); ``ends`` are where documents end
    in ``tokens``, ``run_ends`` where their hashes end in ``runs``.
    """

    fates: NDArray[np.uint8]
    bytes: NDArray[np.int64]
    fingerprints: NDArray[np.uint64]
    tokens: NDArray[np.unsignedinteger]
    ends: NDArray[np.int64]
    runs: NDArray[np.uint64]
    run_ends: NDArray[np.int64]


def read_rows(path: Path) -> Iterator[Rows]:
    """The rows of a file, batch by batch, without copies."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            tokens, runs = batch.column("tokens"), batch.column("runs")
            yield Rows(
                batch.column("fate").to_numpy(),
                batch.column("bytes").to_numpy(),
                batch.column("fingerprint").to_numpy(),
                tokens.values.to_numpy(),
                tokens.offsets.to_numpy()[1:],
                runs.values.to_numpy(),
                runs.offsets.to_numpy()[1:],
            )
