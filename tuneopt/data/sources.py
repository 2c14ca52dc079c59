"""Where a corpus comes from: the embedded text, or a folder or file of the user's.

A source knows its name, a stamp that changes when its text may have changed, and how to stream its documents as often
as they are wanted, always in the same order. The stamp stands in the name of the prepared folder: text that changed is
prepared anew, beside the older corpus, and nothing is ever compared or overwritten.
"""

from __future__ import annotations

import hashlib
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tuneopt.data.readers import READERS, ending, readable, text_documents
from tuneopt.spec import InputError, canonical_json, nearest

EMBEDDED = "embedded"
"""Name of the corpus that ships with the package; its sources and licences are in ``embedded/SOURCES.md``."""

EMBEDDED_SHA256 = "a741adb916a436fd7cb461257599a4a2471577d77e151f735a9ffc1f73f3bf82"
"""Of the compressed file: results on the embedded corpus are compared between machines and releases."""

_EMBEDDED_FILE = "public-domain-mix.txt.xz"
_ENDINGS = ".txt, .jsonl, .parquet"
"""For people; what these are compressed to is read as well."""


@dataclass(frozen=True, slots=True)
class EmbeddedSource:
    """The text that ships with the package, checked against its known SHA-256."""

    name: str = EMBEDDED

    def stamp(self) -> str:
        """The known SHA-256; `documents` checks that the installed file has it."""
        return EMBEDDED_SHA256

    def documents(self) -> Iterator[str]:
        """The documents; raises `InputError` when the installed file is not the one that was shipped."""
        resource = files("tuneopt.data").joinpath("embedded", _EMBEDDED_FILE)
        if hashlib.sha256(resource.read_bytes()).hexdigest() != EMBEDDED_SHA256:
            raise InputError(f"the embedded corpus {_EMBEDDED_FILE} is damaged; install tuneopt again")
        with resource.open("rb") as stream, lzma.open(stream) as text:
            yield from text_documents(text, _EMBEDDED_FILE)


@dataclass(frozen=True, slots=True)
class FileSource:
    """Text files below ``root`` (a folder, or one file), in the order of their relative paths."""

    root: Path
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The folder's name, or the file's without its ending."""
        name = self.root.name if self.root.is_dir() else self.root.stem
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "corpus"

    def stamp(self) -> str:
        """Covers paths, sizes and times of all files. Reading every byte would cost minutes for a large corpus."""
        listing = []
        for path in self.paths:
            with readable(path):
                status = path.stat()
            # The change time also tells a file that was replaced by one of equal size and restored modification time.
            # Nanoseconds as text: they exceed the whole numbers that JSON readers hold exactly.
            listing.append([str(path), status.st_size, str(status.st_mtime_ns), str(status.st_ctime_ns)])
        return hashlib.sha256(canonical_json(listing).encode()).hexdigest()

    def documents(self) -> Iterator[str]:
        """The documents of all files; raises `InputError` for a file that cannot be read."""
        for path in self.paths:
            with readable(path):
                yield from READERS[ending(path)](path)


Source = EmbeddedSource | FileSource
"""What is prepared: a short ``name`` for people and file names, a ``stamp`` of the text, and its ``documents``."""


def find_source(name_or_path: str) -> Source:
    """The corpus of that name, else the one at that path.

    Raises `InputError` when there is no such path, or nothing in it that can be read.
    """
    if name_or_path == EMBEDDED:
        return EmbeddedSource()
    try:
        root = Path(name_or_path).expanduser().resolve()
        found = bool(name_or_path) and root.exists()
        paths = tuple(sorted(_text_files(root), key=lambda path: path.relative_to(root).parts)) if found else ()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot read corpus {name_or_path!r}: {error}; give a folder of {_ENDINGS} files") from None
    if not found:
        raise InputError(
            f"no corpus {name_or_path!r}, neither a known name ({nearest(name_or_path, [EMBEDDED])}) nor a path; "
            f"give a folder or file of {_ENDINGS} text"
        )
    if not paths:
        raise InputError(f"no {_ENDINGS} file in corpus {str(root)!r}; bring its text into one of these forms")
    return FileSource(root, paths)


def _text_files(root: Path) -> Iterator[Path]:
    """Readable files at or below ``root``; hidden files and folders are left out."""
    for path in root.rglob("*") if root.is_dir() else (root,):
        shown = not any(part.startswith(".") for part in path.relative_to(root).parts)
        if shown and ending(path) and path.is_file():
            yield path
