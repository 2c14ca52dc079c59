"""Paths that people write: expanded alike, read within bounds, and written whole or not at all.

Options, entries of files and arguments of the API that name a file go through the functions here, so that ``~`` means
the same everywhere and a mistake has the same answer. What is read or replaced must be a plain file: a FIFO would block
a command for ever, a device has no end, and renaming a new file over one would replace the device itself.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tuneopt.errors import InputError, naming, why, working_folder

_HIDDEN = ".tuneopt-"
"""What names of unfinished outputs begin with; host and process follow, by which the next command knows what is left
of a killed one."""

CACHE_VARIABLE = "TUNEOPT_CACHE"

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Where what can be made again is kept: the argument, else ``TUNEOPT_CACHE``, else ``~/.cache/tuneopt``."""
    try:
        folder = Path(cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/tuneopt").expanduser().absolute()
    except RuntimeError:
        raise InputError(f"no home folder for the cache; set {CACHE_VARIABLE} to a folder") from None
    check_text(str(folder), f"the cache's folder ({CACHE_VARIABLE})")
    return folder


def check_text(text: str, what: str) -> None:
    """Raise `InputError` where ``text``, of the system, holds bytes that its encoding does not know.

    Python keeps them as half surrogates, and no record, table or page can hold those.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        mend = "" if encoding == "utf-8" else ", or set PYTHONUTF8=1"
        raise InputError(f"{what} {text!r} holds bytes that are no text in {encoding}; rename it{mend}") from None


def expanded(path: str | Path, what: str = "the path") -> Path:
    """The path with ``~`` and ``~user`` as folders.

    Raises `InputError` where that home is unknown, for no path, and for one that is no text (`check_text`), be it
    because of the working folder.
    """
    text = os.fspath(path)
    if not text.strip() or "\0" in text:
        raise InputError(f"{what} {text!r} is none; give the name of a file or folder")
    check_text(text, what)
    try:
        known = Path(text).expanduser()
    except RuntimeError:
        raise InputError(f"{what} {text!r} begins with a home folder that nobody has here; write it out") from None
    if not known.is_absolute():
        check_text(working_folder(), "the working folder")
    return known


def shipped(path: str | Path, folder: str) -> Path:
    """The path expanded; or, where nothing is there and it reads ``folder/NAME``, the file of that name in the package.

    So ``studies/nano.yaml`` means the same in a checkout and next to an installed tuneopt. Raises `InputError` as
    `expanded` does.
    """
    own = expanded(path)
    ours = Path(__file__).resolve().parents[1] / folder / own.name
    return ours if own.parent == Path(folder) and not own.exists() and ours.is_file() else own


def other_kind(path: Path) -> str:
    """What stands at ``path`` where it is no plain file, in words; empty for a plain file and where nothing is.

    A link counts as what it leads to. Raises OSError where that cannot be found out.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return "" if stat.S_ISREG(mode) else next((word for is_kind, word in _KINDS if is_kind(mode)), "no plain file")


def open_plain(path: Path, most: int | None = None) -> BinaryIO:
    """A plain file for reading; raises OSError as `open` does, and `InputError` for another kind or a larger file.

    Kind and size (``most`` bytes) are looked at before the file is opened, and again afterwards: it may have been
    exchanged meanwhile. Opening never blocks.
    """
    if kind := other_kind(path):
        raise InputError(f"{path} is {kind}, not a plain file; give a file")
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{path} is not a plain file; give a file")
        if most is not None and facts.st_size > most:
            raise _too_large(path, most)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a plain file, ``most`` at most; raises as `open_plain` does."""
    with open_plain(path, most) as file, naming(path):
        data = file.read(most + 1)  # files of /proc have a size of 0, and others may grow meanwhile
    if len(data) > most:
        raise _too_large(path, most)
    return data


def _too_large(path: Path, most: int) -> InputError:
    size = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
    return InputError(f"{path} has more than {size}, which is too much for such a file; give a smaller one")


def same_place(one: Path, other: Path) -> bool:
    """Whether two paths are one place: by another way there, by a link, or as two names of one file."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one is not there
        return False


def check_output(path: Path, what: str, inputs: Iterable[Path] = ()) -> None:
    """Raise `InputError` unless ``what`` can be written to ``path``: over nothing, or over a plain file of its own.

    ``inputs`` are files that the same command reads, over which nothing is written, and folders that are somebody
    else's to fill, such as those of a ledger.
    """
    try:
        # Folders on the way may be made first: `new/../a.csv` is the file `a.csv` then.
        place = Path(os.path.realpath(path.parent)) / path.name
        if place.is_symlink():
            to = place.readlink()
            raise InputError(f"cannot write {what} to {path}: it is a link to {to}; name that file itself")
        if kind := other_kind(place):
            raise InputError(f"cannot write {what} to {path}: it is {kind}; name a file")
        check_way(path.parent, path, what)
        for source in inputs:
            if place.exists() and source.exists() and place.samefile(source):
                raise InputError(f"cannot write {what} to {path}: it is read by this command; name another file")
            if not source.is_file() and place.is_relative_to(os.path.realpath(source)):
                raise InputError(f"cannot write {what} to {path}: {source} has files of its own; name another file")
    except OSError as error:
        raise InputError(f"cannot write {what} to {path}: {why(error)}; name another file") from None


def check_way(folder: Path, path: Path, what: str) -> None:
    """Raise `InputError` unless ``folder``, where ``path`` leads to, can be written to, or made.

    It is asked before hours of work. What is refused after them, by a quota say, those who write turn into a sentence.
    """
    above = Path(os.path.realpath(folder))
    first = next((one for one in (above, *above.parents) if os.path.lexists(one)), above)
    if not first.is_dir():
        instead = "give a folder" if folder == path else "name another place"
        raise InputError(f"cannot write {what} to {path}: {first} is no folder; {instead}")
    if not os.access(first, os.W_OK | os.X_OK):  # which does not say why
        reason = "read-only file system" if os.statvfs(first).f_flag & os.ST_RDONLY else "permission denied"
        raise InputError(f"cannot write {what} to {path}: {first}: {reason}; name another place")


@contextlib.contextmanager
def replacing(path: Path, what: str, inputs: Iterable[Path] = (), *, make_folder: bool = False) -> Iterator[Path]:
    """A path to write ``what`` to, with the ending of ``path``, whose place it takes when the block has ended.

    It lies in a hidden folder next to ``path``, because a rename is whole within one file system alone. What killed
    commands left there is removed first. Raises `InputError` as `check_output` does, and for every OSError.
    """
    check_output(path, what, inputs)
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent, _HIDDEN) as folder:
            temporary = folder / path.name
            yield temporary
            temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {what} to {path}: {why(error)}; name another file") from None


def temporary_folder(purpose: str) -> contextlib.AbstractContextManager[Path]:
    """A folder in the system's place for temporary files, removed at the end, or by the next one of this ``purpose``.

    `tempfile.TemporaryDirectory` leaves its folder for ever when its process is killed.
    """
    return scratch_folder(Path(tempfile.gettempdir()), f"tuneopt-{purpose}-")


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder of this process alone; those of dead processes of this machine are removed first.

    Processes of other machines cannot be asked for. Folders of other users stay: they cannot be removed.
    """
    own = f"{prefix}{socket.gethostname()}-"
    for folder in parent.glob(f"{glob.escape(own)}*"):
        process = folder.name.removeprefix(own).partition("-")[0]
        if process.isdigit() and not _lives(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    folder = parent / f"{own}{os.getpid()}-{secrets.token_hex(6)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno == errno.EPERM  # somebody else's
    return True
