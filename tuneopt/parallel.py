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
from multiprocessing.connection import Connection
from typing import Any, TypeVar

LEAST = 24
"""Parts for each process that take some milliseconds each: for fewer a fork costs more than it saves."""

LEAST_RECORDS = 1000
"""The same of records to decode, of which each takes a quarter of a millisecond."""

MOST = 8
"""Processes. Each touches much of what was read, and so has a copy of it."""

_THREADED = ("ray", "torch")
"""Libraries whose threads hold locks that a fork would copy as they are, for ever."""

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(work: Callable[[T], R], parts: Iterable[T], least: int | None = None) -> list[R]:
    """``work`` of each part, in their order; ``work`` gives what can be pickled, and changes nothing.

    A process gets ``least`` parts or more, by default `LEAST`. Where anything goes wrong in one of the processes, this
    one does all again alone: so it raises what it would have raised without the others.
    """
    every = list(parts)
    count = min(len(every) // (least or LEAST), processors(), MOST) if _alone() else 1
    shares = _shared(work, every, count) if count > 1 else None
    if shares is None:
        return [work(part) for part in every]
    return [shares[place % count][place // count] for place in range(len(every))]


def _shared(work: Callable[[T], R], parts: Sequence[T], count: int) -> list[list[R]] | None:
    """What ``count`` processes make of every ``count``-th part each, this one of the first; None where one failed."""
    helpers: list[tuple[int, Connection]] = []
    try:
        helpers += (_fork(work, parts[number::count]) for number in range(1, count))
        shares = [[work(part) for part in parts[::count]]]
        while helpers:
            share: list[R] | None = _result(*helpers.pop(0))
            if share is None:
                return None
            shares.append(share)
        return shares
    except Exception:
        return None
    finally:  # after an interruption too: nobody is left behind, waiting for somebody who reads
        for process, _ in helpers:
            os.kill(process, signal.SIGKILL)
        for process, pipe in helpers:
            _result(process, pipe)


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


def _fork(work: Callable[[T], R], parts: Sequence[T]) -> tuple[int, Connection]:
    """A process that does these parts, and the pipe that its results come through."""
    reading, writing = Pipe(duplex=False)
    process = os.fork()
    if process:
        writing.close()
        return process, reading
    code = 1
    try:
        reading.close()
        with uncollected():  # a search would touch, and so copy, all that was read
            writing.send([work(part) for part in parts])
        code = 0
    finally:
        os._exit(code)  # whatever happened: nothing of the parent's, such as its files, is to be finished twice


def _result(process: int, pipe: Connection) -> Any:
    """What a process hands back; None where it ended without."""
    share = None
    with pipe, suppress(EOFError, OSError):
        share = pipe.recv()
    with suppress(ChildProcessError):  # somebody else has taken its exit code; what it sent tells enough
        os.waitpid(process, 0)
    return share
