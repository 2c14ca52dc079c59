"""Encoding a recipe's units on a cluster with Ray Data; the same rows as from the processes of one machine.

Units go out in groups, a data set each, so that no more is encoded than the mixture will soon want. What comes back
through Ray's object store is written to the driver's disk, so only the text has to be within reach of all machines.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from tuneopt.data.recipe.units import EncodingJob, Unit, encode_unit, schema, write_rows
from tuneopt.spec import InputError

AHEAD = 4
"""Units for every core of the cluster that are encoded or wait for the mixture."""

GROUPS = 3
"""Data sets at once: while the last units of one are encoded, the next one keeps the cores busy."""


class RayPool:
    """A pool on the cluster that this process is connected to."""

    def __init__(self, job: EncodingJob, folder: Path) -> None:
        self._cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.ahead = AHEAD * self._cores
        self._folder, self._kind = folder, schema(job.vocab_size)
        self._job = ray.put(job)
        self._waiting: list[Unit] = []
        self._running = 0
        self._closed = threading.Event()
        self._done: Queue[tuple[Unit, Path] | Exception | None] = Queue()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)

    def submit(self, unit: Unit) -> None:
        """Note the unit; it goes out with others."""
        self._waiting.append(unit)

    def collect(self) -> list[tuple[Unit, Path]]:
        """Send out what waits and wait for a unit; raises `InputError` for text that cannot be read."""
        while True:
            self._send()
            outcome = self._done.get()
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is not None:
                return [outcome]
            self._running -= 1  # a group has ended

    def _send(self) -> None:
        while self._waiting and self._running < GROUPS:
            group, self._waiting = self._waiting[: self._cores], self._waiting[self._cores :]
            self._running += 1
            threading.Thread(target=self._follow, args=(group,), daemon=True).start()

    def _follow(self, group: Sequence[Unit]) -> None:
        """Write a group's rows as they arrive."""
        rows: dict[int, list[pa.RecordBatch]] = {}
        try:
            for table in _encoded(self._job, group):
                if self._closed.is_set():
                    return
                for place, part in _by_unit(table):
                    said = part.column("said")[-1].as_py()
                    if said:
                        raise InputError(said)
                    batches = part.select(self._kind.names).cast(self._kind).combine_chunks().to_batches()
                    held = rows.setdefault(place, [])
                    held += [batch for batch in batches if len(batch)]
                    if said is not None:  # the last row stands for the unit's end
                        path = write_rows(self._folder, group[place].stem, _without_end(held), self._kind)
                        del rows[place]
                        self._done.put((group[place], path))
            self._done.put(None)
        except Exception as error:
            self._done.put(error)

    def close(self) -> None:
        """Let running groups end with their next rows."""
        self._closed.set()


def _encoded(job: Any, group: Sequence[Unit]) -> Iterator[pa.Table]:
    places = [{"place": place} for place in range(len(group))]
    data = ray.data.from_items(places, override_num_blocks=len(places)).map_batches(
        encode_place, batch_size=1, batch_format="pyarrow", fn_kwargs={"job": job, "group": list(group)}, num_cpus=1
    )
    yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def encode_place(batch: pa.Table, job: Any, group: Sequence[Unit]) -> Iterator[pa.Table]:
    """The rows of one unit of a group, then a row that says that there are no more, or why there are none."""
    place = batch.column("place")[0].as_py()
    held: EncodingJob = ray.get(job)
    said = ""
    try:
        for rows in encode_unit(held, group[place]):
            yield _marked(rows, place, None)
    except InputError as error:
        said = str(error)
    kind = schema(held.vocab_size)
    end = {"fate": [255], "bytes": [0], "fingerprint": [0], "tokens": [[]], "runs": [[]]}
    yield _marked(pa.record_batch([pa.array(end[field.name], field.type) for field in kind], schema=kind), place, said)


def _marked(rows: pa.RecordBatch, place: int, said: str | None) -> pa.Table:
    table = pa.Table.from_batches([rows])
    table = table.append_column("place", pa.array(np.full(len(rows), place, np.int64)))
    return table.append_column("said", pa.array([said] * len(rows), pa.string()))


def _by_unit(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """Parts of a block, each of one unit and each ending at that unit's last row if it is there."""
    places = table.column("place").to_numpy()
    cuts = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    for first, stop in pairwise(cuts):
        if stop > first:
            yield int(places[first]), table.slice(first, stop - first)


def _without_end(batches: Sequence[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for number, batch in enumerate(batches, 1):
        whole = batch if number < len(batches) else batch.slice(0, len(batch) - 1)
        if len(whole):
            yield whole
