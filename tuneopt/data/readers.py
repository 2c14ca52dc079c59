"""Documents out of one file: ``.txt``, ``.jsonl`` or ``.parquet``, streamed, one document in memory at a time.

A ``.txt`` file is one document, or several with a line ``<|endoftext|>`` between them. A ``.jsonl`` file holds one JSON
object per line, a ``.parquet`` file one document per row; their text is the column ``text``, or the only string column.
Empty documents are skipped. Every reader raises `InputError` for a file that it cannot read, naming file and line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tuneopt.spec import InputError

END_OF_TEXT = "<|endoftext|>"
"""The line between two documents of a text file, and the token after every document."""

TEXT_COLUMN = "text"
_ROWS = 256  # Parquet rows decoded at a time: bounds memory, whatever the row groups


def _lines(stream: Iterable[bytes], where: str) -> Iterator[tuple[int, str]]:
    """Numbered lines, from 1, decoded one by one so that an error names its line; line ends become ``\\n``."""
    for number, raw in enumerate(stream, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{where}:{number}: not UTF-8 text; convert the file to UTF-8") from None
        yield number, line[:-2] + "\n" if line.endswith("\r\n") else line


def text_documents(stream: Iterable[bytes], where: str) -> Iterator[str]:
    """Documents of a text stream, without the line breaks next to a separator."""
    lines: list[str] = []
    for _, line in _lines(stream, where):
        if line.strip() == END_OF_TEXT:
            yield from _document(lines)
            lines = []
        else:
            lines.append(line)
    yield from _document(lines)


def _document(lines: list[str]) -> Iterator[str]:
    text = "".join(lines).strip("\n")
    if text and not text.isspace():
        yield text


def read_txt(path: Path) -> Iterator[str]:
    """Documents of a ``.txt`` file."""
    with path.open("rb") as stream:
        yield from text_documents(stream, str(path))


def read_jsonl(path: Path) -> Iterator[str]:
    """Documents of a ``.jsonl`` file, one per line; blank lines are skipped."""
    with path.open("rb") as stream:
        for number, line in _lines(stream, str(path)):
            if line.strip():
                yield from _document([_json_text(line, f"{path}:{number}")])


def _json_text(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not valid JSON; write one JSON object per line") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object; write one object with a string {TEXT_COLUMN!r} per line")
    names = [name for name, value in row.items() if isinstance(value, str)]
    name = TEXT_COLUMN if TEXT_COLUMN in row else names[0] if len(names) == 1 else None
    if name is None or not isinstance(row[name], str):
        raise InputError(
            f"{where}: no string column {TEXT_COLUMN!r} among {_listed(row)}; rename the one with the text"
        )
    text = str(row[name])
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: half of a surrogate pair is no text; write the character itself") from None
    return text


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def read_parquet(path: Path) -> Iterator[str]:
    """Documents of a ``.parquet`` file, one per row; null rows are skipped."""
    try:
        with pq.ParquetFile(path) as file:
            column = _text_column(file.schema_arrow, path)
            for rows in file.iter_batches(batch_size=_ROWS, columns=[column]):
                for text in rows.column(0).to_pylist():
                    if text is not None:
                        yield from _document([text])
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable Parquet file ({reason}); write it again or leave it out") from None


def _text_column(schema: pa.Schema, path: Path) -> str:
    names = [field.name for field in schema if _is_string(field.type)]
    if TEXT_COLUMN in names:
        return TEXT_COLUMN
    if len(names) == 1 and TEXT_COLUMN not in schema.names:
        return str(names[0])
    raise InputError(
        f"{path}: no string column {TEXT_COLUMN!r} among {_listed(schema.names)}; rename the one with the text"
    )


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


READERS: dict[str, Callable[[Path], Iterator[str]]] = {
    ".txt": read_txt,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}
"""Reader by file name ending."""
