"""What an analysis starts from: the runs of a ledger, of a table from elsewhere, or of the published study.

A table is a CSV, JSON (a list of objects, or one object per line) or Parquet file, a pyarrow table, or rows. Files are
read within limits, because a report may be asked of a file that nobody here wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tuneopt.analysis.columns import check_rows, parse
from tuneopt.analysis.runs import CurveSample, TrainingRun, from_records
from tuneopt.ledger import Ledger
from tuneopt.search.space import load_space, space_names
from tuneopt.spec import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    Rows: TypeAlias = pa.Table | Iterable[Mapping[str, Any]] | Iterable[TrainingRun]

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")

LARGEST_FILE = {".csv": 256 << 20, ".json": 64 << 20, ".jsonl": 64 << 20, ".parquet": 256 << 20}
"""Bytes that a results file may have, by its ending: as Python values JSON takes twenty times its size."""

LARGEST_UNPACKED = 256 << 20
"""Bytes that a Parquet file may unpack to: a few bytes of it can stand for a billion."""

_ROWS = 256
"""Rows unpacked at a time: small enough that one batch of longest cells stays within a few hundred megabytes."""

LARGEST_CELL = 1 << 20
"""Bytes of a text in a Parquet file; a learning curve of 10,000 points as JSON has half of it."""

PUBLISHED = "the published study (arXiv 2509.02046)"

PUBLISHED_NOTES = (
    "the published tables give one tuned run per optimizer and regime, with one seed: noise is assumed, not measured",
    "the published tables hold no learning curves, seconds, memory or untuned trials, so flips during training, costs, "
    "sensitivity, blind transfer and the under-tuned baseline are shown only as far as tuned points coincide",
)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Runs of all statuses and roles.

    ``source`` names where they come from; ``notes`` are sentences on what the source does not say.
    """

    runs: tuple[TrainingRun, ...]
    source: str
    notes: tuple[str, ...] = ()


def from_ledger(ledger: Ledger) -> Inputs:
    """All records of a ledger, every one a candidate; a report lets sweeps name theirs (`tuneopt.report.sources`)."""
    return Inputs(from_records(ledger.records()), "ledger")


def from_rows(rows: Rows, source: str = "rows", curves: pa.Table | None = None, notes: Iterable[str] = ()) -> Inputs:
    """Any table, rows, or runs that were read before; raises `InputError` for rows that are no results.

    ``curves`` may bring learning curves apart, with the columns trial, fraction, select_loss and report_loss
    (`Ledger.curves`); they replace those of the runs that they name.
    """
    runs = read_runs(rows)
    if curves is not None:
        points: dict[str, list[CurveSample]] = {}
        columns = (curves[name].to_pylist() for name in ("trial", *CurveSample._fields))
        for trial, *sample in zip(*columns, strict=True):
            points.setdefault(trial, []).append(CurveSample(*sample))
        runs = tuple(
            replace(run, curve=tuple(sorted(points[run.trial], key=lambda sample: sample.fraction)))
            if run.trial in points
            else run
            for run in runs
        )
    return Inputs(runs, source, tuple(notes))


def as_inputs(source: Inputs | Ledger | str | Path | Rows, curves: pa.Table | None = None) -> Inputs:
    """Whatever the functions of this package take, as `Inputs`: a text or path is a results file."""
    if isinstance(source, Inputs):
        return source
    if isinstance(source, Ledger):
        return from_ledger(source)
    return load(source) if isinstance(source, str | Path) else from_rows(source, curves=curves)


def published() -> Inputs:
    """The study of Wen et al. (arXiv 2509.02046): loss and configuration of each optimizer's tuned run in each regime.

    It comes from the search-space modules, each of which carries the tuned points of its optimizer, so that a first
    look needs no training.
    """
    rows = [
        {
            "optimizer": name,
            "scale": point.scale,
            "ratio": point.ratio,
            "loss": point.loss,
            "config": point.config,
            "trial": f"published {name} {point.scale}/{point.ratio:g}x",
        }
        for name in space_names()
        for point in load_space(name).published
    ]
    return from_rows(rows, source=PUBLISHED, notes=PUBLISHED_NOTES)


def read_runs(source: Rows) -> tuple[TrainingRun, ...]:
    """Runs of any table or rows (columns: `tuneopt.analysis.columns`), or runs as they are.

    Raises `InputError` naming the row and what is wrong with it.
    """
    rows: list[Any] = source.to_pylist() if hasattr(source, "to_pylist") else list(source)
    return tuple(rows) if rows and all(isinstance(row, TrainingRun) for row in rows) else parse(rows)


def load(path: str | Path) -> Inputs:
    """The runs of a results file (columns: `tuneopt.analysis.columns`), or of an exported ledger table.

    Raises `InputError` when the file cannot be read or a row is no result.
    """
    return from_rows(read_results(path), source=f"file {Path(path).name}")


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a results file, for `read_runs`; raises `InputError` when it cannot be read."""
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
        raise  # it is a ValueError too, and says more than the sentence below
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
