"""What an analysis starts from: the runs of a ledger, of a table from elsewhere, or of the published study.

A table is a file (`tuneopt.analysis.results`), a pyarrow table, or rows; what its columns mean is said in
`tuneopt.analysis.columns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tuneopt.analysis.results import read_file
from tuneopt.analysis.rows import ParsedTable, parse
from tuneopt.analysis.runs import CurveSample, TrainingRun, from_records
from tuneopt.analysis.targets import TargetTrial
from tuneopt.ledger import Ledger
from tuneopt.search.space import load_space, space_names

if TYPE_CHECKING:
    import pyarrow as pa

    Rows: TypeAlias = pa.Table | Iterable[Mapping[str, Any]] | Iterable[TrainingRun]

PUBLISHED = "the published study (arXiv 2509.02046)"

PUBLISHED_NOTES = (
    "the published tables give one tuned run per optimizer and regime, with one seed: noise is assumed, not measured",
    "the published tables hold no learning curves, seconds, memory or untuned trials, so flips during training, costs, "
    "sensitivity, blind transfer and the under-tuned baseline are shown only as far as tuned points coincide",
)

FURTHER_NOTE = (
    "the runs at 1.2b and at 16x, of four optimizers, were made at hyperparameters predicted from the twelve tuned "
    "regimes (the study's released results)"
)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Runs of all statuses and roles.

    ``source`` names where they come from; ``notes`` are sentences on what the source does not say, ``doubts`` those of
    them that a report warns of. ``trials`` are those of a log of races to a target, ``targets`` the target losses
    (nats) that the rows name.
    """

    runs: tuple[TrainingRun, ...]
    source: str
    notes: tuple[str, ...] = ()
    trials: tuple[TargetTrial, ...] = ()
    targets: tuple[float, ...] = ()
    doubts: tuple[str, ...] = ()


def from_ledger(ledger: Ledger) -> Inputs:
    """All records of a ledger, each a candidate; a report lets sweeps name theirs (`tuneopt.reporting.sources`)."""
    return Inputs(from_records(ledger.records()), "ledger")


def from_rows(
    rows: Rows,
    source: str = "rows",
    curves: pa.Table | None = None,
    notes: Iterable[str] = (),
    columns: Mapping[str, str] | None = None,
) -> Inputs:
    """Any table, rows, or runs that were read before; raises `InputError` for rows that are no results.

    ``columns`` maps the names of its columns (`tuneopt.analysis.columns.headings`).

    ``curves`` may bring learning curves apart, with the columns trial, fraction, select_loss and report_loss
    (`Ledger.curves`); they replace those of the runs that they name.
    """
    table = _table(rows, columns)
    runs = table.runs
    if curves is not None:
        points: dict[str, list[CurveSample]] = {}
        parts = [curves[name].to_pylist() for name in ("trial", *CurveSample._fields)]
        for trial, *sample in zip(*parts, strict=True):
            points.setdefault(trial, []).append(CurveSample(*sample))
        runs = tuple(
            replace(run, curve=tuple(sorted(points[run.trial], key=lambda sample: sample.fraction)))
            if run.trial in points
            else run
            for run in runs
        )
    return Inputs(runs, source, (*notes, *table.notes), table.trials, table.targets, table.doubts)


def as_inputs(source: Inputs | Ledger | str | Path | Rows, curves: pa.Table | None = None) -> Inputs:
    """Whatever the functions of this package take, as `Inputs`: a text or path is a results file."""
    if isinstance(source, Inputs):
        return source
    if isinstance(source, Ledger):
        return from_ledger(source)
    return load(source) if isinstance(source, str | Path) else from_rows(source, curves=curves)


def published(further: bool = False) -> Inputs:
    """The study of Wen et al. (arXiv 2509.02046): loss and configuration of each optimizer's tuned run in each regime.

    It comes from the search-space modules, each of which carries the tuned points of its optimizer, so that a first
    look needs no training. With ``further`` the runs at 1.2b and at 16 times Chinchilla are in it too, without their
    hyperparameters: those were predicted and not tuned, so nothing may be fitted to them.
    """
    rows: list[dict[str, Any]] = [
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
    if further:
        rows += [
            {**run._asdict(), "optimizer": name, "trial": f"published {name} {run.scale}/{run.ratio:g}x"}
            for name in space_names()
            for run in load_space(name).further
        ]
    return from_rows(rows, source=PUBLISHED, notes=(*PUBLISHED_NOTES, *([FURTHER_NOTE] if further else [])))


def read_runs(source: Rows) -> tuple[TrainingRun, ...]:
    """Runs of any table or rows (columns: `tuneopt.analysis.columns`), or runs as they are.

    Raises `InputError` naming the row and what is wrong with it.
    """
    return _table(source).runs


def load(path: str | Path, columns: Mapping[str, str] | None = None) -> Inputs:
    """The runs of a results file (columns: `tuneopt.analysis.columns`), or of an exported ledger table.

    ``columns`` maps the names of its columns. Raises `InputError` when the file cannot be read or a row is no result.
    """
    read = read_file(path)
    table = parse(read.rows, columns, read.semicolons)
    return Inputs(table.runs, f"file {Path(path).name}", table.notes, table.trials, table.targets, table.doubts)


def _table(source: Rows, columns: Mapping[str, str] | None = None) -> ParsedTable:
    rows: list[Any] = source.to_pylist() if hasattr(source, "to_pylist") else list(source)
    if rows and all(isinstance(row, TrainingRun) for row in rows):
        return ParsedTable(tuple(rows))
    return parse(rows, columns)
