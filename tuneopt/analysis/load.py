"""Results from a file: CSV, JSON (a list of objects, or one object per line) or Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuneopt.analysis.inputs import Inputs, from_rows
from tuneopt.spec import InputError

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")

LARGEST_FILE = 1 << 30
"""Bytes that a results file may have."""


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
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"the results file {str(path)!r} is larger than 1 GiB; split it, or drop columns")
        rows = _rows(path)
    except FileNotFoundError:
        raise InputError(f"there is no results file {str(path)!r}; check the path") from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # pyarrow's errors and JSON's are ValueErrors
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"the results file {str(path)!r} cannot be read ({reason}); check what it holds") from None
    if not rows:
        raise InputError(f"the results file {str(path)!r} holds no row; give one row per finished run")
    return rows


def _rows(path: Path) -> list[dict[str, Any]]:
    match path.suffix.lower():
        case ".csv":
            import pyarrow.csv

            rows = pyarrow.csv.read_csv(path).to_pylist()
        case ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        case ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        case _:
            rows = json.loads(path.read_text())
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"the results file {str(path)!r} must hold a list of objects, one per finished run")
    return rows
