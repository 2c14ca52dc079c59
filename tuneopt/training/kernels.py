"""Compiling kernels on a machine that several processes share.

torch.compile on CPUs needs a C++ compiler, takes seconds to minutes, and leaves its kernels in Inductor's cache, where
other processes find them. Here is when it can be done at all, that one process at a time does it, that nobody loads a
kernel that a kill cut off, and how it is begun while Ray still starts. Imports no torch until something compiles.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tuneopt.data.cache import only_process
from tuneopt.spec import TrialSpec

if TYPE_CHECKING:
    import torch

SHAPES = 512
"""Shapes that one process may compile; a sweep meets some ten."""

UNFINISHED = ".unfinished"
"""How a file in Inductor's cache ends that is there while something compiles; one that is found there by who has the
lock was left by a process that was ended."""

EMPTY_SECONDS = 600.0
"""After how long a library without content is no longer taken for one that another machine is writing."""


def has_compiler() -> bool:
    """Whether a C++ compiler is found on this machine."""
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


@contextmanager
def compiling(spec: TrialSpec, environment: Mapping[str, str]) -> Iterator[None]:
    """Compile the kernels of ``spec`` in another process meanwhile; whatever is left undone at the end is dropped.

    Ray takes ten seconds to start and its workers five to import torch; kernels that are in the cache by then need not
    be waited for. A worker that comes too early waits for the lock. ``environment`` is what the workers set in addition
    to this process's own: their kernels are to be the same.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tuneopt.training.building", json.dumps(spec.to_dict())],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the driver, which ends this process itself
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def compile_alone(run: Callable[[], None]) -> None:
    """``run`` something that compiles; no other process of this machine compiles meanwhile.

    Workers of a sweep start together, and so do ranks: compiling the same kernels side by side took them twice as long.
    The later ones find the kernels of the first in Inductor's cache. Inductor writes a kernel in its place, so one that
    is ended meanwhile leaves half of a library, which ends whoever loads it: what it built last is built again.
    """
    place = kernels_of_this_machine()
    with only_process(place):
        marker = place.with_name(place.name + UNFINISHED)
        # Only the holder of the lock may look: a marker that is here now has no living owner.
        remove_unfinished(marker)
        marker.touch()
        try:
            run()
        except Exception:
            marker.unlink(missing_ok=True)  # it failed, and was not ended
            raise
        marker.unlink(missing_ok=True)


def remove_unfinished(marker: Path) -> None:
    """Remove libraries beside ``marker`` that are not older than it, if there is one, and those that stayed empty."""
    since = marker.stat().st_mtime_ns if marker.exists() else None
    for library in marker.parent.glob("*/*.so"):
        with suppress(FileNotFoundError):  # another machine may clear up as well
            about = library.stat()
            empty = about.st_size == 0 and time.time() - about.st_mtime > EMPTY_SECONDS
            if empty or (since is not None and about.st_mtime_ns >= since):
                library.unlink()


def kernels_of_this_machine() -> Path:
    """What the lock and the marker are named after: in Inductor's cache, which several machines may share."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) / f"tuneopt-{socket.gethostname()}"


def allow_many_shapes() -> None:
    """Let models of many shapes be compiled in one process, and never run what was to be compiled as plain code.

    Dynamo counts by function, and all models share theirs: after eight shapes it would run the next ones as they are
    written, with other rounding, and a trial's bits would depend on what its worker trained before.
    """
    from torch import _dynamo

    _dynamo.config.recompile_limit = _dynamo.config.accumulated_recompile_limit = SHAPES
    _dynamo.config.fail_on_recompile_limit_hit = True


FLASH_ATTENTION_3 = "FA3"
"""What torch calls it (from 2.11 on); the package that brings it is ``flash_attn_interface``, for Hopper alone."""


def take_flash_attention_3(device: torch.device) -> bool:
    """Let SDPA take FlashAttention 3 where it is installed and runs: on Hopper (compute capability 9).

    SDPA would otherwise prefer cuDNN's kernel there, so that one is switched off. Kernels round in their own order, as
    those of another GPU do; the record names it (`tuneopt.training.machine.device_facts`).
    """
    import torch
    from torch.nn import attention

    known: list[str] = getattr(attention, "list_flash_attention_impls", list)()
    if FLASH_ATTENTION_3 not in known or importlib.util.find_spec("flash_attn_interface") is None:
        return False
    if torch.cuda.get_device_capability(device)[0] != 9:
        return False
    attention.activate_flash_attention_impl(FLASH_ATTENTION_3)
    torch.backends.cuda.enable_cudnn_sdp(False)
    return True


@cache
def skip_probes() -> None:
    """Spare Inductor its test programs for vector instructions, 12 of the 40 seconds that a first compilation takes.

    They show whether the compiler and the machine both know an instruction set. The kernel of the system
    lists what the machine knows, and Inductor reads that list. GCC knows from version 11 on whatever Inductor may ask
    for on x86.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or platform.machine() != "x86_64" or sys.platform != "linux":
        return
    macros = subprocess.run([compiler, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True).stdout
    version = re.search(r"^#define __GNUC__ (\d+)$", macros, re.MULTILINE)
    if version and int(version[1]) >= 11 and "__clang__" not in macros:
        from torch._inductor import config

        config.cpp.vec_isa_ok = True
