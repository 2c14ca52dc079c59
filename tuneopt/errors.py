"""Errors that a user can mend, and how they are worded: one sentence, and nothing that a terminal would obey.

Every floor raises `InputError` for what comes from outside (options, files, tables, addresses). The command line prints
its sentence and exits with 2. Any other exception is a mistake of tuneopt itself and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

LONGEST_SENTENCE = 2000
"""Characters of an error's sentence; a file that is one huge word must not fill a terminal."""

LONGEST_WORD = 80
"""Characters up to which a word is compared with the known ones: the comparison takes the product of both lengths."""

_UNSEEN = ("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp")
"""Unicode categories that are no part of a line of text: control codes, direction marks, half surrogates, line ends."""

TRAINING_PACKAGES = ("torch", "ray", "deepspeed", "optuna", "datasets", "tokenizers", "safetensors")
"""What only preparing text and training take: an installation that only reads results does without it."""

_FULL = {errno.ENOSPC, errno.EDQUOT}


class InputError(ValueError):
    """Bad input from a user. Its message is one sentence that says what is wrong and how to mend it.

    Text from the input may stand in it: control characters are spelt out, so that the message is always one line.
    """

    def __init__(self, sentence: object = "") -> None:
        text = visible(" ".join(str(sentence).split()))
        super().__init__(text if len(text) <= LONGEST_SENTENCE else text[: LONGEST_SENTENCE - 1] + "\u2026")


TRIAL_LOG = "the trial's log: "
"""Beginning of the note on an exception that ended a trial in this process; the place of its log follows."""


class TrialFailedError(RuntimeError):
    """A trial's own code, an optimizer from outside above all, did what ends a program instead of a trial."""


@contextlib.contextmanager
def staying() -> Iterator[None]:
    """Let ``os._exit`` raise `SystemExit` where code from outside calls it in this thread, while the block runs.

    Otherwise an optimizer could end a command with exit code 0 and without a word. Processes that were forked, other
    threads and whoever ends processes on purpose (tuneopt, Ray, multiprocessing) end at once as ever; so does what
    calls the system's function from C.
    """
    real, process, thread = os._exit, os.getpid(), threading.get_ident()

    def _exit(status: int) -> NoReturn:
        caller = str(sys._getframe(1).f_globals.get("__name__", "")).partition(".")[0]
        if (os.getpid(), threading.get_ident()) != (process, thread) or caller in ("tuneopt", "ray", "multiprocessing"):
            real(status)
        raise SystemExit(status)

    os._exit = _exit
    try:
        yield
    finally:
        os._exit = real


class NoRoomError(InputError):
    """Nothing more can be written at a place: its disk is full, or the user's share of it is used up."""

    def __init__(self, place: str | Path) -> None:
        super().__init__(
            f"no space is left for {place}; make room and run the same command again: it goes on from what is stored"
        )


def no_room(error: BaseException) -> bool:
    """Whether ``error`` is an OSError that says that a disk, or a user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in _FULL


_MENDS = {
    errno.EROFS: "choose a place on a file system that can be written",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "give a path whose folders are folders",
    errno.ENOENT: "check the path",
    errno.EEXIST: "move it away, or choose another place",
    errno.EMLINK: "choose another folder",
    errno.ELOOP: "follow the links by hand and give the file itself",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "close other programs, or ask for a higher limit",
    errno.ENOMEM: "make memory free",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`), or end other programs",
    errno.ESTALE: "mount the file system again",
    errno.EIO: "look after the disk or the connection to it",
    errno.ETIMEDOUT: "look after the disk or the connection to it",
    errno.ENOTCONN: "mount the file system again",
}
"""What helps against an error of the system, in words; it follows a semicolon."""


def why(error: OSError) -> str:
    """The system's reason for an OSError as a clause: no call, no number, and no path, which the sentence has."""
    if no_room(error):
        return "no space is left there"
    if error.errno == errno.EEXIST and error.filename is not None and not Path(str(error.filename)).is_dir():
        return "a file stands where a folder is to be"  # what making a folder gives is "file exists", which is no cause
    return (error.strerror or str(error) or type(error).__name__).lower()


def in_words(error: BaseException) -> str:
    """An exception in one line, without a full stop: those of the system by place and reason, others as Python does."""
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename}: {why(error)}" if error.filename is not None else why(error)
    try:
        text = str(error)
    except Exception:  # of a class of a user's own
        text = ""
    return " ".join(f"{type(error).__name__}: {text}".split()).rstrip(".:")


def of_system(error: OSError, where: str | Path = "") -> InputError:
    """The sentence for an OSError: where, why, and what helps; ``where`` is said when the error does not know it."""
    if error.filename is None and where:
        error.filename = str(where)
    if no_room(error):
        return NoRoomError(error.filename or "what this command writes")
    if error.errno == errno.ENOENT and not error.filename and not working_folder():
        return InputError("the working folder was deleted; change to one that is there and run the same command again")
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    place = f"{' to '.join(names)}: " if names else ""
    mend = _MENDS.get(error.errno or 0, "mend that")
    return InputError(f"{place}{why(error)}; {mend} and run the same command again")


def of_missing(error: ModuleNotFoundError) -> InputError | None:
    """The sentence for a package that a light installation leaves out; None where another module was not found."""
    package = (error.name or "").partition(".")[0]
    if package not in TRAINING_PACKAGES:
        return None
    return InputError(
        f"this needs the package {package}, which is not installed here; `pip install {package}`, or install tuneopt "
        "with all that it depends on (`tuneopt doctor` says what is missing)"
    )


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Give an OSError of the block the path that it is of: those of open files have none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


_OF_THE_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.EIO}
"""Errors that say something of the file itself, and not of the moment or the machine."""


def lasting(error: OSError) -> bool:
    """Whether a file that gave this error while it was read is best made anew.

    Too many open files, a stale handle, no permission and their like are of the moment: the file is probably whole, and
    to throw it away would cost what it took to make it.
    """
    return error.errno is None or error.errno in _OF_THE_FILE


def working_folder() -> str:
    """The current folder; empty where it is gone."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return ""


def visible(text: str, keep: str = "") -> str:
    """``text`` with every character that would steer a terminal spelt out (``\\x1b``), but those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(
        ascii(letter)[1:-1] if unicodedata.category(letter) in _UNSEEN and letter not in keep else letter
        for letter in text
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint naming the known word closest to ``word``, or the list of all when nothing is close.

    Close means at most one typing error for every three letters of the known word, and never less than one.
    """
    words = list(known)
    if len(word) <= LONGEST_WORD:
        close = min(words, key=lambda one: _typing_errors(word.lower(), one.lower()), default="")
        if close and _typing_errors(word.lower(), close.lower()) <= max(1, len(close) // 3):
            return f"did you mean {close!r}?"
    return f"known: {', '.join(words)}"


def enough(least: float) -> str:
    """The smallest number of one digit that is not below ``least``, for "give 0.003 or more"."""
    unit = 10.0 ** math.floor(math.log10(least))
    return f"{math.ceil(least / unit) * unit:g}"  # up: the nearest one could be refused in its turn


def _typing_errors(typed: str, meant: str) -> int:
    """Letters added, lost, changed or swapped with their neighbour (optimal string alignment distance)."""
    before: list[int] = []  # the row before the one above: a swap looks back two rows
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(typed, 1):
        before, above, row = row, before, [i]
        for j, other in enumerate(meant, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == meant[j - 2] and typed[i - 2] == other:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
