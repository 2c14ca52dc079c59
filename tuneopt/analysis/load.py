"""Results from a file: CSV, JSON (a list of objects, or one object per line) or Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuneopt.analysis.columns import check_rows
from tuneopt.analysis.inputs import Inputs, from_rows
from tuneopt.spec import InputError

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")

LARGEST_FILE = {".csv": 256 << 20, ".json": 64 << 20, ".jsonl": 64 << 20, ".parquet": 256 << 20}
"""Bytes that a results file may have, by its ending: as Python values JSON takes twenty times its size."""

LARGEST_UNPACKED = 256 << 20
"""Bytes that a Parquet file may unpack to: a few bytes of it can stand for a billion."""

_ROWS = 256
"""Rows unpacked at a time."""

LARGEST_CELL = 1 << 20
"""Bytes of a text in a Parquet file; a learning curve of 10,000 points as JSON has half of it."""


def load(path: str | Path) -> Inputs:
    """The runs and curves of a results file (columns: `tuneopt.analysis.columns`), or of an exported ledger table.

    Raises `InputError` when the file cannot be read or a row is no result.
    """
    return from_rows(read_results(path), source=f"file {Path(path).name}")


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a results file, for `tuneopt.analysis.runs.read_runs`; raises `InputError` when it cannot be read."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot read results from {path.name!r}; give a file that ends in {', '.join(SUFFIXES)}")
    try:
        most = LARGEST_FILE[path.suffix.lower()]
        if path.stat().st_size > most:
            raise InputError(
                f"the results file {str(path)!r} is larger than {most >> 20} MiB; split it, or drop columns"
            )
        rows = _rows(path)
    except FileNotFoundError:
        raise InputError(f"there is no results file {str(path)!r}; check the path") from None
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # pyarrow raises all of these for a damaged Parquet file
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"the results file {str(path)!r} cannot be read ({reason}); check what it holds") from None
    if not rows:
        raise InputError(f"the results file {str(path)!r} holds no row; give one row per finished run")
    return rows


def _rows(path: Path) -> list[dict[str, Any]]:
    match path.suffix.lower():
        case ".csv":
            import pyarrow.csv

            table = pyarrow.csv.read_csv(path)
            check_rows(table.num_rows)
            rows = table.to_pylist()
        case ".parquet":
            rows = _parquet_rows(path)
        case ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        case _:
            rows = json.loads(path.read_text())
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"the results file {str(path)!r} must hold a list of objects, one per finished run")
    return rows


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file, a few at a time, so that one that unpacks to too much is refused on the way.

    Metadata of single columns is left alone: pyarrow ends the whole process where it is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        check_rows(file.metadata.num_rows)
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
    if not pa.types.is_dictionary(column.type):
        return list(column.to_pylist())
    if (pc.max(pc.binary_length(column.dictionary)).as_py() or 0) > LARGEST_CELL:
        raise InputError(f"the results hold a {name} of more than {LARGEST_CELL >> 20} MiB; shorten it")
    words = column.dictionary.to_pylist()
    return [None if index is None else words[index] for index in column.indices.to_pylist()]
