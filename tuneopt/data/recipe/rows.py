"""Encoding a unit: from documents to Arrow record batches with one row per document, and the files that hold them.

A row says what becomes of its document (``fate``), how long its text is, and its tokens, end of text included. Rows are
in the order of the documents. What is kept out of training has no tokens; evaluation documents carry the hashes that
the guard is made of.
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
from numpy.typing import NDArray

from tuneopt.data.encoder import Encoder
from tuneopt.data.recipe.guard import Guard, Runs, fingerprint
from tuneopt.data.recipe.recipe import SourceRecipe
from tuneopt.data.recipe.units import Unit, documents
from tuneopt.data.tokenizer import BATCH_CHARACTERS, parse_tokenizer, token_dtype

TRAIN, SELECT, REPORT, EQUAL, SHARED = range(5)
"""Fates of a document: a split, or kept out of training because it equals evaluation text or shares a run of words."""


@dataclass(frozen=True, slots=True)
class Job:
    """What it takes to encode any unit. Buckets are the first two bytes of a document's fingerprint, big-endian."""

    sources: tuple[SourceRecipe, ...]
    tokenizer: str
    end: int
    vocab_size: int
    select_end: int
    report_end: int
    guard: Guard | None = None
    ngram: int = 0
    """Words of a run to hash for the guard, in evaluation documents; 0 for none."""


def schema(vocab_size: int) -> pa.Schema:
    """The columns of encoded rows."""
    return pa.schema(
        [
            ("fate", pa.uint8()),
            ("bytes", pa.int64()),
            ("fingerprint", pa.uint64()),
            ("tokens", pa.large_list(pa.from_numpy_dtype(token_dtype(vocab_size)))),
            ("runs", pa.large_list(pa.uint64())),
        ]
    )


def encode_unit(job: Job, unit: Unit) -> Iterator[pa.RecordBatch]:
    """The rows of a unit, about a million characters of text at a time; raises `InputError` for unreadable text."""
    for texts in _batches(documents(job.sources[unit.source], unit)):
        yield _encoded(job, texts)


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


def _encoded(job: Job, texts: list[str]) -> pa.RecordBatch:
    marks = [fingerprint(text) for text in texts]
    fingerprints = np.frombuffer(b"".join(marks), ">u8").astype(np.uint64)
    buckets = fingerprints >> np.uint64(48)
    fates = np.where(buckets < job.select_end, SELECT, np.where(buckets < job.report_end, REPORT, TRAIN)).astype(
        np.uint8
    )
    runs = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    if job.guard is not None:
        if len(job.guard.runs):
            hashes, owners = _runs(job.guard.ngram).hashes(texts)
            fates[job.guard.has_runs(hashes, owners, len(texts))] = SHARED
        fates[job.guard.has_documents(fingerprints)] = EQUAL
    elif job.ngram:
        runs = _runs(job.ngram).hashes(texts)
    tokens, ends = _tokens(
        job, [text if fate < EQUAL else None for text, fate in zip(texts, fates.tolist(), strict=True)]
    )
    kind = schema(job.vocab_size)
    return pa.record_batch(
        [
            pa.array(fates),
            pa.array(np.fromiter((len(text.encode()) for text in texts), np.int64, len(texts))),
            pa.array(fingerprints),
            _lists(tokens.astype(token_dtype(job.vocab_size)), ends),
            _lists(runs[0], np.cumsum(np.bincount(runs[1], minlength=len(texts)))),
        ],
        schema=kind,
    )


def _tokens(job: Job, texts: list[str | None]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Ids of all texts with the end of text after each, and where each ends; None has no ids at all."""
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
    before = np.cumsum([0, *(len(some) for some, _ in encoded)])
    ids = np.concatenate([some for some, _ in encoded])
    ends = np.concatenate([each + start for (_, each), start in zip(encoded, before, strict=False)])
    after = ends[np.cumsum(counts)]  # where the ids of each text end
    kept = counts > 0
    return np.insert(ids, after[kept], job.end).astype(np.uint32, copy=False), after + np.cumsum(kept)


def _lists(values: NDArray[np.unsignedinteger], ends: NDArray[np.int64]) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int64()), pa.array(values))


@lru_cache(maxsize=1)
def _encoder(tokenizer: str) -> Encoder:
    return Encoder(parse_tokenizer(tokenizer, "the tokenizer"))


@lru_cache(maxsize=1)
def _runs(ngram: int) -> Runs:
    return Runs(ngram)


def write_rows(folder: Path, stem: str, batches: Iterable[pa.RecordBatch], kind: pa.Schema) -> Path:
    """Write rows to a file whose name ends in its own checksum, whole or not at all."""
    aside = folder / f"{stem}.{os.getpid()}.part"
    try:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, kind) as writer:
            for batch in batches:
                writer.write_batch(batch)
        with aside.open("rb") as stream:
            checksum = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
        return aside.rename(folder / f"{stem}-{checksum}.rows")
    finally:
        aside.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a file of rows is what its name says."""
    with path.open("rb") as stream:
        return path.stem.rpartition("-")[2] == hashlib.file_digest(stream, "sha256").hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a unit as arrays that view the mapped file; ``ends`` are where documents end in ``tokens``."""

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
