"""Encoded units in the order in which they are wanted: a few ahead of the mixture, on disk, removed after use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from tuneopt.data.recipe.recipe import Recipe, SourceRecipe
from tuneopt.data.recipe.rows import is_whole
from tuneopt.data.recipe.units import Unit, units
from tuneopt.data.recipe.workers import Pool, stem


class Staging:
    """Units of some sources, submitted to a pool early enough and found again after a kill."""

    def __init__(self, sources: Sequence[SourceRecipe], recipe: Recipe, pool: Pool, folder: Path) -> None:
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
        if unit in self._files or unit in self._pending:
            return
        for path in self._folder.glob(f"{stem(unit)}-*.rows"):
            if is_whole(path):
                self._files[unit] = path
                return
            path.unlink()
        self._pool.submit(unit)
        self._pending.add(unit)

    def _fill(self) -> None:
        """Submit what will probably be wanted next: of the source with least encoded text ahead for its weight."""
        while sum(queue.count for queue in self._queues) < self._pool.ahead:
            live = [queue for queue in self._queues if queue.next_unit() is not None]
            if not live:
                return
            queue = min(live, key=_Queue.ahead)
            unit = queue.next_unit()
            assert unit is not None
            queue.advance()
            self._submit(unit)

    def forget(self, source: int, below: int) -> None:
        """Remove the rows of a source's units below a number: they stand in finished shards."""
        for unit in [each for each in self._files if each.source == source and each.number < below]:
            self._files.pop(unit).unlink(missing_ok=True)

    def start_over(self, source: int) -> None:
        """Let a source begin with its first unit again."""
        for unit in [each for each in self._files if each.source == source]:
            self._files.pop(unit).unlink(missing_ok=True)
        self._queues[source].rewind()


class _Queue:
    """The units of one source from the one in use on; those before it are not kept."""

    def __init__(self, source: SourceRecipe, index: int, recipe: Recipe) -> None:
        self._source, self._index, self._recipe = source, index, recipe
        self._weight: Fraction = source.weight
        self._size, self._sizes = 1, 0  # bytes of the rows of a unit, on average, and of how many that is known
        self.rewind()

    def rewind(self) -> None:
        self._units: Iterator[Unit] = units(self._source, self._index, self._recipe)
        self._held: list[Unit] = []
        self._current = self._submitted = 0

    def get(self, number: int) -> Unit | None:
        self._current = number
        self._held = [unit for unit in self._held if unit.number >= number]
        self._submitted = max(self._submitted, number + 1)
        return self._at(number)

    def _at(self, number: int) -> Unit | None:
        while not self._held or self._held[-1].number < number:
            unit = next(self._units, None)
            if unit is None:
                return None
            if unit.number >= self._current:
                self._held.append(unit)
        return next((unit for unit in self._held if unit.number == number), None)

    def next_unit(self) -> Unit | None:
        return self._at(self._submitted)

    def advance(self) -> None:
        self._submitted += 1

    def note(self, size: int) -> None:
        self._sizes += 1
        self._size += (size - self._size) // self._sizes

    @property
    def count(self) -> int:
        return self._submitted - self._current

    def ahead(self) -> Fraction:
        return self.count * self._size / self._weight
