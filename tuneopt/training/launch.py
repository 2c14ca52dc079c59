"""Starting the ranks of a trial on this machine, and saying which of them failed and why.

A rank is a process with four variables in its environment (RANK, LOCAL_RANK, WORLD_SIZE and where to meet the others).
On several machines a launcher such as torchrun starts the same command and sets the same variables. Ranks wait for each
other for up to half an hour, so when one fails the others are ended here. Imports no torch until ranks are started,
because the command line knows `RankFailedError`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from tuneopt.errors import InputError
from tuneopt.paths import temporary_folder

MEETING = "TUNEOPT_MEETING_FILE"
"""Variable that names the file in which the ranks of one machine find each other; without it they use torch's."""

BAD_INPUT = 2
"""Exit code of a rank that found bad input; the last line that it wrote says what."""

PATIENCE = 5.0
"""Seconds that the other ranks get to end after one has failed."""

GO_ON = "run the same command again to go on from the last checkpoint"

_LOST = re.compile(r"connection (closed|reset|refused)|broken pipe|timed? ?out|nccl|gloo|socket", re.IGNORECASE)
"""What the other ranks say when one is gone."""


class RankFailedError(RuntimeError):
    """A rank ended before its trial did. The message is one sentence; ``log`` holds the last lines of that rank."""

    def __init__(self, sentence: str, log: str = "") -> None:
        super().__init__(sentence)
        self.log = log


def is_rank() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


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
    with temporary_folder("ranks") as folder:
        logs = [folder / f"rank-{rank}.log" for rank in range(ranks)]
        processes: list[subprocess.Popen[str]] = []  # grows as they start: what has started is ended in any case
        try:
            for rank, log in enumerate(logs):
                processes.append(_start(command, rank, ranks, folder / "meeting", log, environment or {}))
            guard = _Guard(processes)
            guard.start()
            first: IO[str] | None = processes[0].stdout
            assert first is not None
            for line in first:
                yield line.rstrip("\n")
            guard.join()  # rank 0 has said its last word; the others may still be ending
            if any(guard.codes):
                texts = [log.read_text(errors="replace") for log in logs]
                rank = culprit(guard.codes, texts)
                if guard.codes[rank] == BAD_INPUT:
                    raise InputError(_last_line(texts[rank], keep_dot=True))
                raise failure(rank, ranks, guard.codes[rank] or 0, texts[rank])
        finally:
            # Also when the caller stops reading: ranks must not outlive who started them.
            for process in processes:
                process.kill()
                process.wait()


def _start(
    command: Sequence[str], rank: int, world: int, meeting: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    import torch

    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), MEETING: str(meeting)}
    # Ranks share the machine's cores, and OpenMP's idle threads spin: with more threads than cores they stand in the
    # way of those that work.
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
                # Not at once: the one whose error is worth reading may be the second that is seen to end.
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


def culprit(codes: Sequence[int | None], logs: Sequence[str]) -> int:
    """The rank that failed by itself, among those whose exit code is not 0; the others fail because it is gone."""

    # From surest to least sure; of equals the lowest rank, so that the sentence is the same each time.
    def blame(rank: int) -> tuple[int, int]:
        code = codes[rank] or 0
        if code < 0 and code != -signal.SIGABRT:
            return 0, rank  # ended from outside
        if _LOST.search(_last_line(logs[rank])):
            return 3, rank  # it lost the connection to one that had failed before
        # A rank aborts, too, when a thread of its communication finds nobody, so an exit code says more.
        return (1 if code > 0 else 2), rank

    return min((rank for rank, code in enumerate(codes) if code), key=blame)


def failure(rank: int, ranks: int, code: int, log: str) -> RankFailedError:
    """The error for a rank that ended with ``code``, negative for a signal, and wrote ``log``."""
    who = f"rank {rank} of {ranks}"
    if code < 0:
        names = {known.value: known.name for known in signal.Signals}
        why = " (which is how the kernel ends processes when memory runs out)" if code == -signal.SIGKILL else ""
        sentence = f"{who} was ended by {names.get(-code, f'signal {-code}')}{why}"
    else:
        sentence = f"{who} failed: {_last_line(log) or f'it ended with code {code} and said nothing'}"
    return RankFailedError(f"{sentence}; {GO_ON}", "\n".join(log.splitlines()[-12:]))


def _last_line(log: str, *, keep_dot: bool = False) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if not lines:
        return ""
    return lines[-1] if keep_dot else lines[-1].rstrip(".")
