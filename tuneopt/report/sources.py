"""What a report is made from: sweeps of a ledger, a table of results, the published study, or several of them.

Losses are compared only where sources name the same corpus: rows that name none get their source's name when there is
a second source beside it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tuneopt.analysis.inputs import Inputs, from_ledger
from tuneopt.analysis.load import load
from tuneopt.analysis.published import published as published_study
from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.ledger import table as tables
from tuneopt.report.study import StudyView, read_study
from tuneopt.report.text import count_text, plural
from tuneopt.spec import InputError

CURVES = ("trial", "fraction", "select_loss", "report_loss")
"""Columns of curves that the analysis reads."""


@dataclass(frozen=True)
class Origin:
    """One source by name, with what identifies it."""

    name: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Material:
    """All that a report rests on.

    ``study`` holds the replayed sweeps, None without a ledger. ``judged`` are the trials among which results are
    chosen: of a sweep those of its incumbent and of its start. ``options`` are the words of the command line that name
    the sources.
    """

    study: StudyView | None
    inputs: Inputs
    judged: frozenset[str] | None
    origins: tuple[Origin, ...]
    options: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that makes the report again."""
        return shlex.join(["tuneopt", "report", *self.options])


def gather(
    ledger: Ledger | None = None,
    sweeps: Sequence[str] | None = None,
    results: Path | None = None,
    published: bool = False,
) -> Material:
    """Read the sources; raises `InputError` for none at all and for what cannot be read."""
    study = None if ledger is None else read_study(ledger, sweeps)
    parts: list[tuple[Inputs, Origin, str]] = []
    options: list[str] = []
    judged: frozenset[str] | None = None
    if study is not None and ledger is not None:
        found, judged = _of_study(study)
        parts.append((found, _ledger_origin(ledger, study), ""))
        options += ["--ledger", ledger.uri]
    if results is not None:
        found = load(results)
        parts.append((found, _file_origin(results, found), results.stem))
        options += ["--results", str(results)]
    if published:
        found = published_study()
        parts.append((found, Origin(found.source, _counts(found)), "published"))
        options.append("--published")
    if not parts:
        raise InputError("there is nothing to report on; give --ledger, --results or --published")
    inputs = _merge(parts)
    if judged is not None:
        judged |= {run.trial for part, _, name in parts if name for run in _apart(part, name).runs}
    return Material(study, inputs, judged, tuple(origin for _, origin, _ in parts), tuple(options))


def _of_study(study: StudyView) -> tuple[Inputs, frozenset[str]]:
    """Every trial of the sweeps, and the ids of those that stand for them.

    The runs of the start count for the noise, once the winner was run with as many seeds.
    """
    judged: dict[str, TrialRecord] = {}
    for view in study.views:
        confirmed = len(view.winner) >= len(view.start)
        judged |= {record.trial: record for record in (*view.winner, *(view.start if confirmed else ()))}
    every = {trial: record for view in study.views for trial, record in view.every.items()}
    table = tables.build([tables.row(record) for record in every.values()])
    return from_ledger(table, _curves(every)), frozenset(judged)


def _curves(records: Mapping[str, TrialRecord]) -> pa.Table:
    """The learning curves of all records, `CURVES` for columns."""
    columns: dict[str, list[Any]] = {name: [] for name in CURVES}
    for trial, record in records.items():
        steps = record.spec.steps
        for point in record.curve:
            values = (trial, point.step / steps, point.select_loss, point.report_loss)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return pa.table(columns, schema=pa.schema([tables.CURVES.field(name) for name in CURVES]))


def _merge(parts: Sequence[tuple[Inputs, Origin, str]]) -> Inputs:
    if len(parts) == 1:
        return parts[0][0]
    named = [_apart(inputs, name) if name else inputs for inputs, _, name in parts]
    curves = [part.curves.select(CURVES) for part in named if part.curves is not None]
    return Inputs(
        runs=tuple(run for part in named for run in part.runs),
        curves=pa.concat_tables(curves, promote_options="permissive") if curves else None,
        source=", ".join(part.source for part in named),
        notes=tuple(note for part in named for note in part.notes),
    )


def _apart(inputs: Inputs, name: str) -> Inputs:
    """A source whose trials carry its name, and its corpus too where the rows name none."""
    runs = tuple(
        replace(run, trial=f"{name}: {run.trial}", regime=run.regime._replace(corpus=run.regime.corpus or name))
        for run in inputs.runs
    )
    curves = inputs.curves
    if curves is not None:
        trials = pc.binary_join_element_wise(pa.scalar(f"{name}: "), curves.column("trial"), "")
        curves = curves.set_column(curves.schema.get_field_index("trial"), "trial", trials)
    return replace(inputs, runs=runs, curves=curves)


def _counts(inputs: Inputs) -> tuple[tuple[str, str], ...]:
    finished = sum(run.status == "completed" for run in inputs.runs)
    return (
        ("runs", f"{plural(len(inputs.runs), 'run')}, {count_text(finished)} with a comparable loss"),
        ("optimizers", str(len({run.optimizer for run in inputs.runs}))),
        ("regimes", str(len({run.regime for run in inputs.runs}))),
    )


def _file_origin(path: Path, inputs: Inputs) -> Origin:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Origin(f"file {path.name}", (("SHA-256", digest), *_counts(inputs)))


def _ledger_origin(ledger: Ledger, study: StudyView) -> Origin:
    trials = len({trial for view in study.views for trial in view.every})
    return Origin(f"ledger {ledger.uri}", (("sweeps", str(len(study.views))), ("trials", f"{trials:,}")))
