"""Which C++ compilers there are: what torch.compile needs on CPUs. Imports no torch, so that planning stays quick."""

from __future__ import annotations

import shutil

COMPILERS = ("c++", "g++", "clang++")


def has_compiler() -> bool:
    """Whether a C++ compiler is found on this machine."""
    return any(shutil.which(name) for name in COMPILERS)
