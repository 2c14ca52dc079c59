"""Where a ledger's files live: a local folder, or a prefix of an object store through pyarrow's file systems.

Both places offer the same few operations on names relative to the ledger's root. What is written is either there
whole or not there at all, for readers, after a kill, and (in a folder) after a power cut. A local write goes

    temporary file, fsync of it  ->  link or rename to its name  ->  fsync of the folder.

The content is flushed before the name appears: in the other order ext4 and XFS may show, after a power cut, the name
with an empty file. The folder is flushed last: only then is the name itself on the disk, and only then does a write
report success. A reader sees the old state up to the link or rename and the new one after it, never a part. What a
kill leaves is a temporary file, which no reader looks at (its name starts with a dot); `stray` finds it later.

`create` must let exactly one of several writers win. On a folder a hard link does that: it fails where the name is
taken, on every local file system and on NFS, while a rename would replace silently. File systems without hard links
(FAT, exFAT, many FUSE and SMB mounts) get a check and a rename under a lock instead. An object store has no such
operation in pyarrow; there it asks first, and `RemoteFiles` says why that is enough.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tuneopt.errors import naming
from tuneopt.ledger.durable import NoPlainFileError, abandoned, flush, make_folder, oddity, rename_if_absent

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES}
"""What file systems answer that know no hard links: EPERM on Linux's FAT, EACCES on Android, EMLINK where a count ends.

Any other error, a full disk above all, is the caller's.
"""

LARGEST_DOCUMENT = 1 << 26
"""Bytes of a JSON or YAML file that are read at most: the longest records have a few hundred kilobytes, and a file that
is cut off here is damaged in any case."""

_REQUESTS = 16
"""Reads of an object store at once: each one waits for the network and costs this process little."""


class Stream(Protocol):
    """What is read from or written to a large object, in pieces."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most ``size``; empty at the end."""

    def write(self, data: bytes) -> int:
        """Add bytes."""


class Files(Protocol):
    """The operations that a ledger needs; names are relative and use forward slashes."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises FileNotFoundError, and `NoPlainFileError` for what has no bytes to read."""

    def read_all(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Each name with its bytes, in the order asked for; a file that vanished meanwhile is left out.

        Raises `NoPlainFileError` as `read` does.
        """

    def oddity(self, name: str) -> str:
        """What stands under a name in place of a plain file, such as "a folder"; empty for a file and for nothing."""

    def exists(self, name: str) -> bool:
        """Whether the file is there."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that must not exist yet, atomically; False, and no change, when it was there."""

    def replace(self, name: str, data: bytes) -> None:
        """Write or overwrite a file atomically."""

    def move(self, name: str, target: str, seen: bytes, instead: bytes | None = None) -> None:
        """Give a file that holds ``seen`` another name, over what has it; ``instead`` takes its place.

        A file that is not there, or holds something else by now, is no error.
        """

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""

    def delete_tree(self, folder: str) -> None:
        """Remove a folder and everything in it; one that is not there is no error."""

    def tree(self, folder: str) -> list[tuple[str, int, float]]:
        """Every file below ``folder``: its name from there, bytes, and when it changed (seconds since 1970)."""

    def alone(self, word: str) -> AbstractContextManager[object]:
        """Wait until no other process of this machine is inside; where nothing can be locked, do not wait."""

    def names(self, folder: str) -> list[str]:
        """Names of the finished files right inside ``folder``, sorted; empty when the folder is not there."""

    def odd_names(self, folder: str) -> list[str]:
        """Names of what is right inside ``folder`` and no plain file, sorted."""

    def stray(self, folder: str) -> list[str]:
        """Names of temporary files in ``folder`` that no live writer owns."""


class LocalFiles:
    """Files under a local folder: the contract of `Files`, kept as the head of this file says.

    Temporary names start with a dot and carry their writer's host and process, by which `stray` asks whether it lives.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises FileNotFoundError, and `NoPlainFileError` for what has no bytes to read."""
        path = self.root / name
        if what := oddity(path):
            raise NoPlainFileError(name, what)
        # Not blocking: a FIFO that takes the file's place at this moment must not hold up its reader.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file, naming(path):
            if not name.endswith((".json", ".yaml")):
                return file.read()
            # Python makes room for all bytes that are asked for: of the largest size at once that takes most of a read.
            return file.read(min(os.fstat(file.fileno()).st_size + 1, LARGEST_DOCUMENT))

    def oddity(self, name: str) -> str:
        """What stands under a name in place of a plain file. Links are followed: a link to a file is one."""
        return oddity(self.root / name)

    def read_all(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Each name with its bytes, one after the other."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, self.read(name)

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return (self.root / name).is_file()

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file; of several writers at once exactly one gets True. A hard link is the arbiter."""
        target = self.root / name
        if target.exists():  # spares the write and two flushes in the usual case; the link decides all the same
            return False
        temporary = self._write_temporary(target, data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not rename_if_absent(temporary, target):
                return False
        finally:
            temporary.unlink(missing_ok=True)  # the link is a second name of the same file; this drops the first
        flush(target.parent)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Write or overwrite a file: temporary name, flush, rename, flush the folder."""
        target = self.root / name
        temporary = self._write_temporary(target, data)
        try:
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        flush(target.parent)

    def move(self, name: str, target: str, seen: bytes, instead: bytes | None = None) -> None:
        """Rename a file; whoever moves holds the lock, so it is what was ``seen``.

        Its old folder is not flushed: after a power cut the file may have both names, never none.
        """
        place = self.root / target
        make_folder(place.parent)
        with contextlib.suppress(FileNotFoundError):
            (self.root / name).replace(place)
            flush(place.parent)
            if instead is not None:
                self.create(name, instead)

    def delete(self, name: str) -> None:
        """Remove a file."""
        (self.root / name).unlink(missing_ok=True)

    def delete_tree(self, folder: str) -> None:
        """Remove a folder."""
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def tree(self, folder: str) -> list[tuple[str, int, float]]:
        """Every file below a folder."""
        found = []
        for path in sorted((self.root / folder).rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                if path.is_file():
                    found.append((path.relative_to(self.root / folder).as_posix(), facts.st_size, facts.st_mtime))
        return found

    @contextlib.contextmanager
    def alone(self, word: str) -> Iterator[None]:
        """Hold a lock that the kernel drops with its process, so that a kill blocks nobody."""
        from filelock import FileLock

        lock = FileLock(self.root / f".{word}.lock")
        with contextlib.suppress(NotImplementedError):  # a file system without locks, such as Lustre by default
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def names(self, folder: str) -> list[str]:
        """Names of the finished files right inside ``folder``, sorted."""
        return self._entries(folder, plain=True)

    def odd_names(self, folder: str) -> list[str]:
        """Names of folders, FIFOs, devices and links that lead nowhere, sorted."""
        return self._entries(folder, plain=False)

    def _entries(self, folder: str, plain: bool) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                return sorted(e.name for e in entries if not e.name.startswith(".") and _is_plain(e) == plain)
        except FileNotFoundError:
            return []

    def stray(self, folder: str) -> list[str]:
        """Temporary files whose writer is dead, or that another machine left over an hour ago."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in sorted((self.root / folder).iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    if path.name.endswith(".tmp") and abandoned(path):
                        found.append(path.name)
        return found

    def _write_temporary(self, target: Path, data: bytes) -> Path:
        """The content under a name of its own in the target's folder, flushed; nothing is left where that fails."""
        make_folder(target.parent)
        owner = f"{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(6)}"
        temporary = target.parent / f".{target.name}~{owner}.tmp"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            with contextlib.suppress(OSError):  # what is left then goes with the next run (`damage.strays`)
                temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                error.filename = str(target)  # nobody knows the other name
            raise
        return temporary


class RemoteFiles:
    """Files under a prefix of any pyarrow file system, such as S3; a put of an object is atomic there.

    ``create`` asks first and puts then: where two writers put one name within that moment, the later one stays.
    Records of one trial are interchangeable (the name is a hash of all that the result depends on), and each is whole.
    Objects are opened without pyarrow's compression by ending: bytes are stored as they are given.
    """

    def __init__(self, filesystem: FileSystem, prefix: str) -> None:
        self.filesystem = filesystem
        self.prefix = prefix.rstrip("/")

    def read(self, name: str) -> bytes:
        """The bytes of a file; raises FileNotFoundError."""
        with self.reading(name) as stream:
            return bytes(stream.read())

    def read_all(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Each name with its bytes; several requests run at once, because each one waits for the network."""

        def fetch(name: str) -> bytes | None:
            try:
                return self.read(name)
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(_REQUESTS) as pool:
            for name, data in zip(names, pool.map(fetch, names), strict=True):
                if data is not None:
                    yield name, data

    def oddity(self, name: str) -> str:
        """Object stores hold objects alone."""
        return ""

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return bool(self.filesystem.get_file_info(self.path(name)).is_file)

    def create(self, name: str, data: bytes) -> bool:
        """Put a new object unless one is there."""
        if self.exists(name):
            return False
        self.replace(name, data)
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Put an object in a single request."""
        with self.writing(name) as stream:
            stream.write(data)

    def reading(self, name: str) -> AbstractContextManager[Stream]:
        """A large object's bytes, in pieces; raises FileNotFoundError."""
        stream: AbstractContextManager[Stream] = self.filesystem.open_input_stream(self.path(name), compression=None)
        return stream

    def writing(self, name: str) -> AbstractContextManager[Stream]:
        """A large new object, in pieces; it is there once the stream is closed, and killed before, there is none."""
        path = self.path(name)
        stream: AbstractContextManager[Stream]
        try:
            stream = self.filesystem.open_output_stream(path, compression=None)
        except FileNotFoundError:  # a file system with real folders
            self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            stream = self.filesystem.open_output_stream(path, compression=None)
        return stream

    def move(self, name: str, target: str, seen: bytes, instead: bytes | None = None) -> None:
        """Put a copy of what was seen, then delete or overwrite the object: killed between the two, it has both names.

        Nothing can be locked here, so another process may have written the object anew since it was read. What is
        copied is what was seen, never what stands there by now, and it is looked at again before it goes. With
        ``instead`` one object replaces another in a single request, and at no moment is there none.
        """
        with contextlib.suppress(FileNotFoundError):
            self.replace(target, seen)
            if self.read(name) != seen:
                return
            if instead is None:
                self.delete(name)
            else:
                self.replace(name, instead)

    def delete(self, name: str) -> None:
        """Delete an object."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(name))

    def delete_tree(self, folder: str) -> None:
        """Delete every object below a prefix."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path(folder))

    def tree(self, folder: str) -> list[tuple[str, int, float]]:
        """Every object below a prefix."""
        from pyarrow.fs import FileSelector

        top = self.path(folder)
        found = self.filesystem.get_file_info(FileSelector(top, allow_not_found=True, recursive=True))
        files = sorted((info for info in found if info.is_file), key=lambda info: str(info.path))
        return [(info.path.removeprefix(f"{top}/"), info.size, (info.mtime_ns or 0) / 1e9) for info in files]

    def alone(self, word: str) -> AbstractContextManager[object]:
        """Object stores know no locks: do not wait."""
        return contextlib.nullcontext()

    def names(self, folder: str) -> list[str]:
        """Names of the objects right under ``folder``, sorted."""
        from pyarrow.fs import FileSelector

        found = self.filesystem.get_file_info(FileSelector(self.path(folder), allow_not_found=True))
        return sorted(info.base_name for info in found if info.is_file and not info.base_name.startswith("."))

    def odd_names(self, folder: str) -> list[str]:
        """Object stores hold objects alone."""
        return []

    def stray(self, folder: str) -> list[str]:
        """Object stores keep no temporary files."""
        return []

    def path(self, name: str) -> str:
        """The whole name of an object in its file system."""
        return f"{self.prefix}/{name}"


def _is_plain(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False
