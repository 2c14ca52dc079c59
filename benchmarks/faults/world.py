"""A world that misbehaves: errors of the system and a wrong clock for a run's processes, by a library in LD_PRELOAD.

`world.c` is that library, and this module builds it with the C compiler and steers it through a page of shared memory.
What it does to a process is what a kernel does: the call returns -1, and errno says why.
"""

from __future__ import annotations

import errno
import mmap
import shutil
import struct
import subprocess
import time
from pathlib import Path

OPEN_READ, OPEN_WRITE, READ, WRITE, SYNC, NAMES, LIST, STAT = (1 << bit for bit in range(8))  # as in world.c

ERRORS = {
    "no space left": (errno.ENOSPC, OPEN_WRITE | WRITE | SYNC | NAMES),
    "quota used up": (errno.EDQUOT, OPEN_WRITE | WRITE | SYNC | NAMES),
    "input/output error": (errno.EIO, OPEN_READ | OPEN_WRITE | READ | WRITE | SYNC | NAMES | LIST | STAT),
    "read-only file system": (errno.EROFS, OPEN_WRITE | NAMES),
    "no permission": (errno.EACCES, OPEN_READ | OPEN_WRITE | NAMES | LIST),
    "too many open files": (errno.EMFILE, OPEN_READ | OPEN_WRITE | LIST),
    "stale handle": (errno.ESTALE, OPEN_READ | OPEN_WRITE | READ | WRITE | SYNC | NAMES | LIST | STAT),
}
"""Kind of fault -> the error, and the calls that a kernel gives it for."""

_PAGE = struct.Struct("<2d4I4Q1024s1024s")
_COUNTERS = struct.Struct("<2Q")
_COUNTED = 32
"""Where the numbers of calls and of failed calls stand."""

_EVERY = (0, (1 << 64) - 1)


def can_build() -> bool:
    """Whether a C compiler is there."""
    return shutil.which("cc") is not None


class World:
    """What is wrong now with the world of the processes that were started with `environment`."""

    def __init__(self, page: Path, library: Path, folders: tuple[Path, Path]) -> None:
        self.path, self.library = page, library
        self._folders = [f"{folder.resolve()}/".encode() for folder in folders]
        with page.open("ab+") as file:
            file.truncate(_PAGE.size)  # never shorter: who has it mapped already would die
            self._page = mmap.mmap(file.fileno(), _PAGE.size)
        self._ahead = 0.0
        self._set()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that put a process, and those that it starts, into this world."""
        return {"LD_PRELOAD": str(self.library), "TUNEOPT_CHAOS_WORLD": str(self.path)}

    @property
    def asked(self) -> int:
        """Calls since the last `fail` that could have failed."""
        return int(_COUNTERS.unpack_from(self._page, _COUNTED)[0])

    @property
    def failed(self) -> int:
        """Calls that failed since the last `fail`."""
        return int(_COUNTERS.unpack_from(self._page, _COUNTED)[1])

    def fail(self, kind: str, share: float, seconds: float, seed: int = 0, numbers: tuple[int, int] = _EVERY) -> None:
        """Let that share of the calls below the folders fail from now on, for so long; of those, ``numbers`` alone.

        ``numbers`` are the first call of those and the one behind the last, counted from 0 now.
        """
        error, calls = ERRORS[kind]
        self._set(time.monotonic() + seconds, error, calls, round(share * 1000), seed, numbers)

    def mend(self) -> None:
        """Let every call succeed again."""
        self._set()

    def lie(self, seconds: float) -> None:
        """Put the clock ahead by so many seconds; negative ones put it back."""
        self._ahead = seconds
        self._set()

    def close(self) -> None:
        """Remove the page; processes that live keep what it says."""
        self._set()
        self.path.unlink(missing_ok=True)

    def _set(
        self,
        until: float = 0.0,
        error: int = 0,
        calls: int = 0,
        share: int = 0,
        seed: int = 0,
        numbers: tuple[int, int] = _EVERY,
    ) -> None:
        # The end of the errors comes last: a call must not see half of the rest. Counters start anew with errors.
        counted = (0, 0) if until else _COUNTERS.unpack_from(self._page, _COUNTED)
        what = (self._ahead, error, calls, share, seed % (1 << 32), *counted, *numbers, *self._folders)
        struct.pack_into("<d", self._page, 0, 0.0)
        struct.pack_into("<d4I4Q1024s1024s", self._page, 8, *what)
        struct.pack_into("<d", self._page, 0, until)


def build(folder: Path) -> Path:
    """The library, compiled into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "world.so"
    source = Path(__file__).with_name("world.c")
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library
