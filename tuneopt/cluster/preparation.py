"""Encoding a recipe's units on a cluster with Ray Data; the same rows as from the processes of one machine.

An `EncoderPool` of `tuneopt.data.recipe.workers`: units of text in, files of encoded rows out, in any order. Units go
out in groups, a Ray data set each, because a data set cannot be added to while it runs, and one of all units would
encode more than the mixture will ever want. What comes back through Ray's object store is written to the driver's disk,
so only the text has to be within reach of all machines.

A block that comes back holds rows of several units, and nothing in Ray Data says where a unit ends. So each row carries
``place``, its unit's index in the group, and ``end``: null on a row of text, and on the row that ends a unit a text,
empty where all went well and the error's sentence where it did not (an exception would arrive wrapped in Ray's own).
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
"""Units for every core of the cluster that are encoded or wait for the mixture: enough that no core waits for the one
unit that the mixture wants next, few enough that the driver's disk holds them."""

GROUPS = 3
"""Data sets at once: while the last units of one are encoded, the next one keeps the cores busy."""


class RayPool:
    """A pool on the cluster that this process is connected to."""

    def __init__(self, job: EncodingJob, folder: Path) -> None:
        self._cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.ahead = AHEAD * self._cores  # how many units the mixture may submit before it collects
        self._folder, self._kind = folder, schema(job.vocab_size)
        self._job = ray.put(job)  # once for all groups: it holds the tokenizer
        self._waiting: list[Unit] = []
        self._running = 0  # groups
        self._closed = threading.Event()
        # A finished unit, the error that ends everything, or None for a group that has ended.
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
        """Write a group's rows as they arrive; a thread's life."""
        rows: dict[int, list[pa.RecordBatch]] = {}  # of units that have not ended, by place
        try:
            for table in _encoded(self._job, group):
                if self._closed.is_set():
                    return
                for place, part in _by_unit(table):
                    end = part.column("end")[-1].as_py()
                    if end:
                        raise InputError(end)
                    # The types of the file again, whatever Ray Data made of them on the way.
                    batches = part.select(self._kind.names).cast(self._kind).combine_chunks().to_batches()
                    unit_rows = rows.setdefault(place, [])
                    unit_rows += [batch for batch in batches if len(batch)]
                    if end is not None:  # the last row stands for the unit's end
                        path = write_rows(self._folder, group[place].stem, _without_end(unit_rows), self._kind)
                        del rows[place]
                        self._done.put((group[place], path))
            self._done.put(None)
        except Exception as error:  # on a thread nobody would see it: `collect` raises it
            self._done.put(error)

    def close(self) -> None:
        """Let running groups end with their next rows."""
        self._closed.set()


def _encoded(job: Any, group: Sequence[Unit]) -> Iterator[pa.Table]:
    # A block for each unit and a task for each block; no prefetch, so that rows are written as soon as they are here.
    places = [{"place": place} for place in range(len(group))]
    data = ray.data.from_items(places, override_num_blocks=len(places)).map_batches(
        encode_place, batch_size=1, batch_format="pyarrow", fn_kwargs={"job": job, "group": list(group)}, num_cpus=1
    )
    yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def encode_place(batch: pa.Table, job: Any, group: Sequence[Unit]) -> Iterator[pa.Table]:
    """On a worker: the rows of one unit, then a row that says that there are no more, or why there are none."""
    place = batch.column("place")[0].as_py()
    encoding: EncodingJob = ray.get(job)
    reason = ""  # why there are no more rows; empty where the unit is whole
    try:
        for rows in encode_unit(encoding, group[place]):
            yield _marked(rows, place, None)
    except InputError as error:
        reason = str(error)
    kind = schema(encoding.vocab_size)
    # The values mean nothing: the driver drops the row.
    last = {"fate": [255], "bytes": [0], "fingerprint": [0], "tokens": [[]], "runs": [[]]}
    yield _marked(
        pa.record_batch([pa.array(last[field.name], field.type) for field in kind], schema=kind), place, reason
    )


def _marked(rows: pa.RecordBatch, place: int, end: str | None) -> pa.Table:
    table = pa.Table.from_batches([rows])
    table = table.append_column("place", pa.array(np.full(len(rows), place, np.int64)))
    return table.append_column("end", pa.array([end] * len(rows), pa.string()))


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
