"""Documents out of one file, streamed, one document in memory at a time; or out of a range of it.

A ``.txt`` file is one document, or several with a line ``<|endoftext|>`` between them. A ``.jsonl`` file holds one JSON
object per line, a ``.parquet`` file one document per row; their text is the column that was asked for, else ``text``,
or the only string column. The first two may be compressed (``.jsonl.zst``, ``.txt.gz``; ``.json.gz`` counts as lines
too). Empty documents and nulls are skipped. Every reader raises `InputError` for what it cannot read, naming file and
line.

A range of a text file holds the documents whose first byte, or separator, lies in it: ranges that tile a file give each
document once. So any process can read any part of a file, and a corpus does not depend on how many there are.

The layers, from below: a stream of bytes (`_opened`, `_decompressed`), raw lines (`_raw_lines`), numbered lines of text
(`_lines`), documents (`_separated` for text, `_rows` for JSON). Errors name a line by its number, which a `Where` turns
into words: for a range it first counts the lines before.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tuneopt.errors import of_system
from tuneopt.paths import other_kind
from tuneopt.spec import InputError

END_OF_TEXT = "<|endoftext|>"
"""The line between two documents of a text file, and the token after every document."""

TEXT_COLUMN = "text"
"""The column of the text where none is asked for, as data sets name it."""

HEAD_ROWS, HEAD_BYTES = 1000, 1 << 20
"""Rows of JSON, and bytes of them, from which the column of the text is chosen where none is asked for and none is
called ``text``. The choice is made once: one for each row would take any text of a row that has lost its own."""

MAX_LINE = 1 << 28
"""Longest line in bytes: a document, or a line of one. A file without line breaks must not fill the memory."""

_CODECS = {".zst": "zstd", ".gz": "gzip"}
"""pyarrow's names of the compressions, by the last ending of a file name."""

_ROWS = 256
"""Parquet rows that are decoded at a time: bounds memory, whatever the row groups."""

Where = Callable[[int], str]
"""From a line's number to the words that say where it is."""


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """One sentence, an `InputError`, for whatever keeps a file from being read."""
    try:
        if kind := other_kind(path):
            raise InputError(f"cannot read {path}: it is {kind}, not a plain file; leave it out")
        yield
    except OSError as error:
        raise InputError(f"cannot read {of_system(error, path)}") from None
    except (pa.ArrowException, UnicodeDecodeError) as error:  # text files name line and cause themselves
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable Parquet file ({reason}); write it again or leave it out") from None


def _raw_lines(stream: IO[bytes], where: Where) -> Iterator[bytes]:
    """Lines as bytes, each read whole; one that is too long is refused before it fills the memory."""
    for number, raw in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), 1):
        if len(raw) > MAX_LINE:
            raise InputError(f"{where(number)}: a line of more than {MAX_LINE >> 20} MiB; break it up")
        yield raw


def _lines(stream: Iterable[bytes], where: Where, start: bool = True) -> Iterator[tuple[int, str]]:
    """Numbered lines, from 1, decoded one by one so that an error names its line; line ends become ``\\n``."""
    for number, raw in enumerate(stream, 1):
        try:
            line = raw.decode("utf-8-sig" if start and number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{where(number)}: not UTF-8 text; convert the file to UTF-8") from None
        yield number, line[:-2] + "\n" if line.endswith("\r\n") else line


def text_documents(stream: Iterable[bytes], where: str) -> Iterator[str]:
    """Documents of a text stream, without the line breaks next to a separator."""
    yield from _separated(stream, lambda number: f"{where}:{number}")


def _separated(stream: Iterable[bytes], where: Where, start: bool = True) -> Iterator[str]:
    """Documents between separators; ``start`` says whether the first line is that of the file, which may have a BOM."""
    lines: list[str] = []
    for _, line in _lines(stream, where, start):
        if line.strip() == END_OF_TEXT:
            yield from document(lines)
            lines = []
        else:
            lines.append(line)
    yield from document(lines)


def document(lines: list[str]) -> Iterator[str]:
    """The one document of some lines, without line breaks around it; none where there is no text."""
    text = "".join(lines).strip("\n")
    if text and not text.isspace():
        yield text


def read_txt(path: Path, column: str | None = None) -> Iterator[str]:
    """Documents of a ``.txt`` file; it has no columns, so none is looked for."""
    with _opened(path) as stream:
        where = _places(path)
        yield from _separated(_raw_lines(stream, where), where)


def read_jsonl(path: Path, column: str | None = None) -> Iterator[str]:
    """Documents of a ``.jsonl`` file, one per line; blank lines are skipped."""
    column = column or json_column(path)
    with _opened(path) as stream:
        where = _places(path)
        yield from _rows(_raw_lines(stream, where), where, column)


def json_column(path: Path) -> str:
    """The column of the text of a ``.jsonl`` file: ``text``, or the only one with strings in the first rows.

    Raises `InputError` where several have strings, or a row cannot be read.
    """
    with _opened(path) as stream:
        where = _places(path)
        return _chosen_column(_head(_lines(_raw_lines(stream, where), where)), where)


def _head(lines: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """The first numbered lines that are not blank, up to `HEAD_ROWS` and `HEAD_BYTES`."""
    head: list[tuple[int, str]] = []
    size = 0
    for number, line in lines:
        if line.strip():
            head.append((number, line))
            size += len(line)
        if len(head) >= HEAD_ROWS or size >= HEAD_BYTES:
            break
    return head


def _chosen_column(head: Iterable[tuple[int, str]], where: Where) -> str:
    strings: dict[str, None] = {}
    nulls: dict[str, None] = {}
    for number, line in head:
        row = _json_row(line, where(number), None)
        if TEXT_COLUMN in row:
            return TEXT_COLUMN
        strings.update(dict.fromkeys(key for key, value in row.items() if isinstance(value, str)))
        nulls.update(dict.fromkeys(key for key, value in row.items() if value is None))
        if len(strings) > 1:
            raise InputError(_no_column(where(number), TEXT_COLUMN, {**strings, **row}))
    # Rows of nulls alone have lost their text, and are skipped like a null text.
    return next(iter(strings or (nulls if len(nulls) == 1 else {})), TEXT_COLUMN)


def jsonl_stream(stream: IO[bytes], name: str, column: str | None = None) -> Iterator[str]:
    """Documents of an open ``.jsonl`` file from anywhere, decompressed by the ending of its name."""

    def where(number: int) -> str:
        return f"{name}:{number}"

    with _decompressed(stream, name) as lines:
        raw = _raw_lines(lines, where)
        if column is None:  # from the beginning of what cannot be read twice
            first: list[bytes] = []
            column = _chosen_column(_head(_lines(_kept(raw, first), where)), where)
            raw = chain(first, raw)
        yield from _rows(raw, where, column)


def _kept(lines: Iterable[bytes], seen: list[bytes]) -> Iterator[bytes]:
    """The lines, each of which is also put into ``seen``."""
    for line in lines:
        seen.append(line)
        yield line


def txt_range(path: Path, start: int, stop: int) -> Iterator[str]:
    """The documents of a ``.txt`` file whose separator begins at bytes ``start`` to ``stop`` - 1; the first at 0.

    A document belongs to the range of the separator in front of it, and is read to its end, beyond ``stop`` as well.
    """
    with path.open("rb") as stream:
        where = _places(path, start)
        lines = _raw_lines(stream, where)
        _seek_line(stream, start)
        skipped = 0
        while start:  # to the first separator: what stands before it belongs to the range before
            begin, raw = stream.tell(), next(lines, b"")
            skipped += 1
            if not raw or begin >= stop:
                return
            if raw.strip() == END_OF_TEXT.encode():
                break
        yield from _separated(_to_separator(stream, lines, stop), lambda number: where(skipped + number), not start)


def _to_separator(stream: IO[bytes], lines: Iterator[bytes], stop: int) -> Iterator[bytes]:
    """Lines up to the first separator that begins at ``stop`` or after it."""
    while True:
        begin, raw = stream.tell(), next(lines, b"")
        if not raw or (begin >= stop and raw.strip() == END_OF_TEXT.encode()):
            return
        yield raw


def jsonl_range(path: Path, start: int, stop: int, column: str | None = None) -> Iterator[str]:
    """The documents of a ``.jsonl`` file whose lines begin at bytes ``start`` to ``stop`` - 1."""
    column = column or json_column(path)  # from the beginning of the file, whatever the range
    with path.open("rb") as stream:
        where = _places(path, start)
        _seek_line(stream, start)
        lines = _raw_lines(stream, where)
        yield from _rows(iter(lambda: next(lines, b"") if stream.tell() < stop else b"", b""), where, column, not start)


def _seek_line(stream: IO[bytes], start: int) -> None:
    """Go to the first line that begins at ``start`` or after it."""
    if start:  # from the byte before: a line that begins right at ``start`` is not to be passed over
        stream.seek(start - 1)
        while (piece := stream.readline(1 << 20)) and not piece.endswith(b"\n"):
            pass


def _places(path: Path, start: int = 0) -> Where:
    """Line numbers of the whole file, also where reading began at byte ``start``.

    The lines before it are counted when there is an error to name, and never otherwise.
    """

    def where(number: int) -> str:
        before = 0
        if start:
            with path.open("rb") as stream:
                _seek_line(stream, start)
                left = stream.tell()
                stream.seek(0)
                while left > 0 and (block := stream.read(min(left, 1 << 20))):
                    before += block.count(b"\n")
                    left -= len(block)
        return f"{path}:{before + number}"

    return where


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file as bytes, decompressed by its ending."""
    packed = path.suffix.lower() in _CODECS
    with _decompressed(str(path), str(path)) if packed else path.open("rb") as stream:
        yield stream


@contextmanager
def _decompressed(source: str | IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """An open file or a path, decompressed by the ending of ``name``, which errors name as well.

    By pyarrow: Python's gzip is slower, and 3.11 has no zstd. Its streams have no `readline`, so io buffers them.
    Raises `InputError` for what cannot be decompressed, and for a compressed file that was never written.
    """
    codec = _CODECS.get(Path(name.partition("?")[0]).suffix.lower())
    with io.BufferedReader(pa.input_stream(source, compression=codec), 1 << 20) as stream:
        try:
            # pyarrow takes an empty file for text without a byte; whole ones have a head at least.
            nothing = codec and not stream.peek(1)
            if nothing and not (Path(source).stat().st_size if isinstance(source, str) else source.tell()):
                raise InputError(f"{name}: an empty file is no compressed one; get the file again or leave it out")
            yield stream
        except (OSError, pa.ArrowException) as error:
            reason, done = str(error).splitlines()[0], "decompressed" if codec else "read"
            raise InputError(f"{name}: cannot be {done} ({reason}); get the file again") from None


def _rows(stream: Iterable[bytes], where: Where, column: str, start: bool = True) -> Iterator[str]:
    """Documents of lines of JSON."""
    for number, line in _lines(stream, where, start):
        if line.strip():
            yield from document([_json_text(line, number, where, column)])


def _json_row(line: str, where: str, column: str | None) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not valid JSON; write one JSON object per line") from None
    if not isinstance(row, dict):
        raise InputError(
            f"{where}: not a JSON object; write one object with a string {column or TEXT_COLUMN!r} per line"
        )
    return row


def _json_text(line: str, number: int, where: Where, name: str) -> str:
    """The text of one row, empty where it is null; raises `InputError` that names the line and the cause."""
    row = _json_row(line, where(number), name)
    if name not in row:
        raise InputError(_no_column(where(number), name, row))
    # Python's json keeps the last of two equal keys. The row's own pairs are what the hook is given last.
    escaped = re.search(r"\\u00[2-7]", line)  # a key may spell letters so, which no writer does without need
    if (escaped or line.count(f'"{name}"') > 1) and [key for key, _ in json.loads(line, object_pairs_hook=list)].count(
        name
    ) > 1:
        raise InputError(f"{where(number)}: {name!r} is given twice; keep one")
    text = row[name]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise InputError(f"{where(number)}: {name!r} holds {kind_of(text)}, not a string; name the column of the text")
    if not text.isascii():  # JSON can spell out half of a surrogate pair, which no tokenizer takes
        try:
            text.encode()
        except UnicodeEncodeError:
            fault = "half of a surrogate pair is no text; write the character itself"
            raise InputError(f"{where(number)}: {fault}") from None
    return text


def kind_of(value: object) -> str:
    """What a value that should be a text is, in words."""
    if isinstance(value, bool):
        return "true or false"
    kinds = {int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _no_column(where: str, name: str, there: Iterable[str]) -> str:
    listed = ", ".join(map(repr, there)) or "none"
    return f"{where}: no string column {name!r} among {listed}; rename the one with the text"


def read_parquet(path: Path, column: str | None = None, groups: Iterable[int] | None = None) -> Iterator[str]:
    """Documents of a ``.parquet`` file, or of some of its row groups, one per row; null rows are skipped."""
    with readable(path), pq.ParquetFile(path) as file:
        name = _text_column(file.schema_arrow, path, column)
        some: dict[str, Any] = {} if groups is None else {"row_groups": list(groups)}
        for rows in file.iter_batches(batch_size=_ROWS, columns=[name], use_threads=False, **some):
            for text in rows.column(0).to_pylist():
                if text is not None:
                    yield from document([text])


def _text_column(schema: pa.Schema, path: Path, column: str | None) -> str:
    """The column that was asked for, else ``text``, else the only column of strings there is."""
    kinds = (field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema)
    strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    names = [str(name) for name, kind in zip(schema.names, kinds, strict=True) if any(fits(kind) for fits in strings)]
    if column is None and len(names) == 1 and TEXT_COLUMN not in schema.names:
        return names[0]
    name = column or TEXT_COLUMN
    if schema.names.count(name) > 1:
        raise InputError(f"{path}: two columns are called {name!r}; give one of them another name")
    if name not in schema.names:
        raise InputError(_no_column(str(path), name, schema.names))
    if name not in names:
        kind = str(schema.field(name).type)[:80]
        raise InputError(f"{path}: the column {name!r} is of {kind} and not of strings; write it as strings")
    return name


def check_columns(paths: Iterable[Path]) -> None:
    """Raise `InputError` unless the files of one source have their text in one column, where none is asked for."""
    first: tuple[Path, str] | None = None
    for path in paths:
        reader = READERS[ending(path)]
        if reader is read_txt:
            continue
        with readable(path):
            column = json_column(path) if reader is read_jsonl else _text_column(pq.read_schema(path), path, None)
        first = first or (path, column)
        if column != first[1]:
            raise InputError(
                f"the text of {first[0]} is in {first[1]!r} and that of {path} in {column!r}; give them one name"
            )


READERS: dict[str, Callable[..., Iterator[str]]] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    **{f".txt{codec}": read_txt for codec in _CODECS},
    **{f"{kind}{codec}": read_jsonl for kind in (".jsonl", ".json") for codec in _CODECS},
}
"""Reader of a path, with the text's column if one is asked for, by file name ending."""


def ending(path: Path) -> str:
    """The ending of a file name that decides how it is read, the longest; empty for a file that no reader knows."""
    name = path.name.lower()
    return max((known for known in READERS if name.endswith(known)), key=len, default="")
