"""Permissions bind the superuser too while a block runs, so that tests of unreadable files mean something there."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

_VERSION_3 = 0x20080522
_PAST_PERMISSIONS = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH of linux/capability.h


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextlib.contextmanager
def obeyed() -> Iterator[bool]:
    """Whether file permissions bind this thread now; the superuser's right to pass over them is laid down meanwhile."""
    if os.name != "posix" or os.geteuid() != 0:
        yield os.name == "posix"
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = _Header(_VERSION_3, 0), (_Sets * 2)()
    if not hasattr(libc, "capset") or libc.capget(ctypes.byref(header), sets) != 0:
        yield False
        return
    before = sets[0].effective
    sets[0].effective = before & ~_PAST_PERMISSIONS
    if libc.capset(ctypes.byref(header), sets) != 0:
        yield False
        return
    try:
        yield True
    finally:
        sets[0].effective = before
        libc.capset(ctypes.byref(header), sets)
