"""Stdout, which belongs to the result of a command alone.

What else writes there while a command runs, an optimizer that prints or a library in C, would end up in the middle of
the document that a program reads. `own_stdout` sends it to stderr, and `results` is where results go. Imports nothing:
``--help`` has to answer at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

_results: IO[str] | None = None
"""The stream of results while `own_stdout` holds it."""

_for_good = False
"""Whether stdout stays taken when `own_stdout` ends."""


def results() -> IO[str]:
    """The stream that results go to: stdout as this process found it."""
    return _results or sys.stdout


def take_for_good() -> None:
    """Let stdout stay with `own_stdout` until the process ends, which has nothing to print after its one result.

    Threads and exit handlers of a user's file run on, and what C code wrote is only flushed at the exit.
    """
    global _for_good
    _for_good = True


def open_closed() -> None:
    """Open what of stdin, stdout and stderr the caller closed (``>&-``), onto nothing; or a user's file, as it was.

    The next file that is opened would get the number instead, and a ledger would find messages in its records.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            if handle == number:
                os.set_inheritable(number, True)  # processes that are started need it as well
            else:
                os.dup2(handle, number)
                os.close(handle)
        if getattr(sys, name) is None or getattr(getattr(sys, name), "closed", False):
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good


@contextlib.contextmanager
def own_stdout() -> Iterator[None]:
    """Keep stdout for results while the block runs; whatever else is written there goes to stderr.

    The file descriptor is moved too, because libraries in C, and processes that inherit it, do not know of
    ``sys.stdout``. A character that the stream's encoding lacks is spelt out: an ASCII terminal is no reason to fail.
    Raises OSError where stdout cannot take what was written.
    """
    global _results
    before, real, moved = sys.stdout, sys.__stdout__, -1
    if real is not None and before is real and real.fileno() == 1:
        real.flush()
        moved = os.dup(1)
        os.dup2(2, 1)
        _results = open(moved, "w", encoding=real.encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
    else:  # a test or a notebook has put a stream of its own there
        _results = before
    sys.stdout = sys.stderr
    try:
        yield
        try:
            _results.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            error.filename = "stdout"  # for the sentence
            raise
    finally:
        if moved >= 0:
            with contextlib.suppress(OSError):  # what could not be written was said above
                _results.close()
            if not _for_good:
                os.dup2(moved, 1)
            os.close(moved)
        if moved < 0 or not _for_good:
            sys.stdout = before
        _results = None
