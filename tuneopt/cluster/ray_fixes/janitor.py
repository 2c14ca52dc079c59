"""Clears away after a local Ray whose driver is gone: ``python janitor.py FOLDER``, stdin a pipe from the driver.

The pipe closes when the driver ends, even by SIGKILL. What Ray's processes have in common is that each writes a log
below the session's folder: by their open files they are told from everybody else's. Plain Python without any package.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_SECONDS = 3.0
"""How long Ray's processes may take to end by themselves: workers do within a second or two of their raylet."""


def born(process: int) -> str:
    """When a process began, in the kernel's ticks; empty when there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # After the command's name, which may hold spaces and brackets: 0 is the state, 19 the start time (proc(5)).
    return "" if fields[0] in "ZX" else fields[19]


def users(folder: Path, spared: int = 0) -> list[int]:
    """Processes with open files below ``folder``, without this one and ``spared``; none where there is no /proc."""
    numbers = [int(entry) for entry in _entries(Path("/proc")) if entry.isdigit()]
    others = [number for number in numbers if number not in (os.getpid(), spared)]
    return [number for number in others if _uses(Path(f"/proc/{number}/fd"), f"{folder}/")]


def _uses(files: Path, prefix: str) -> bool:
    for name in _entries(files):
        with contextlib.suppress(OSError):
            if str((files / name).readlink()).startswith(prefix):
                return True
    return False


def _entries(folder: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from [path.name for path in folder.iterdir()]


def clear(folder: Path, patience: float = PATIENCE_SECONDS, spared: int = 0) -> None:
    """End whoever still uses ``folder`` after ``patience`` seconds, and remove it; ``spared`` is let live."""
    deadline = time.monotonic() + patience
    while users(folder, spared) and time.monotonic() < deadline:
        time.sleep(0.2)
    for _ in range(20):  # a killed raylet's workers can still start one more process
        left = users(folder, spared)
        if not left:
            break
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def clear_abandoned(parent: Path) -> None:
    """Clear the folders of drivers that died together with their janitor."""
    for name in _entries(parent):
        process, _, began = name.partition("-")
        if process.isdigit() and born(int(process)) != began:
            clear(parent / name, patience=0)


def main() -> None:
    """Wait for the end of the driver, then clear its folder."""
    folder, driver = Path(sys.argv[1]), os.getppid()
    with contextlib.suppress(OSError):
        clear_abandoned(folder.parent)
    sys.stdin.buffer.read()
    clear(folder, spared=driver)  # it may live on and still have Ray's log of itself open


if __name__ == "__main__":
    main()
