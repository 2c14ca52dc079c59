"""Writing shards round by round, so that a kill at any moment loses no finished shard.

A round ends when one split has a shard's worth of tokens, behind a document. Its files, shards and the hashes that the
guard is made of, are written aside, flushed to the disk and renamed; then the round's entry appears, which holds their
checksums and where every source stands. What has no entry, or is not what its entry says, never happened. So shard
boundaries follow from the recipe alone, and resuming begins behind the last entry.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tuneopt.data.manifest import Boundaries, Shard, file_sha256, shard_from_dict
from tuneopt.data.recipe.guard import Words
from tuneopt.data.recipe.mixture import Run, Standing
from tuneopt.data.recipe.rows import REPORT, SELECT
from tuneopt.data.shards import ShardWriter, map_shard
from tuneopt.data.splits import SPLITS

BOUNDARIES = pa.schema([pa.field("end", pa.uint64(), nullable=False), pa.field("source", pa.uint16(), nullable=False)])
"""Of each document that ends in a shard: the tokens up to its end, counted from the shard's begin, and its source.

Sources are numbered as the recipe lists them, those of the evaluation behind the others.
"""

KINDS = ("documents", "runs")
"""What hashes of evaluation text are of."""

WHOLE = 1 << 62
"""More tokens than a shard ever has: rounds decide where shards end."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished round: its shards by split, where every source of the phase stands behind it, and its hash files."""

    phase: str
    shards: Mapping[str, Shard]
    standing: tuple[Standing, ...]
    ended: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the file of each of `KINDS`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "phase": self.phase,
            "shards": {split: asdict(shard) for split, shard in self.shards.items()},
            "standing": [each.to_dict() for each in self.standing],
            "ended": self.ended,
            "hashes": dict(self.hashes),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Entry:
        """Inverse of `to_dict`; raises TypeError, KeyError or ValueError for anything else."""
        shards = {split: shard_from_dict(shard) for split, shard in plain["shards"].items()}
        standing = tuple(Standing(**each) for each in plain["standing"])
        hashes = {kind: plain["hashes"][kind] for kind in KINDS}
        return cls(plain["phase"], shards, standing, plain["ended"], hashes)


class Rounds:
    """The finished rounds in ``work``, with their shards in ``folder``, and the round that is being written."""

    def __init__(self, folder: Path, work: Path, dtype: np.dtype[np.unsignedinteger]) -> None:
        self._folder, self._work, self._dtype = folder, work, dtype
        self.entries = list(self._finished())
        self.digests = {split: hashlib.sha256() for split in SPLITS}
        for split, shard in self._shards():
            for view in map_shard(folder, shard):
                self.digests[split].update(view.astype(view.dtype.newbyteorder("<"), copy=False).data)
        self._begin()

    def _begin(self) -> None:
        self._open: dict[str, _Open] = {}
        self._hashes: list[Words] = []
        self._runs: list[Words] = []

    def _finished(self) -> Iterator[Entry]:
        """Entries in order, up to the first that is missing or whose files are not what it says."""
        for number in range(10**9):
            try:
                entry = Entry.from_dict(json.loads(self._entry(number).read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError):
                break
            parts = [part for shard in entry.shards.values() for part in (shard, shard.boundaries) if part]
            expected = {self._folder / part.file: part.sha256 for part in parts}
            expected |= {self._hash_file(kind, number): sha256 for kind, sha256 in entry.hashes.items()}
            if any(file_sha256(path) != sha256 for path, sha256 in expected.items()):
                break
            yield entry
        while self._entry(number).exists():  # what follows a damaged round is done again
            self._entry(number).unlink()
            number += 1

    def _entry(self, number: int) -> Path:
        return self._work / f"round-{number:06d}.json"

    def _hash_file(self, kind: str, number: int) -> Path:
        return self._work / f"{kind}-{number:06d}.npy"

    def _shards(self) -> Iterator[tuple[str, Shard]]:
        for entry in self.entries:
            yield from entry.shards.items()

    def shards(self, split: str) -> tuple[Shard, ...]:
        """The finished shards of a split."""
        return tuple(shard for name, shard in self._shards() if name == split)

    def append(self, run: Run, source: int) -> None:
        """Put a run's documents into their splits; evaluation documents of a repeated source are there already."""
        cuts = np.flatnonzero(np.diff(run.fates)) + 1
        firsts = [0, *cuts.tolist()]
        starts = np.concatenate([[0], run.ends])
        for first, stop in zip(firsts, [*firsts[1:], len(run.fates)], strict=True):
            fate = int(run.fates[first])
            if fate >= len(SPLITS) or (run.epoch and fate in (SELECT, REPORT)):
                continue
            begin, end = int(starts[first]), int(starts[stop])
            split = SPLITS[fate]
            if split not in self._open:
                self._open[split] = _Open(self._work, split, self._dtype, len(self.shards(split)), self.digests[split])
            self._open[split].append(run.tokens[begin:end], run.ends[first:stop] - begin, source)
        kept = (run.fates == SELECT) | (run.fates == REPORT)
        if len(run.runs) or kept.any():
            self._hashes.append(run.fingerprints[kept])
            self._runs.append(np.array(run.runs))

    def commit(self, phase: str, standing: Sequence[Standing], ended: str = "") -> None:
        """Finish the round: shards, hashes for the guard, then the entry."""
        number = len(self.entries)
        shards = {split: self._open[split].finish(self._folder) for split in SPLITS if split in self._open}
        hashes = {
            kind: self._save(self._hash_file(kind, number), arrays)
            for kind, arrays in zip(KINDS, (self._hashes, self._runs), strict=True)
        }
        _flush(self._folder)
        entry = Entry(phase, shards, tuple(standing), ended, hashes)
        aside = self._work / "round.part"
        aside.write_text(json.dumps(entry.to_dict()), encoding="utf-8")
        _flush(aside)
        aside.replace(self._entry(number))
        _flush(self._work)
        self.entries.append(Entry.from_dict(json.loads(json.dumps(entry.to_dict()))))  # the standing goes on to change
        self._begin()

    def _save(self, path: Path, hashes: Sequence[Words]) -> str:
        """Write hashes to a file of their own, without repetition, whole or not at all; its SHA-256."""
        aside = path.with_suffix(".part")
        with aside.open("wb") as stream:
            np.save(stream, np.unique(np.concatenate([np.zeros(0, np.uint64), *hashes])), allow_pickle=False)
        _flush(aside)
        aside.replace(path)
        return file_sha256(path)

    def drop(self) -> None:
        """Forget all rounds, and remove their shards: nothing of them can be used."""
        while self.entries:
            for shard in self.entries.pop().shards.values():
                for part in (shard, shard.boundaries):
                    if part is not None:
                        (self._folder / part.file).unlink()
            self._entry(len(self.entries)).unlink()

    def hashes(self, kind: str) -> list[Words]:
        """The hashes of evaluation ``documents`` or of their ``runs`` in all finished rounds."""
        return [np.load(self._hash_file(kind, number)) for number in range(len(self.entries))]

    @property
    def fullest(self) -> int:
        """Tokens of the longest shard of this round so far."""
        return max((each.tokens for each in self._open.values()), default=0)


class _Open:
    """A shard that is being written, and the ends of its documents."""

    def __init__(
        self, work: Path, split: str, dtype: np.dtype[np.unsignedinteger], number: int, digest: hashlib._Hash
    ) -> None:
        self._work, self.tokens = work, 0
        self._writer = ShardWriter(work, split, dtype, shard_tokens=WHOLE, first=number, digest=digest)
        self._ends: list[NDArray[np.int64]] = []
        self._sources: list[tuple[int, int]] = []

    def append(self, tokens: NDArray[np.unsignedinteger], ends: NDArray[np.int64], source: int) -> None:
        self._writer.append(tokens)
        self._ends.append(ends + self.tokens)
        self._sources.append((source, len(ends)))
        self.tokens += len(tokens)

    def finish(self, folder: Path) -> Shard:
        """Close the shard and move it, with its boundaries, to where it belongs."""
        (shard,) = self._writer.finish()[1]
        ends = np.concatenate(self._ends).astype(np.uint64)
        names, counts = zip(*self._sources, strict=True)
        sources = np.repeat(np.array(names, np.uint16), counts)
        name = shard.file.replace(".arrow", ".documents.arrow")
        with pa.OSFile(str(self._work / name), "wb") as sink, pa.ipc.new_file(sink, BOUNDARIES) as writer:
            writer.write_batch(pa.record_batch([pa.array(ends), pa.array(sources)], schema=BOUNDARIES))
        path = self._work / name
        boundaries = Boundaries(name, len(ends), path.stat().st_size, file_sha256(path))
        for file in (shard.file, name):
            _flush(self._work / file)
            (self._work / file).replace(folder / file)
        return replace(shard, boundaries=boundaries)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
