"""Compiling on a machine that several processes share: one at a time, and never from a kernel that a kill cut off."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tuneopt.data.cache import cache_folder, only_process

SHAPES = 512
"""Shapes that one process may compile; a sweep meets some ten."""

UNFINISHED = "tuneopt-unfinished"
"""A file in Inductor's cache while something compiles; one that is found there was left by a process that was ended."""


def compile_alone(run: Callable[[], None]) -> None:
    """``run`` something that compiles; no other process of this machine compiles meanwhile.

    Workers of a sweep start together, and so do ranks: compiling the same kernels side by side took them twice as long.
    The later ones find the kernels of the first in Inductor's cache. Inductor writes a kernel in its place, so one that
    is ended meanwhile leaves half of a library, which ends whoever loads it: what it built last is built again.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder / "compile"):
        marker = _inductor_cache() / UNFINISHED
        remove_unfinished(marker)
        marker.touch()
        try:
            run()
        except Exception:
            marker.unlink(missing_ok=True)  # it failed, and was not ended
            raise
        marker.unlink(missing_ok=True)


def remove_unfinished(marker: Path) -> None:
    """Remove libraries beside ``marker`` that are empty, and those that are not older than it, if there is one."""
    since = marker.stat().st_mtime_ns if marker.exists() else None
    for library in marker.parent.glob("*/*.so"):
        about = library.stat()
        if about.st_size == 0 or (since is not None and about.st_mtime_ns >= since):
            library.unlink()


def _inductor_cache() -> Path:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir())


def allow_many_shapes() -> None:
    """Let models of many shapes be compiled in one process, and never run what was to be compiled as plain code.

    Dynamo counts by function, and all models share theirs: after eight shapes it would run the next ones as they are
    written, with other rounding, and a trial's bits would depend on what its worker trained before.
    """
    from torch import _dynamo

    _dynamo.config.recompile_limit = _dynamo.config.accumulated_recompile_limit = SHAPES
    _dynamo.config.fail_on_recompile_limit_hit = True


@cache
def skip_probes() -> None:
    """Spare Inductor its test programs for vector instructions, 12 of the 40 seconds that a first compilation takes.

    They show whether the compiler and the machine both know an instruction set. The kernel names what the machine
    knows, Inductor reads that too; and GCC knows from version 11 whatever Inductor may ask for on x86.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or platform.machine() != "x86_64" or sys.platform != "linux":
        return
    macros = subprocess.run([compiler, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True).stdout
    version = re.search(r"^#define __GNUC__ (\d+)$", macros, re.MULTILINE)
    if version and int(version[1]) >= 11 and "__clang__" not in macros:
        from torch._inductor import config

        config.cpp.vec_isa_ok = True
