"""Work of many like parts, over the cores of this machine: what a report of hundreds of sweeps does for each of them.

Processes are forked, so that they have everything that was read and hand back results alone. That is safe where nothing
in the process runs beside it: Linux, one thread, and none of the libraries that start threads of their own. Everywhere
else the same work is done one part after another, with the same results.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

LEAST = 24
"""Parts for each process that take some milliseconds each: for fewer a fork costs more than it saves."""

LEAST_RECORDS = 1000
"""The same of records to decode, of which each takes a quarter of a millisecond."""

MOST = 8
"""Processes. Each touches much of what was read, and so has a copy of it."""

_THREADED = ("ray", "torch")
"""Libraries whose threads hold locks that a fork would copy as they are, for ever."""

PIECES = 64
"""Pieces that the work of each process comes in. Whoever is done with one takes the next, so that all end together; and
what others made of theirs is taken in meanwhile."""

_ROOM = 1 << 20
"""Bytes that a pipe holds: several pieces, so that nobody waits for whoever reads them between two of its own."""

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], parts: Iterable[T], least: int | None = None) -> list[R]:
    """``work`` of each part, in their order; ``work`` gives what can be pickled, and changes nothing.

    A process gets ``least`` parts or more, by default `LEAST`. Where anything goes wrong in one of the processes, this
    one does all again alone: so it raises what it would have raised without the others.
    """
    every = list(parts)
    count = min(len(every) // (least or LEAST), processors(), MOST) if _alone() else 1
    results = _shared(work, every, count) if count > 1 else None
    return [work(part) for part in every] if results is None else results


def _shared(work: Callable[[T], R], parts: Sequence[T], count: int) -> list[R] | None:
    """What ``count`` processes, this one among them, make of all parts; None where one of them failed."""
    size = max(1, len(parts) // (count * PIECES))
    starts = range(0, len(parts), size)
    queue = _queue(starts)

    def pieces() -> Iterator[tuple[int, list[R]]]:
        while word := os.read(queue, _WORD):
            start = int.from_bytes(word, "big")
            yield start, [work(part) for part in parts[start : start + size]]

    helpers: dict[Connection, int] = {}
    results: dict[int, list[R]] = {}

    def take(seconds: float | None) -> None:
        """Take in the pieces that are there, after up to ``seconds`` for the first; and see who has ended."""
        for pipe in wait(list(helpers), seconds):
            assert isinstance(pipe, Connection)
            try:
                start, piece = pipe.recv()
                results[start] = piece
            except (EOFError, OSError):
                _end(helpers.pop(pipe), pipe)

    try:
        for _ in range(1, count):
            process, pipe = _fork(pieces)
            helpers[pipe] = process
        for start, piece in pieces():
            results[start] = piece
            take(0)
        while helpers:
            take(None)
    except Exception:
        return None
    finally:  # after an interruption too: nobody is left behind, waiting for somebody who reads
        os.close(queue)
        for process in helpers.values():
            os.kill(process, signal.SIGKILL)
        for pipe, process in helpers.items():
            _end(process, pipe)
    return [result for start in starts for result in results[start]] if len(results) == len(starts) else None


_WORD = 4
"""Bytes of a number in a queue. A pipe gives them out whole, each to one process."""


def _queue(numbers: Iterable[int]) -> int:
    """A pipe that holds these numbers, and ends after them."""
    reading, writing = os.pipe()
    os.write(writing, b"".join(number.to_bytes(_WORD, "big") for number in numbers))
    os.close(writing)
    return reading


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage in cycles meanwhile: a report makes next to none, and each search looks at all records."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def processors() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _alone() -> bool:
    """Whether a fork of this process has all that it needs, and no lock that somebody else holds."""
    single = sys.platform == "linux" and threading.active_count() == 1
    return single and not any(library in sys.modules for library in _THREADED)


def _fork(work: Callable[[], Iterable[Any]]) -> tuple[int, Connection]:
    """A process that does its work bit by bit, and the pipe that its results come through."""
    import fcntl  # not on Windows, where nothing is forked

    reading, writing = Pipe(duplex=False)
    with suppress(OSError):  # more than this user may have
        fcntl.fcntl(writing.fileno(), fcntl.F_SETPIPE_SZ, _ROOM)
    process = os.fork()
    if process:
        writing.close()
        return process, reading
    code = 1
    try:
        reading.close()
        with uncollected():  # a search would touch, and so copy, all that was read
            for result in work():
                writing.send(result)
        code = 0
    finally:
        os._exit(code)  # whatever happened: nothing of the parent's, such as its files, is to be finished twice


def _end(process: int, pipe: Connection) -> None:
    """Close the pipe of a process that ended or was killed."""
    pipe.close()
    with suppress(ChildProcessError):  # somebody else has taken its exit code; what it sent tells enough
        os.waitpid(process, 0)
