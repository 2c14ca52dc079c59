"""What is said when a rank of a trial fails; imports no torch, so that the command line can know it."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

GO_ON = "run the same command again to go on from the last checkpoint"

_LOST = re.compile(r"connection (closed|reset|refused)|broken pipe|timed? ?out|nccl|gloo|socket", re.IGNORECASE)
"""What the others say when one is gone."""

_MEMORY = " (which is how the kernel ends processes when memory runs out)"


class RankFailedError(RuntimeError):
    """A rank ended before its trial did. The message is one sentence; ``log`` holds the last lines of that rank."""

    def __init__(self, sentence: str, log: str = "") -> None:
        super().__init__(sentence)
        self.log = log


def culprit(codes: Sequence[int | None], logs: Sequence[str]) -> int:
    """The rank that failed by itself, among those whose exit code is not 0; the others fail because it is gone."""

    def blame(rank: int) -> tuple[int, int]:
        code = codes[rank] or 0
        lost = _LOST.search(_last_line(logs[rank])) is not None
        # A rank aborts, too, when a thread of its communication finds nobody.
        order = 0 if code < 0 and code != -signal.SIGABRT else 3 if lost else 1 if code > 0 else 2
        return order, rank

    return min((rank for rank, code in enumerate(codes) if code), key=blame)


def failure(rank: int, ranks: int, code: int, log: str) -> RankFailedError:
    """The error for a rank that ended with ``code``, negative for a signal, and wrote ``log``."""
    who = f"rank {rank} of {ranks}"
    if code < 0:
        name = signal.Signals(-code).name if -code in {each.value for each in signal.Signals} else f"signal {-code}"
        said = f"{who} was ended by {name}{_MEMORY if code == -signal.SIGKILL else ''}"
    else:
        said = f"{who} failed: {_last_line(log) or f'it ended with code {code} and said nothing'}"
    return RankFailedError(f"{said}; {GO_ON}", "\n".join(log.splitlines()[-12:]))


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""
