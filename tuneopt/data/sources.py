"""Where a corpus comes from: the embedded text, a folder or file of the user's, or texts that Python code holds.

A source knows its name, a stamp that changes when its text may have changed, and how to stream its documents as often
as they are wanted, always in the same order. The stamp stands in the name of the prepared folder: text that changed is
prepared anew, beside the older corpus, and nothing is ever compared or overwritten.
"""

from __future__ import annotations

import filecmp
import hashlib
import io
import json
import lzma
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from tuneopt.data.readers import READERS, TEXT_COLUMN, check_columns, document, ending, readable, text_documents
from tuneopt.errors import why
from tuneopt.paths import scratch_folder
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
        check_columns(self.paths)
        for path in self.paths:
            with readable(path):
                yield from READERS[ending(path)](path)

    def left_out(self) -> str:
        """What else is in the folder, in a sentence: text under an ending that no reader knows would go unnoticed.

        Hidden files are nobody's text.
        """
        others: Counter[str] = Counter()
        for _, folders, names in os.walk(self.root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            paths = (Path(name) for name in names if not name.startswith("."))
            others.update(path.suffix or "no ending" for path in paths if not ending(path))
        kinds = ", ".join(f"{count} of {kind}" for kind, count in others.most_common(6))
        return f"files in {self.root} are left out ({kinds}): only {_ENDINGS} are read" if others else ""


Source = EmbeddedSource | FileSource
"""What is prepared: a short ``name`` for people and file names, a ``stamp`` of the text, and its ``documents``."""


def find_source(name_or_path: str) -> Source:
    """The corpus of that name, else the one at that path.

    Raises `InputError` when there is no such path, or nothing in it that can be read.
    """
    if name_or_path == EMBEDDED:
        return EmbeddedSource()
    try:
        root = _place(name_or_path)
        found = bool(name_or_path) and root.exists()
        paths = tuple(sorted(_text_files(root), key=lambda path: path.relative_to(root).parts)) if found else ()
    except (OSError, ValueError, RuntimeError) as error:
        reason = why(error) if isinstance(error, OSError) else error
        raise InputError(f"cannot read corpus {name_or_path!r}: {reason}; give a folder of {_ENDINGS} files") from None
    if not found:
        raise InputError(
            f"no corpus {name_or_path!r}, neither a known name ({nearest(name_or_path, [EMBEDDED])}) nor a path; "
            f"give a folder or file of {_ENDINGS} text"
        )
    if not paths:
        raise InputError(f"no {_ENDINGS} file in corpus {str(root)!r}; bring its text into one of these forms")
    return FileSource(root, paths)


def _place(name_or_path: str) -> Path:
    """The path without links, unless it is the link that has the ending, as in the cache of a hub."""
    given = Path(name_or_path).expanduser()
    root = given.resolve()
    return given.absolute() if root.is_file() and not ending(root) and ending(given) else root


def _text_files(root: Path) -> Iterator[Path]:
    """Readable files at or below ``root``; hidden files and folders are left out."""
    if root.is_dir():
        yield from files_below(root)
    elif ending(root):
        yield root


def files_below(root: Path) -> Iterator[Path]:
    """Files below a folder that a reader knows by their ending, those in linked folders as well; hidden ones not.

    Raises `InputError` for what has such an ending and is no file, a link to nothing say: text that is meant to be in a
    corpus is never left out without a word.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(root, followlinks=True, onerror=_refuse):
        facts = Path(place).stat()
        if (facts.st_dev, facts.st_ino) in seen:  # by another link, or a link to a folder above
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        # What is there itself before what links lead to: a link to a neighbour changes nothing.
        shown = [name for name in folders if not name.startswith(".")]
        folders[:] = sorted(shown, key=lambda name: (Path(place, name).is_symlink(), name))
        for name in sorted(names):
            path = Path(place) / name
            if name.startswith(".") or not ending(path):
                continue
            if not path.exists():
                raise InputError(f"{path} is a link to nothing; mend or remove it")
            yield path


def _refuse(error: OSError) -> NoReturn:
    raise error


def keep_texts(texts: Iterable[Any], folder: Path) -> Path:
    """Write the texts that Python code holds into a file of ``folder`` that is named by their content.

    ``texts`` is a `datasets.Dataset`, or gives each document as a string or as a mapping with a column ``text`` (or one
    column of strings alone). It is gone through once, so a generator will do. Empty documents and nulls are left out,
    as they are of files. The same texts in the same order give the same file, which is not written again unless it was
    damaged. Raises `InputError` for anything else, and for what holds no text.
    """
    # What iterates, and not over its documents in an order that is always the same.
    strange = (str, bytes, Mapping, Set, io.IOBase)
    if isinstance(texts, strange) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
        mend = ", such as corpus['train']" if isinstance(texts, Mapping) else ""
        raise InputError(
            f"a corpus is a name, a path, a datasets.Dataset or an iterable of texts, not {_article(texts)}; give a "
            f"list, a column or a split of texts{mend}"
        )
    content = hashlib.sha256()
    with scratch_folder(folder, ".texts-") as scratch:
        made = scratch / "texts.jsonl"
        with made.open("wb") as aside:
            for line in _json_lines(texts):
                content.update(line)
                aside.write(line)
        if not made.stat().st_size:
            raise InputError("the corpus holds no text; give an iterable of texts that are not empty")
        target = folder / f"texts-{content.hexdigest()[:12]}.jsonl"
        # A whole one that is there stays: what was prepared from it goes by its time.
        if not (target.is_file() and filecmp.cmp(made, target, shallow=False)):
            made.replace(target)
    return target


def _json_lines(texts: Iterable[Any]) -> Iterator[bytes]:
    """The documents as lines of a ``.jsonl`` file."""
    features = getattr(texts, "features", None)
    column = ""
    if isinstance(features, Mapping):  # a data set: of its columns, which may be images, only the text is decoded
        kinds = {name: getattr(feature, "dtype", "") for name, feature in features.items()}
        column = _column([name for name, kind in kinds.items() if "string" in str(kind)], kinds)
        texts = texts.select_columns(column)  # type: ignore[attr-defined]
    for number, given in enumerate(texts, 1):
        text = given
        if isinstance(given, Mapping):
            column = column or _column([name for name, value in given.items() if isinstance(value, str)], given)
            text = given.get(column)
        if text is None or text != text:  # pandas writes a missing text as NaN
            continue
        if not isinstance(text, str):
            raise InputError(f"document {number} of the corpus is {_article(text)}, not a text; give strings")
        for whole in document([text]):
            try:
                yield json.dumps({TEXT_COLUMN: whole}, ensure_ascii=False).encode() + b"\n"
            except UnicodeEncodeError:
                raise InputError(
                    f"document {number} of the corpus holds half of a surrogate pair, which is no text; write the "
                    "character itself"
                ) from None


def _column(strings: list[str], there: Iterable[str]) -> str:
    """The column of the documents: ``text``, or the only one with strings; raises `InputError` where there are more."""
    if TEXT_COLUMN in there:
        return TEXT_COLUMN
    if len(strings) != 1:
        raise InputError(
            f"the corpus has no column {TEXT_COLUMN!r} but {', '.join(map(repr, there))}; give one column of strings, "
            "such as corpus['NAME'] or corpus.select_columns('NAME')"
        )
    return strings[0]


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
