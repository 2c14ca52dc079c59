"""Files of results: CSV, JSON (a list of objects, or one object a line) and Parquet, read within limits into rows.

A report may be asked of a file that nobody here wrote. So what is ambiguous (a column or key twice) is refused, text is
UTF-8 whatever the machine's own encoding is, and cells of a CSV stay the text that they are: ``1e3`` and ``1000`` may
be the names of two runs (`tuneopt.analysis.rows` knows which columns hold numbers).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from tuneopt import checked
from tuneopt.analysis.rows import EXPORTED, check_rows
from tuneopt.errors import of_system
from tuneopt.paths import read_plain
from tuneopt.spec import InputError

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")

LARGEST_FILE = {".csv": 256 << 20, ".tsv": 256 << 20, ".json": 64 << 20, ".jsonl": 64 << 20, ".parquet": 256 << 20}
"""Bytes that a results file may have, by its ending: as Python values JSON takes twenty times its size."""

LARGEST_UNPACKED = 256 << 20
"""Bytes that a Parquet file may unpack to: a few bytes of it can stand for a billion."""

_ROWS = 256
"""Rows unpacked at a time: small enough that one batch of longest cells stays within a few hundred megabytes."""

LARGEST_CELL = 1 << 20
"""Bytes of a text in a Parquet file; a learning curve of 10,000 points as JSON has half of it."""

DELIMITERS = (",", ";", "\t", "|")
"""What may part the cells of a CSV; the header says which one does."""


NO_TEXT = {
    **dict.fromkeys(
        (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"), ("no text but a compressed file", "unpack it first")
    ),
    b"PK\x03\x04": ("no text but a workbook or archive", "unpack it, or save it as CSV"),
    b"\xd0\xcf\x11\xe0": ("no text but a workbook", "save it as CSV"),
    b"PAR1": ("no text but Parquet", "let its name end in .parquet"),
    b"<": ("a web page or XML, and no table", "save the table itself"),
}
"""How files begin that are called ``.csv`` or ``.json`` by mistake: what they are, and what helps."""

_NEWLINE = r"\r\n|[\r\n]"

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
"""Endings of compressed files, which are not unpacked here: a few bytes of them can stand for a disk."""


class FileRows(NamedTuple):
    """The rows of a file, and whether semicolons part its cells, as they do where the comma is the decimal mark."""

    rows: list[dict[str, Any]]
    semicolons: bool = False


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a results file, for `read_runs`; raises `InputError` when it cannot be read."""
    return read_file(path).rows


def read_file(path: str | Path) -> FileRows:
    """The rows of a results file and how its cells were parted; raises `InputError` when it cannot be read."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        first = "unpack it first, and " if suffix in PACKED else ""
        raise InputError(
            f"cannot read results from {path.name!r}; {first}give a file that ends in {', '.join(SUFFIXES)}"
        )
    try:
        most = LARGEST_FILE[suffix]
        if path.stat().st_size > most:
            raise InputError(
                f"the results file {str(path)!r} is larger than {most >> 20} MiB; split it, or drop columns"
            )
        if not path.is_file():  # after the size: of what is not there `stat` says so
            raise InputError(f"the results file {str(path)!r} is no plain file; name a file")
        read = _csv(path) if suffix in (".csv", ".tsv") else FileRows(_rows(path))
    except FileNotFoundError:
        raise InputError(f"there is no results file {str(path)!r}; check the path") from None
    except InputError:
        raise  # it is a ValueError too, and says more than the sentence below
    except (
        OSError,
        ValueError,
        RuntimeError,
        csv.Error,
    ) as error:  # pyarrow raises all of these for a damaged Parquet file
        if isinstance(error, OSError) and error.errno is not None:
            raise of_system(error, path) from None
        reason = " ".join(str(error).split())[:160]
        cure = "save it as UTF-8" if "utf" in reason.lower() else "check what it holds"
        raise InputError(f"the results file {str(path)!r} cannot be read ({reason}); {cure}") from None
    if not read.rows:
        raise InputError(f"the results file {str(path)!r} holds no row; give one row per finished run")
    return read


def _csv(path: Path) -> FileRows:
    """The rows of a CSV; all cells are texts, but those of a ledger's own table, whose columns have known types.

    Rows and columns without a name in which nothing stands are left out: spreadsheets write them at the ends.
    """
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    from tuneopt.ledger.table import FIXED

    data = _text_bytes(path)
    start = data[: 1 << 20]  # enough for the names of the columns, whatever the size of the file
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = start.decode(encoding, errors="replace")
    first = text.lstrip("\r\n")
    empty = len(re.findall(_NEWLINE, text[: len(text) - len(first)]))
    told = re.match(r"\"?sep=([,;\t|])\"?(\r\n|[\r\n])", first)  # a line for Excel alone
    header = _first_line(first[told.end() :] if told else first)
    if header.startswith(("[", "{")):
        raise InputError(f"the results file {str(path)!r} holds JSON; let its name end in .json")
    # By the header alone: texts in cells may hold any of the marks, names of columns seldom do.
    counts = _outside_quotes(header)
    parted = told[1] if told else max(DELIMITERS, key=lambda mark: counts[mark])  # the first of equals: the comma
    if header.startswith("#"):
        begins = f"begins with a comment, {header[:40]!r}"
        raise InputError(f"the results file {str(path)!r} {begins}; let it begin with the names of the columns")
    names = next(csv.reader(io.StringIO(header, newline=""), delimiter=parted), [])
    _refuse_twice(name for name in names if name)
    _refuse_open_quotes(path, data, encoding, parted)
    # Texts, and not what pyarrow would guess: it would read the name 007 as the number 7.
    exported = set(names) >= EXPORTED
    # Counts too: pandas writes those of a column with a null in it as 604872704.0.
    kinds = {field.name: pa.string() if pa.types.is_integer(field.type) else field.type for field in FIXED}
    table = arrow_csv.read_csv(
        pa.BufferReader(data),
        read_options=arrow_csv.ReadOptions(
            encoding="utf-16" if encoding == "utf-16" else "utf8", skip_rows=empty + 1 if told else 0
        ),
        parse_options=arrow_csv.ParseOptions(delimiter=parted, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(column_types=kinds if exported else dict.fromkeys(names, pa.string())),
    )
    check_rows(table.num_rows)
    if "" in table.column_names:
        kept = [place for place, name in enumerate(table.column_names) if name or any(table[place].to_pylist())]
        table = table.select(kept)
        _refuse_twice(table.column_names)
    rows = table.to_pylist()
    return FileRows([row for row in rows if any(cell not in (None, "") for cell in row.values())], parted == ";")


def _refuse_open_quotes(path: Path, data: bytes, encoding: str, parted: str) -> None:
    """Raise `InputError` for a quotation mark at the beginning of a cell that swallows whole rows up to the next one.

    pyarrow would take them for the text of that one cell, without a word.
    """
    if b'"' not in data:
        return
    reader = csv.reader(io.StringIO(data.decode(encoding), newline=""), delimiter=parted, strict=True)
    limit = csv.field_size_limit(len(data))  # the module's own setting, put back below
    try:
        while True:
            begun = reader.line_num + 1
            try:
                next(reader)
            except StopIteration:
                return
            except csv.Error:
                if reader.line_num > begun:  # it ran on over lines; other faults pyarrow takes, or names itself
                    raise InputError(
                        f"the results file {str(path)!r} has a cell in line {begun} that begins with a quotation mark "
                        'and does not end with one; close it, or double each mark that is text ("")'
                    ) from None
    finally:
        csv.field_size_limit(limit)


def _first_line(text: str) -> str:
    """The first line of a CSV; one that ends inside of a quoted name goes on in the next."""
    marks = seen = 0
    for end in re.finditer(_NEWLINE, text):
        marks += text.count('"', seen, end.start())
        seen = end.start()
        if marks % 2 == 0:
            return text[:seen]
    return re.split(_NEWLINE, text, maxsplit=1)[0]  # a mark that nothing closes, which is refused further on


def _outside_quotes(line: str) -> Counter[str]:
    """How often each character stands in a line outside of double quotes."""
    return Counter("".join(line.split('"')[::2]))


def _refuse_twice(names: Iterable[str]) -> None:
    """Raise `InputError` for a column that a table has twice: of the two one would silently be lost."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice and not twice[0].strip():  # a title, or a heading over several columns
        raise InputError(
            "the first line of the results does not name every column; let it, and leave out what stands above it"
        )
    if twice:
        raise InputError(f"the results have the column {checked.shown(twice[0])} twice; keep one")


def _rows(path: Path) -> list[dict[str, Any]]:
    match path.suffix.lower():
        case ".parquet":
            rows = _parquet_rows(path)
        case ".jsonl":
            text = _text(path)
            rows = _objects(text) if text.lstrip().startswith("[") else _lines(text)
        case _:
            rows = _objects(_text(path))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"the results file {str(path)!r} must hold a list of objects, one per finished run, as pandas writes it "
            "with orient='records'"
        )
    return rows


def _lines(text: str) -> list[Any]:
    # Not str.splitlines: a line separator (U+2028) may stand inside of a text.
    return [_json(line) for line in re.split(_NEWLINE, text) if line.strip()]


def _objects(text: str) -> Any:
    """What a JSON file holds; one object a line is read as that, whatever the file is called."""
    try:
        return _json(text)
    except json.JSONDecodeError as error:
        if not error.msg.startswith("Extra data"):
            raise
        return _lines(text)


def _text(path: Path) -> str:
    return _text_bytes(path).decode("utf-8-sig")


def _text_bytes(path: Path) -> bytes:
    """The bytes of a file that should hold text; raises `InputError` for what is no text, and says what it is."""
    data = read_plain(path, LARGEST_FILE[path.suffix.lower()])
    for begin, (what, cure) in NO_TEXT.items():
        if data.startswith(begin):
            raise InputError(f"the results file {str(path)!r} is {what}; {cure}")
    if data[:2] not in (b"\xff\xfe", b"\xfe\xff") and b"\0" in data[:64]:
        raise InputError(f"the results file {str(path)!r} holds zero bytes, as UTF-16 has them; save it as UTF-8")
    return data


def _json(text: str) -> Any:
    """JSON without a key twice in an object; Python's reader would keep the last one without a word."""

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        plain = dict(pairs)
        if len(plain) != len(pairs):
            _refuse_twice(name for name, _ in pairs)
        return plain

    return json.loads(text, object_pairs_hook=no_repeats)


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file, a few at a time, so that one that unpacks to too much is refused on the way.

    Metadata of single columns is left alone: pyarrow ends the whole process where it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        check_rows(file.metadata.num_rows)
        _refuse_twice(file.schema_arrow.names)
        # Texts stay in their dictionaries, where a long one that a million rows repeat is held once.
        texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
    rows: list[dict[str, Any]] = []
    unpacked = 0
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(batch_size=_ROWS):
            unpacked += batch.nbytes
            if unpacked > LARGEST_UNPACKED:
                raise InputError(f"the results unpack to more than {LARGEST_UNPACKED >> 20} MiB; split the table")
            columns = [_values(column, name) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
            rows += [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows


def _values(column: Any, name: str) -> list[Any]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column.validate(full=True)  # damaged data can point outside of its dictionary
    if pa.types.is_float32(column.type):  # 0.1 is 0.1 there too, and not 0.10000000149
        column = column.cast(pa.string()).cast(pa.float64())
    if not pa.types.is_dictionary(column.type):
        return [_plain(value, name, pa.types.is_map(column.type)) for value in column.to_pylist()]
    if (pc.max(pc.binary_length(column.dictionary)).as_py() or 0) > LARGEST_CELL:
        raise InputError(f"the results hold a {name} of more than {LARGEST_CELL >> 20} MiB; shorten it")
    words = column.dictionary.to_pylist()
    return [None if index is None else words[index] for index in column.indices.to_pylist()]


def _plain(value: Any, name: str, is_map: bool) -> Any:
    """A value of a Parquet file as JSON would hold it: Spark writes texts as bytes, and objects as maps."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InputError(f"the column {checked.shown(name)} holds bytes that are no UTF-8; drop it") from None
    return dict(value) if is_map and value is not None else value
