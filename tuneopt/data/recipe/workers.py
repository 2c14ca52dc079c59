"""Processes of this machine that encode units: ``python -m tuneopt.data.recipe.workers PIPE FOLDER``.

Over a pipe for each worker go, pickled, the job once and then units one way, and for each unit, in order, the other way

    ("done", path)    its rows are in that file; rows go through the disk alone
    ("bad", text)     its text cannot be read: the sentence of an `InputError`
    ("full", text)    the disk is full
    ("error", text)   anything else, with its traceback

A worker that is killed is replaced, and what it had is done again. A worker ends with its parent: the pipe breaks, or
the parent's process number changes. `EncoderPool` is what a preparation needs; Ray has one of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import traceback
from collections import deque
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from tuneopt.data.recipe.units import EncodingJob, Unit, encode_to_file
from tuneopt.errors import of_system
from tuneopt.spec import InputError

ATTEMPTS = 3
"""How often a unit is tried when the workers that had it were killed: once may be chance, three times is the unit."""

DEPTH = 2
"""Units that a worker has at once, so that it never waits for the next."""

ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
"""Environment in which a worker uses one core."""


class EncoderPool(Protocol):
    """Whoever encodes units, in any order and any number of times: the rows of a unit are always the same."""

    ahead: int
    """How many units it wants to have at once."""

    def submit(self, unit: Unit) -> None:
        """Take a unit; the work is done in any order."""

    def collect(self) -> list[tuple[Unit, Path]]:
        """Wait until at least one unit is done; the files of those that are."""

    def close(self) -> None:
        """Give up what is not done."""


class Here:
    """Encodes in this process, when a unit is asked for."""

    ahead = 1

    def __init__(self, job: EncodingJob, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._waiting: deque[Unit] = deque()

    def submit(self, unit: Unit) -> None:
        """Note the unit."""
        self._waiting.append(unit)

    def collect(self) -> list[tuple[Unit, Path]]:
        """Encode the first unit."""
        unit = self._waiting.popleft()
        return [(unit, encode_to_file(self._job, unit, self._folder))]

    def close(self) -> None:
        """Nothing is open."""


class Workers:
    """Processes that encode, each with a pipe of its own."""

    def __init__(self, job: EncodingJob, folder: Path, count: int) -> None:
        self.ahead = count * (DEPTH + 2)
        self._job, self._folder = job, folder
        self._waiting: deque[Unit] = deque()
        self._attempts: dict[Unit, int] = {}
        self._workers = [_Worker(job, folder) for _ in range(count)]

    def submit(self, unit: Unit) -> None:
        """Hand the unit to the worker that has least to do, or keep it until one has time."""
        self._waiting.append(unit)
        self._feed()

    def _feed(self) -> None:
        """Hand out what waits, evenly, until every worker has `DEPTH` units."""
        while self._waiting:
            worker = min(self._workers, key=lambda worker: len(worker.units))
            if len(worker.units) >= DEPTH:
                return
            worker.give(self._waiting.popleft())

    def collect(self) -> list[tuple[Unit, Path]]:
        """Wait for the workers; raises `InputError` for text that cannot be read and for a unit that kills workers."""
        done: list[tuple[Unit, Path]] = []
        while not done:
            # A pipe is ready when it holds an answer, and when its worker is gone: then reading it fails.
            ready = wait([worker.pipe for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, OSError):
                    self._replace(worker)
                    continue
                if kind == "bad":
                    raise InputError(value)
                if kind == "full":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
                if kind == "error":
                    raise RuntimeError(f"a worker failed:\n{value}")
                done.append((worker.units.popleft(), Path(value)))
            self._feed()
        return done

    def _replace(self, worker: _Worker) -> None:
        """Put another worker in the place of one that was killed; what it had is done again."""
        worker.stop()
        if worker.units:
            unit = worker.units[0]  # the one that it was at: the others are not to blame
            self._attempts[unit] = self._attempts.get(unit, 0) + 1
            if self._attempts[unit] >= ATTEMPTS:
                where = unit.path or f"shard {unit.start} of source {self._job.sources[unit.source].name}"
                raise InputError(
                    f"{ATTEMPTS} workers that read {where} were killed, perhaps for their memory; "
                    "run the command again with fewer --workers"
                )
        self._waiting.extendleft(reversed(worker.units))
        self._workers[self._workers.index(worker)] = _Worker(self._job, self._folder)

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.stop()


class _Worker:
    """One process and its pipe; ``units`` are those it has, in the order in which it answers."""

    def __init__(self, job: EncodingJob, folder: Path) -> None:
        self.pipe, theirs = Pipe()
        self.units: deque[Unit] = deque()
        # A plain child: unlike multiprocessing's, it does not run the caller's main module once more.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tuneopt.data.recipe.workers", str(theirs.fileno()), str(folder)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        with contextlib.suppress(OSError):  # a worker that is gone already is noticed when it is waited for
            self.pipe.send(job)

    def give(self, unit: Unit) -> None:
        """Hand over a unit; that a worker is gone shows when its answer is waited for."""
        self.units.append(unit)
        with contextlib.suppress(OSError):
            self.pipe.send(unit)

    def stop(self) -> None:
        """End the process at once: an unfinished file has no name that counts."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def work(pipe: Connection, folder: Path, parent: int) -> None:
    """Encode what arrives until the parent is gone: a unit that is done then is kept, what still waits is not begun."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the parent decides
    pa.set_cpu_count(1)
    with contextlib.suppress(EOFError, OSError):
        job = pipe.recv()
        while True:
            unit = pipe.recv()
            if os.getppid() != parent:
                return
            pipe.send(_outcome(job, unit, folder))


def _outcome(job: EncodingJob, unit: Unit, folder: Path) -> tuple[str, str]:
    """How encoding went, as a word and a text: an exception of a library need not survive a pipe."""
    try:
        return "done", str(encode_to_file(job, unit, folder))
    except InputError as error:
        return "bad", str(error)
    except FileNotFoundError:
        raise  # the folder is gone, and with it whoever wanted the rows
    except OSError as error:
        return ("full", str(error)) if error.errno == errno.ENOSPC else ("bad", str(of_system(error)))
    except Exception:
        return "error", traceback.format_exc()


if __name__ == "__main__":
    work(Connection(int(sys.argv[1])), Path(sys.argv[2]), os.getppid())
