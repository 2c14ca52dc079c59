"""The order of a mixture: which document comes next.

The next document is that of the source with the fewest tokens for its weight, t_i / w_i, the first one listed among
equals. So after any number of documents no source is further from its share than by one document. The order is a
function of the documents' token counts, in whole numbers, and knows nothing of units, batches or processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneopt.data.recipe.recipe import LEAVE, STOP
from tuneopt.data.recipe.rows import TRAIN, Rows, read_rows
from tuneopt.data.recipe.staging import Staging
from tuneopt.spec import InputError


@dataclass(slots=True)
class Standing:
    """Where a source stands: the next row, its epoch, and the documents, bytes and tokens of each fate so far."""

    unit: int = 0
    row: int = 0
    epoch: int = 0
    live: bool = True
    taken: int = 0
    """Tokens that count for the mixture."""
    epoch_taken: int = 0
    counts: dict[str, list[int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of one source that come next, in order: their fates and text bytes, and the tokens they span."""

    source: int
    epoch: int
    fates: NDArray[np.uint8]
    bytes: NDArray[np.int64]
    fingerprints: NDArray[np.uint64]
    tokens: NDArray[np.unsignedinteger]
    ends: NDArray[np.int64]
    runs: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows with sums over them: where each begins in tokens and runs, and how many wanted tokens come before it."""

    rows: Rows
    starts: NDArray[np.int64]
    run_starts: NDArray[np.int64]
    counted: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, wanted: NDArray[np.bool_]) -> _Block:
        starts = np.concatenate([[0], rows.ends])
        counted = np.cumsum(np.where(wanted[rows.fates], np.diff(starts), 0))
        return cls(rows, starts, np.concatenate([[0], rows.run_ends]), np.concatenate([[0], counted]))


class Mixture:
    """Draws documents until ``limit`` tokens with one of the ``wanted`` fates, or until sources run out."""

    def __init__(
        self,
        staging: Staging,
        weights: Sequence[Fraction],
        names: Sequence[str],
        wanted: Sequence[int],
        limit: int | None,
        when_exhausted: str,
        standing: Sequence[Standing],
    ) -> None:
        scale = math.lcm(*(weight.denominator for weight in weights))
        self._weights = [int(weight * scale) for weight in weights]
        self._staging, self._names = staging, names
        self._wanted = np.isin(np.arange(256), wanted)
        self._limit, self._when_exhausted = limit, when_exhausted
        self.standing = [
            replace(each, counts={key: list(row) for key, row in each.counts.items()}) for each in standing
        ]
        self._blocks: list[Iterator[Rows] | None] = [None] * len(weights)
        self._block: list[_Block | None] = [None] * len(weights)
        self._from = [0] * len(weights)  # rows of the block that are done
        self.ended = ""

    @property
    def taken(self) -> int:
        """Tokens of the wanted fates so far."""
        return sum(each.taken for each in self.standing)

    def draw(self, room: int) -> Run | None:
        """The next rows, up to the first document with which ``room`` tokens of wanted fates are reached.

        None at the end of the mixture; ``ended`` then says why.
        """
        while True:
            if self._limit is not None and self.taken >= self._limit:
                self.ended = f"{self._limit} tokens were reached"
                return None
            live = [index for index, each in enumerate(self.standing) if each.live]
            if not live:
                self.ended = "every source was read to its end"
                return None
            source = min(live, key=lambda index: (Fraction(self.standing[index].taken, self._weights[index]), index))
            if self._fetch(source):
                return self._take(source, live, room)
            if self._when_exhausted == STOP:
                self.ended = f"source {self._names[source]} ran out"
                return None
            if self._when_exhausted == LEAVE:
                self.standing[source].live = False
            else:
                self._repeat(source)

    def _repeat(self, source: int) -> None:
        here = self.standing[source]
        if not here.epoch_taken:
            raise InputError(f"source {self._names[source]} has no document left to train on; give it more text")
        here.epoch, here.unit, here.row, here.epoch_taken = here.epoch + 1, 0, 0, 0
        self._staging.start_over(source)

    def _fetch(self, source: int) -> bool:
        """Make sure that rows of the source are at hand; False at its end."""
        here = self.standing[source]
        while True:
            block = self._block[source]
            if block is not None and self._from[source] < len(block.rows.fates):
                return True
            blocks = self._blocks[source]
            if blocks is not None:
                following = next(blocks, None)
                if following is not None:
                    self._block[source], self._from[source] = _Block.of(following, self._wanted), 0
                    continue
                self._blocks[source] = self._block[source] = None
                here.unit, here.row = here.unit + 1, 0
            unit = self._staging.unit(source, here.unit)
            if unit is None:
                return False
            blocks = self._blocks[source] = read_rows(self._staging.file(unit))
            skipped = 0
            while skipped < here.row:  # after a kill: what stands in finished shards
                rows = next(blocks)
                self._block[source] = _Block.of(rows, self._wanted)
                self._from[source] = min(len(rows.fates), here.row - skipped)
                skipped += self._from[source]

    def _take(self, source: int, live: Sequence[int], room: int) -> Run:
        block, first = self._block[source], self._from[source]
        assert block is not None
        rows, here = block.rows, self.standing[source]
        bounds = [room]
        if self._limit is not None:
            bounds.append(self._limit - self.taken)
        bounds += [self._least(source, other) for other in live if other != source]
        base = int(block.counted[first])
        reached = int(np.searchsorted(block.counted[first + 1 :], base + min(bounds), side="left"))
        stop = min(first + reached + 1, len(rows.fates))
        counted = int(block.counted[stop]) - base
        here.taken += counted
        here.epoch_taken += counted
        here.row += stop - first
        self._from[source] = stop
        begin, end = int(block.starts[first]), int(block.starts[stop])
        run = Run(
            source, here.epoch, rows.fates[first:stop], rows.bytes[first:stop], rows.fingerprints[first:stop],
            rows.tokens[begin:end], rows.ends[first:stop] - begin,
            rows.runs[int(block.run_starts[first]) : int(block.run_starts[stop])],
        )  # fmt: skip
        self._count(here, run)
        return run

    def _least(self, source: int, other: int) -> int:
        """Fewest further tokens of ``source`` after which ``other`` would come first."""
        here, there = self.standing[source].taken, self.standing[other].taken
        product, weight = there * self._weights[source], self._weights[other]
        # here' / w_source > there / w_other, or equal where the other one is listed first
        least = -(-product // weight) if other < source else product // weight + 1
        return max(1, least - here)

    def _count(self, here: Standing, run: Run) -> None:
        lengths = np.diff(run.ends, prepend=0)
        for fate in np.unique(run.fates).tolist():
            if here.epoch and fate != TRAIN:
                continue
            chosen = run.fates == fate
            counts = here.counts.setdefault(str(fate), [0, 0, 0])
            counts[0] += int(chosen.sum())
            counts[1] += int(run.bytes[chosen].sum())
            counts[2] += int(lengths[chosen].sum())
