"""Starting the ranks of a trial on this machine, and what a started rank knows about itself.

On several machines a launcher such as torchrun starts the same command and sets the same variables.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

import torch

from tuneopt.spec import InputError
from tuneopt.train.distributed import Ranks, joined
from tuneopt.train.failed import culprit, failure

MEETING = "TUNEOPT_MEETING_FILE"
"""Variable that names the file in which the ranks of one machine find each other; without it they use torch's."""

BAD_INPUT = 2
"""Exit code of a rank that found bad input; the last line that it wrote says what."""

PATIENCE = 5.0
"""Seconds that the other ranks get to end after one has failed."""

_M_MMAP_THRESHOLD = -3
_PR_SET_PDEATHSIG = 1
"""The names of these settings in glibc's malloc.h and Linux's prctl.h."""


def is_rank() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def rank_of_environment() -> Iterator[Ranks]:
    """Join the others as the rank that the launcher's variables name; GPUs are dealt out by LOCAL_RANK."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    else:
        _give_back_freed_memory()
    meeting = os.environ.get(MEETING)
    if meeting:
        _end_with_parent()
    with joined(rank, world, device, f"file://{meeting}" if meeting else "env://") as ranks:
        yield ranks


def _give_back_freed_memory() -> None:
    """Have glibc return blocks of 4 MiB and more when they are freed; it keeps up to 32 MiB for later, in fragments."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**22)


def _end_with_parent() -> None:
    """Have Linux end this process when the one that started it dies: nobody else would wait for it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def leave(code: int) -> NoReturn:
    """End this process at once: gloo's threads abort one in ten processes that clean up at exit."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def launch(command: Sequence[str], ranks: int, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run ``command`` once per rank; yields the lines that rank 0 prints, as they come.

    Other ranks print nothing. When one fails, all are ended, and `RankFailedError` says which and why; where it ended
    because of bad input, `InputError` does.
    """
    with tempfile.TemporaryDirectory(prefix="tuneopt-ranks-") as folder:
        logs = [Path(folder) / f"rank-{rank}.log" for rank in range(ranks)]
        processes: list[subprocess.Popen[str]] = []
        try:
            for rank, log in enumerate(logs):
                processes.append(_start(command, rank, ranks, Path(folder) / "meeting", log, environment or {}))
            guard = _Guard(processes)
            guard.start()
            first: IO[str] | None = processes[0].stdout
            assert first is not None
            for line in first:
                yield line.rstrip("\n")
            guard.join()
            if any(guard.codes):
                texts = [log.read_text(errors="replace") for log in logs]
                rank = culprit(guard.codes, texts)
                error = failure(rank, ranks, guard.codes[rank] or 0, texts[rank])
                raise InputError(texts[rank].strip().splitlines()[-1]) if guard.codes[rank] == BAD_INPUT else error
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _start(
    command: Sequence[str], rank: int, world: int, meeting: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), MEETING: str(meeting)}
    # Ranks share the machine's cores, and OpenMP spins where they do not suffice.
    if not torch.cuda.is_available():
        own["OMP_NUM_THREADS"] = "1"
    elif "OMP_NUM_THREADS" not in os.environ:
        own["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // world))  # for what is offloaded
    with log.open("wb") as errors:
        return subprocess.Popen(
            list(command),
            env={**os.environ, **own, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if rank == 0 else errors,
            stderr=errors,
            text=True,
        )


class _Guard(threading.Thread):
    """Waits for all ranks; when one fails, gives the others seconds, for they would wait for it for long."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        super().__init__(daemon=True)
        self._processes = processes
        self.codes: list[int | None] = []
        """Exit codes once all have ended; 0 for those that had to be ended."""

    def run(self) -> None:
        deadline = float("inf")
        while True:
            codes = [process.poll() for process in self._processes]
            if any(codes):
                deadline = min(deadline, time.monotonic() + PATIENCE)
            if None not in codes:
                self.codes = codes
                return
            if time.monotonic() > deadline:
                self.codes = [code or 0 for code in codes]
                for process in self._processes:
                    process.kill()
                return
            time.sleep(0.05)
