"""Units of work: a range of a file, some row groups, a whole compressed file, or a shard of a data set on the hub.

Which units a source has, and in which order, depends on its files and on the recipe's seed alone. A plain file is cut
every `UNIT_BYTES`; compressed text cannot be entered in the middle, so each such file is one unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tuneopt.data.order import SampleOrder
from tuneopt.data.readers import READERS, ending, jsonl_range, read_parquet, txt_range
from tuneopt.data.recipe.recipe import Recipe, SourceRecipe
from tuneopt.spec import InputError, canonical_json

UNIT_BYTES = 1 << 23
"""Bytes of a plain file in one unit; of row groups, before compression."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of a source. ``start`` and ``stop`` are bytes, row groups, or the number of a shard on the hub."""

    source: int
    number: int
    path: Path | None
    start: int = 0
    stop: int = 0


def units(source: SourceRecipe, index: int, recipe: Recipe) -> Iterator[Unit]:
    """The units of a source in the order of the recipe."""
    number = 0
    if not source.files:
        from tuneopt.data.recipe.stream import shards

        for shard in _order(shards(source), recipe):
            yield Unit(index, number, None, shard)
            number += 1
        return
    for place in _order(len(source.files), recipe):
        path = source.files[place]
        for start, stop in _ranges(path):
            yield Unit(index, number, path, start, stop)
            number += 1


def _order(count: int, recipe: Recipe) -> Iterator[int]:
    """All of 0 to ``count`` - 1, shuffled by the recipe's seed unless it says otherwise."""
    if not recipe.shuffle or count == 0:
        yield from range(count)
        return
    order = SampleOrder(count, recipe.seed)
    for place in range(count):
        yield int(order.indices(place, 1)[0])


def _ranges(path: Path) -> Iterator[tuple[int, int]]:
    kind = ending(path)
    try:
        if kind == ".parquet":
            yield from _row_groups(path)
        elif kind in (".txt", ".jsonl"):
            size = path.stat().st_size
            for start in range(0, size, UNIT_BYTES):
                yield start, min(size, start + UNIT_BYTES)
        else:
            yield 0, path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; mend or remove the file") from None


def _row_groups(path: Path) -> Iterator[tuple[int, int]]:
    try:
        metadata = pq.read_metadata(path)
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable Parquet file ({reason}); write it again or leave it out") from None
    start = size = 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= UNIT_BYTES:
            yield start, group + 1
            start, size = group + 1, 0
    if start < metadata.num_row_groups:
        yield start, metadata.num_row_groups


def documents(source: SourceRecipe, unit: Unit) -> Iterator[str]:
    """The documents of a unit; raises `InputError` for what cannot be read."""
    path = unit.path
    if path is None:
        from tuneopt.data.recipe.stream import read_shard

        yield from read_shard(source, unit.start)
        return
    kind = ending(path)
    try:
        if kind == ".parquet":
            yield from read_parquet(path, source.text, range(unit.start, unit.stop))
        elif kind == ".jsonl":
            yield from jsonl_range(path, unit.start, unit.stop, source.text)
        elif kind == ".txt":
            yield from txt_range(path, unit.start, unit.stop)
        else:
            yield from READERS[kind](path, source.text)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; mend or remove the file") from None


def check(source: SourceRecipe, recipe: Recipe) -> None:
    """Read the first document, so that a source that cannot be read is told before any work; raises `InputError`."""
    first = next(units(source, 0, recipe), None)
    if first is not None:
        next(documents(source, first), None)


def stamp(source: SourceRecipe) -> str:
    """SHA-256 that changes when a source may have changed: its files' names, sizes and times, or its revision."""
    listing = []
    for path in source.files:
        try:
            status = path.stat()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}; mend or remove the file") from None
        listing.append([path.name, str(status.st_size), str(status.st_mtime_ns)])
    if source.hub is not None and not source.files:
        from tuneopt.data.recipe.hub import files

        listing = files(source)
    return hashlib.sha256(canonical_json([source.origin, source.text or "", listing]).encode()).hexdigest()
