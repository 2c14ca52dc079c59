"""The folder of a corpus that is being prepared: who may write in it, and the rounds that are finished.

Everything unfinished lies in ``.preparing`` of the corpus's folder (``work`` here), for one process and one recipe:

    lock                        held by the process that prepares; the kernel drops it with its holder
    identity                    the SHA-256 of recipe and sources that the folder is for
    revisions.json, tokenizer.json, training_bytes    what the first attempt found and made, for the next one
    evaluation/, train/         encoded units (`units`), removed after use
    round-000000.json           a finished round: its shards and checksums, and where every source stands behind it
    documents-, runs-000000.npy hashes of the evaluation text in that round (uint64), which the guard is made of
    *.part, *.arrow             the round that is being written

A round ends when one split has a shard's worth of tokens, behind a document. Its files, shards and hashes, are written
aside, flushed to the disk and renamed; then the round's entry appears, which holds their checksums. The order matters:
what has no entry, or is not what its entry says, never happened. So a kill or a power cut at any moment loses at most
the round that was being written, shard boundaries follow from the recipe alone, and resuming begins behind the last
entry. The shards lie in the corpus's folder from their round on; the manifest, last of all, makes them a corpus.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tuneopt.data.cache import write_whole
from tuneopt.data.manifest import MANIFEST_FILE, Boundaries, Shard, file_sha256
from tuneopt.data.recipe.guard import Words
from tuneopt.data.recipe.mixture import DrawnRows, SourcePosition
from tuneopt.data.recipe.units import REPORT, SELECT
from tuneopt.data.shards import BOUNDARIES, ShardWriter, map_shard
from tuneopt.data.splits import SPLITS
from tuneopt.errors import why
from tuneopt.spec import InputError

KINDS = ("documents", "runs")
"""What hashes of evaluation text are of."""

WHOLE = 1 << 62
"""More tokens than a shard ever has: rounds decide where shards end."""


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a corpus; False where that cannot be seen."""
    try:
        return (folder / MANIFEST_FILE).is_file()
    except OSError:
        return False


@contextmanager
def sole_preparation(folder: Path, work: Path) -> Iterator[None]:
    """Hold the lock of a folder that this makes; raises `InputError` for one that is in use or cannot be written.

    Nothing is waited for: a second command is a mistake more often than a wish, and would have nothing to do.
    """
    lock = FileLock(work / "lock")
    try:
        if folder.exists() and not work.exists() and any(folder.iterdir()) and not is_finished(folder):
            raise InputError(f"{folder} is not empty, and holds no corpus; give another folder with --out")
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process prepares a corpus in {folder}; wait for it, or give another --out") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {why(error)}; give another folder with --out") from None
    try:
        yield
    finally:
        lock.release()


def claim(work: Path, key: str, folder: Path) -> None:
    """Note whose folder this is; what another recipe left there without a finished shard is removed.

    With a finished shard it raises `InputError`: hours of work are not thrown away for a changed line.
    """
    path = work / "identity"
    if path.is_file() and path.read_text(encoding="utf-8") == key:
        return
    if any(work.glob("round-*.json")):
        raise InputError(
            f"{folder} holds an unfinished corpus of another recipe, or of files that changed since; "
            "give another folder with --out, or delete this one"
        )
    for left in work.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.name != "lock":  # it is held
            left.unlink()
    write_whole(path, key)


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round: its shards by split, where every source of the phase stands behind it, and its hash files."""

    phase: str
    shards: Mapping[str, Shard]
    standing: tuple[SourcePosition, ...]
    ended: str = ""
    """Why the phase ended with this round; empty where it goes on."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the file of each of `KINDS`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Round:
        """Inverse of `to_dict`; raises TypeError, KeyError or ValueError for anything else."""
        shards = {split: Shard.from_dict(shard) for split, shard in plain["shards"].items()}
        standing = tuple(SourcePosition(**position) for position in plain["standing"])
        hashes = {kind: plain["hashes"][kind] for kind in KINDS}
        return cls(plain["phase"], shards, standing, plain["ended"], hashes)


class Rounds:
    """The finished rounds in ``work``, with their shards in ``folder``, and the round that is being written.

    Construction reads the entries, believes those whose files have the checksums that they say, and removes the rest.
    """

    def __init__(self, folder: Path, work: Path, dtype: np.dtype[np.unsignedinteger]) -> None:
        self._folder, self._work, self._dtype = folder, work, dtype
        self.entries = list(self._finished())
        # The checksum of a split covers its tokens in a row: a new process must have seen those of finished shards.
        self.digests = {split: hashlib.sha256() for split in SPLITS}
        for entry in self.entries:
            for split, shard in entry.shards.items():
                for view in map_shard(folder, shard):
                    self.digests[split].update(view.astype(view.dtype.newbyteorder("<"), copy=False).data)
        self._begin()

    def _begin(self) -> None:
        """Open a round that is empty."""
        self._open: dict[str, _OpenShard] = {}
        self._hashes: dict[str, list[Words]] = {kind: [] for kind in KINDS}

    def _finished(self) -> Iterator[Round]:
        """Entries in order, up to the first that is missing or whose files are not what it says."""
        for number in range(10**9):
            if not self._entry(number).is_file():  # a FIFO would be waited for
                break
            try:
                entry = Round.from_dict(json.loads(self._entry(number).read_text(encoding="utf-8")))
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                break  # any other error of the system says nothing of the round, which is not to be done again for it
            expected = {self._folder / part.file: part.sha256 for part in _parts(entry)}
            expected |= {self._hash_file(kind, number): sha256 for kind, sha256 in entry.hashes.items()}
            if any(file_sha256(path) != sha256 for path, sha256 in expected.items()):
                break
            yield entry
        while os.path.lexists(self._entry(number)):  # what follows a damaged round is done again
            self._entry(number).unlink()
            number += 1

    def _entry(self, number: int) -> Path:
        return self._work / f"round-{number:06d}.json"

    def _hash_file(self, kind: str, number: int) -> Path:
        return self._work / f"{kind}-{number:06d}.npy"

    def shards(self, split: str) -> tuple[Shard, ...]:
        """The finished shards of a split."""
        return tuple(entry.shards[split] for entry in self.entries if split in entry.shards)

    @property
    def fullest(self) -> int:
        """Tokens of the longest shard of this round so far."""
        return max((shard.tokens for shard in self._open.values()), default=0)

    def append(self, drawn: DrawnRows, source: int) -> None:
        """Put documents into their splits; evaluation documents of a repeated source are there already."""
        # Stretches of one fate at a time: neighbours mostly share theirs, and are copied in one piece.
        cuts = np.flatnonzero(np.diff(drawn.fates)) + 1
        firsts = [0, *cuts.tolist()]
        starts = np.concatenate([[0], drawn.ends])
        for first, stop in zip(firsts, [*firsts[1:], len(drawn.fates)], strict=True):
            fate = int(drawn.fates[first])
            if fate >= len(SPLITS) or (drawn.epoch and fate in (SELECT, REPORT)):
                continue
            begin, end = int(starts[first]), int(starts[stop])
            split = SPLITS[fate]
            if split not in self._open:
                number, digest = len(self.shards(split)), self.digests[split]
                self._open[split] = _OpenShard(self._work, split, self._dtype, number, digest)
            self._open[split].append(drawn.tokens[begin:end], drawn.ends[first:stop] - begin, source)
        kept = (drawn.fates == SELECT) | (drawn.fates == REPORT)
        if len(drawn.runs) or kept.any():
            self._hashes["documents"].append(drawn.fingerprints[kept])
            self._hashes["runs"].append(np.array(drawn.runs))  # a copy: what was drawn views a file that will go

    def commit(self, phase: str, standing: Sequence[SourcePosition], ended: str = "") -> None:
        """Finish the round: shards, hashes for the guard, then the entry."""
        number = len(self.entries)
        shards = {split: self._open[split].finish(self._folder) for split in SPLITS if split in self._open}
        hashes = {}
        for kind, arrays in self._hashes.items():
            path = self._hash_file(kind, number)
            aside = path.with_suffix(".part")
            with aside.open("wb") as stream:
                np.save(stream, np.unique(np.concatenate([np.zeros(0, np.uint64), *arrays])), allow_pickle=False)
            _flush(aside)
            aside.replace(path)
            hashes[kind] = file_sha256(path)
        # The entry comes last, when all that it speaks of is on the disk: without it the round was never there.
        _flush(self._folder)
        text = json.dumps(Round(phase, shards, tuple(standing), ended, hashes).to_dict())
        aside = self._work / "round.part"
        aside.write_text(text, encoding="utf-8")
        _flush(aside)
        aside.replace(self._entry(number))
        _flush(self._work)
        self.entries.append(Round.from_dict(json.loads(text)))  # a copy: ``standing`` goes on to change
        self._begin()

    def drop(self) -> None:
        """Forget all rounds, and remove their shards: nothing of them can be used."""
        while self.entries:
            for part in _parts(self.entries.pop()):
                (self._folder / part.file).unlink()
            self._entry(len(self.entries)).unlink()

    def hashes(self, kind: str) -> list[Words]:
        """The hashes of evaluation ``documents`` or of their ``runs`` in all finished rounds."""
        return [np.load(self._hash_file(kind, number)) for number in range(len(self.entries))]


def _parts(entry: Round) -> list[Shard | Boundaries]:
    """The files of a round in the corpus's folder."""
    return [part for shard in entry.shards.values() for part in shard.parts]


class _OpenShard:
    """A shard that is being written, and the ends of its documents."""

    def __init__(
        self, work: Path, split: str, dtype: np.dtype[np.unsignedinteger], number: int, digest: hashlib._Hash
    ) -> None:
        self._work, self.tokens = work, 0
        self._writer = ShardWriter(work, split, dtype, shard_tokens=WHOLE, first=number, digest=digest)
        self._ends: list[NDArray[np.int64]] = []
        self._sources: list[tuple[int, int]] = []

    def append(self, tokens: NDArray[np.unsignedinteger], ends: NDArray[np.int64], source: int) -> None:
        """Add documents of one source: their tokens, shape (t,), and where each ends in these, shape (documents,)."""
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
        path = self._work / shard.file.replace(".arrow", ".documents.arrow")
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, BOUNDARIES) as writer:
            writer.write_batch(pa.record_batch([pa.array(ends), pa.array(sources)], schema=BOUNDARIES))
        boundaries = Boundaries(path.name, len(ends), path.stat().st_size, file_sha256(path))
        for file in (shard.file, path.name):
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
