"""The order of a mixture: which document comes next, and having its encoded unit at hand.

The next document is that of the source with the fewest tokens for its weight, t_i / w_i, the first one listed among
equals. So after any number of documents no source is further from its share than by one document. With weights 2 : 1
and documents of 10 tokens each, the sources a and b come as a b a a b a a b a ... The order is a function of the
documents' token counts, in whole numbers, and knows nothing of units, batches or processes: that is what makes the
corpus the same bytes however many processes encode.

Where every source stands (`SourcePosition`) is all there is to know for going on. It is written down with each finished
round, and a preparation that was killed draws the same documents again from there.

`Mixture` decides the order. `Staging` has a few units encoded ahead of it, on disk, and removes them after use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneopt.data.recipe.recipe import LEAVE, STOP, Recipe, SourceRecipe
from tuneopt.data.recipe.units import TRAIN, Rows, Unit, is_whole, read_rows, units
from tuneopt.data.recipe.workers import EncoderPool
from tuneopt.spec import InputError


@dataclass(slots=True)
class SourcePosition:
    """Where a source is: the next row, its epoch, and the documents, bytes and tokens of each fate so far."""

    unit: int = 0
    row: int = 0
    epoch: int = 0
    live: bool = True
    """False once it ran out where the others go on without it."""
    taken: int = 0
    """Tokens that count for the mixture, those of earlier epochs included."""
    epoch_taken: int = 0
    """The same of this epoch: a source that gave none of it would repeat for ever."""
    counts: dict[str, list[int]] = field(default_factory=dict)
    """By fate, as text for JSON: documents, bytes of text, tokens."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DrawnRows:
    """Rows of one source that come next, in order: their fates and text bytes, and the tokens they span.

    Shapes as in `Rows`; ``runs`` are the hashes of all of them.
    """

    source: int
    epoch: int
    fates: NDArray[np.uint8]
    bytes: NDArray[np.int64]
    fingerprints: NDArray[np.uint64]
    tokens: NDArray[np.unsignedinteger]
    ends: NDArray[np.int64]
    runs: NDArray[np.uint64]


class _Block:
    """Rows (n of them) with sums over them, so that a draw looks up instead of adding up; each has shape (n + 1,)."""

    def __init__(self, rows: Rows, counting: NDArray[np.bool_], done: int) -> None:
        self.rows, self.done = rows, done  # how many of the rows were drawn
        self.starts = np.concatenate([[0], rows.ends])
        self.run_starts = np.concatenate([[0], rows.run_ends])
        counted = np.cumsum(np.where(counting[rows.fates], np.diff(self.starts), 0))
        self.counted = np.concatenate([[0], counted])  # tokens that count, before each row


class Mixture:
    """Draws documents until ``limit`` tokens, or until sources run out. Tokens of the fates in ``counting`` count.

    ``positions`` are where each source begins; the attribute is where it stands now. ``when_exhausted`` is one of
    `recipe.EXHAUSTED`. Documents are drawn many at a time, as long as the rule gives the turn to one source.
    """

    def __init__(
        self,
        staging: Staging,
        weights: Sequence[Fraction],
        names: Sequence[str],
        counting: Sequence[int],
        limit: int | None,
        when_exhausted: str,
        positions: Sequence[SourcePosition],
    ) -> None:
        # Weights as whole numbers of one unit, so that turns are decided without rounding, on every machine alike.
        scale = math.lcm(*(weight.denominator for weight in weights))
        self._weights = [int(weight * scale) for weight in weights]
        self._staging, self._names = staging, names
        self._counting = np.isin(np.arange(256), counting)  # by fate
        self._limit, self._when_exhausted = limit, when_exhausted
        self.positions = [SourcePosition(**position.to_dict()) for position in positions]  # these go on to change
        self._streams = [self._blocks(source) for source in range(len(weights))]
        self._block: list[_Block | None] = [None] * len(weights)
        self.ended = ""

    @property
    def taken(self) -> int:
        """Tokens that count, so far."""
        return sum(position.taken for position in self.positions)

    def draw(self, room: int) -> DrawnRows | None:
        """The next rows, up to the first document with which ``room`` tokens that count are reached.

        None at the end of the mixture; ``ended`` then says why.
        """
        while True:
            if self._limit is not None and self.taken >= self._limit:
                self.ended = f"{self._limit} tokens were reached"
                return None
            live = [index for index, position in enumerate(self.positions) if position.live]
            if not live:
                self.ended = "every source was read to its end"
                return None
            # Fractions and not floats: two sources that are exactly even must be told apart by their order alone.
            source = min(live, key=lambda index: (Fraction(self.positions[index].taken, self._weights[index]), index))
            here, block = self.positions[source], self._block[source]
            if block is None or block.done == len(block.rows.fates):  # drawn to its end
                block = self._block[source] = next(self._streams[source], None)
            if block is not None:
                return self._take(source, block, live, room)
            if self._when_exhausted == STOP:
                self.ended = f"source {self._names[source]} ran out"
                return None
            if self._when_exhausted == LEAVE:
                here.live = False
            elif not here.epoch_taken:
                raise InputError(f"source {self._names[source]} has no document left to train on; give it more text")
            else:
                # The next epoch: the same units in the same order, and nothing of it counts but what trains.
                here.epoch, here.unit, here.row, here.epoch_taken = here.epoch + 1, 0, 0, 0
                self._staging.start_over(source)
                self._streams[source] = self._blocks(source)

    def _blocks(self, source: int) -> Iterator[_Block]:
        """The blocks of a source from where it stands to its end.

        Rows that were drawn before a kill are passed over: they stand in finished shards.
        """
        here = self.positions[source]  # moves on with every draw
        while (unit := self._staging.unit(source, here.unit)) is not None:
            before = 0  # rows of the unit in front of this block
            for rows in read_rows(self._staging.file(unit)):
                if before + len(rows.fates) > here.row:
                    yield _Block(rows, self._counting, here.row - before)
                before += len(rows.fates)
            here.unit, here.row = here.unit + 1, 0

    def _take(self, source: int, block: _Block, live: Sequence[int], room: int) -> DrawnRows:
        """As many rows of the block as may come before another source's turn, in one step."""
        rows, first, here = block.rows, block.done, self.positions[source]
        bounds = [room]
        if self._limit is not None:
            bounds.append(self._limit - self.taken)
        for other in live:
            if other != source:
                # Fewest further tokens of this source after which the other one comes first:
                # here' / w_source > there / w_other, or equal where the other one is listed first.
                product, weight = self.positions[other].taken * self._weights[source], self._weights[other]
                least = -(-product // weight) if other < source else product // weight + 1
                bounds.append(max(1, least - here.taken))
        # The document with which the nearest bound is reached is the last one, and at least one is taken.
        base = int(block.counted[first])
        reached = int(np.searchsorted(block.counted[first + 1 :], base + min(bounds), side="left"))
        stop = min(first + reached + 1, len(rows.fates))
        counted = int(block.counted[stop]) - base
        here.taken += counted
        here.epoch_taken += counted
        here.row += stop - first
        block.done = stop
        begin, end = int(block.starts[first]), int(block.starts[stop])
        drawn = DrawnRows(
            source, here.epoch, rows.fates[first:stop], rows.bytes[first:stop], rows.fingerprints[first:stop],
            rows.tokens[begin:end], rows.ends[first:stop] - begin,
            rows.runs[int(block.run_starts[first]) : int(block.run_starts[stop])],
        )  # fmt: skip
        _count(here, drawn)
        return drawn


def _count(here: SourcePosition, drawn: DrawnRows) -> None:
    """Add documents, bytes and tokens by fate; of a later epoch only what trains, the rest was counted before."""
    lengths = np.diff(drawn.ends, prepend=0)
    for fate in np.unique(drawn.fates).tolist():
        if here.epoch and fate != TRAIN:
            continue
        chosen = drawn.fates == fate
        counts = here.counts.setdefault(str(fate), [0, 0, 0])
        counts[0] += int(chosen.sum())
        counts[1] += int(drawn.bytes[chosen].sum())
        counts[2] += int(lengths[chosen].sum())


class Staging:
    """Units of some sources, submitted to a pool early enough and found again after a kill.

    Encoded units lie in ``folder`` under names with their checksums. A unit is removed once finished rounds hold all of
    it (`forget`): the disk holds those of the round that is being written, and the few that are ahead.
    """

    def __init__(self, sources: Sequence[SourceRecipe], recipe: Recipe, pool: EncoderPool, folder: Path) -> None:
        self._pool, self._folder = pool, folder
        self._queues = [_Queue(source, index, recipe) for index, source in enumerate(sources)]
        self._files: dict[Unit, Path] = {}
        self._pending: set[Unit] = set()

    def unit(self, source: int, number: int) -> Unit | None:
        """The unit of that number, None behind the last; numbers of a source never go back but to 0."""
        return self._queues[source].get(number)

    def file(self, unit: Unit) -> Path:
        """The file with the unit's rows; waits for it."""
        self._submit(unit)
        self._fill()
        while unit not in self._files:
            for done, path in self._pool.collect():
                self._pending.discard(done)
                self._files[done] = path
                self._queues[done.source].note(path.stat().st_size)
            self._fill()
        return self._files[unit]

    def _submit(self, unit: Unit) -> None:
        """Have a unit encoded, unless its rows are on the disk already."""
        if unit in self._files or unit in self._pending:
            return
        for path in self._folder.glob(f"{unit.stem}-*.rows"):  # of an attempt that was killed
            # By its checksum, which is in the name: rows are not flushed, and a power cut may have left half of them.
            if is_whole(path):
                self._files[unit] = path
                return
            path.unlink()
        self._pool.submit(unit)
        self._pending.add(unit)

    def _fill(self) -> None:
        """Submit what will probably be wanted next: of the source with least encoded text ahead for its weight."""
        while sum(queue.count for queue in self._queues) < self._pool.ahead:
            live = [(queue, unit) for queue in self._queues if (unit := queue.following()) is not None]
            if not live:
                return
            queue, unit = min(live, key=lambda pair: pair[0].ahead())
            queue.submitted += 1
            self._submit(unit)

    def forget(self, source: int, below: int | None = None) -> None:
        """Remove the rows of a source's units, or of those below a number: they stand in finished shards."""
        gone = [unit for unit in self._files if unit.source == source and (below is None or unit.number < below)]
        for unit in gone:
            self._files.pop(unit).unlink(missing_ok=True)

    def start_over(self, source: int) -> None:
        """Let a source begin with its first unit again."""
        self.forget(source)
        self._queues[source].rewind()


class _Queue:
    """The units of one source from the one in use on; those before it are not kept: a source may have millions."""

    def __init__(self, source: SourceRecipe, index: int, recipe: Recipe) -> None:
        self._source, self._index, self._recipe = source, index, recipe
        self._size, self._sizes = 1, 0  # bytes of the rows of a unit, on average, and of how many that is known
        self.rewind()

    def rewind(self) -> None:
        """Begin with the first unit."""
        self._units: Iterator[Unit] = units(self._source, self._index, self._recipe)
        self._kept: list[Unit] = []
        self._current = self.submitted = 0

    def get(self, number: int) -> Unit | None:
        """The unit that is in use from now on; None behind the last."""
        self._current = number
        self._kept = [unit for unit in self._kept if unit.number >= number]
        self.submitted = max(self.submitted, number + 1)
        return self._at(number)

    def following(self) -> Unit | None:
        """The unit that would be submitted next; None where all are."""
        return self._at(self.submitted)

    def _at(self, number: int) -> Unit | None:
        """A unit from the one in use on; looks no further into the source than it must."""
        while not self._kept or self._kept[-1].number < number:
            unit = next(self._units, None)
            if unit is None:
                return None
            if unit.number >= self._current:
                self._kept.append(unit)
        return next((unit for unit in self._kept if unit.number == number), None)

    def note(self, size: int) -> None:
        """Take the bytes of an encoded unit into the average: units differ by source, and less within one."""
        self._sizes += 1
        self._size += (size - self._size) // self._sizes

    @property
    def count(self) -> int:
        """Units that are submitted and not done with, the one in use included."""
        return self.submitted - self._current

    def ahead(self) -> Fraction:
        """Bytes of encoded text ahead of the mixture for each unit of weight: the least runs dry first."""
        return self.count * self._size / self._source.weight
