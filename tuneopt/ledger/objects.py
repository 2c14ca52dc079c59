"""Large objects beside the records of a ledger in an object store: streamed in and out, deleted by the folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from tuneopt.ledger.files import RemoteFiles


class Stream(Protocol):
    """What is read from or written to an object, in pieces."""

    def read(self, size: int) -> bytes:
        """The next bytes, at most ``size``; empty at the end."""

    def write(self, data: bytes) -> int:
        """Add bytes."""


class Objects:
    """Large objects under a ledger's prefix; the small ones are `RemoteFiles`' own."""

    def __init__(self, files: RemoteFiles) -> None:
        self._files = files
        self.names, self.read = files.names, files.read
        self.replace, self.delete, self.delete_tree = files.replace, files.delete, files.delete_tree

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Stream]:
        """A new object, there when the block ends; killed before, there is none."""
        with self._files.open_output(name) as stream:
            yield stream

    def reading(self, name: str) -> AbstractContextManager[Stream]:
        """An object's bytes; raises FileNotFoundError."""
        stream: AbstractContextManager[Stream] = self._files.filesystem.open_input_stream(
            self._files.path(name), compression=None
        )
        return stream
