"""What a report is made from: sweeps of a ledger, a table of results, the published study, or several of them.

Each source becomes typed runs once, here; the analysis never sees where a run came from. The sweeps of a ledger say
which runs stand for their optimizers (`tuneopt.analysis.runs.Role`). Losses are compared only where sources name the
same corpus: rows that name none get their source's name when there is a second source.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuneopt.analysis.inputs import Inputs, load
from tuneopt.analysis.inputs import published as published_study
from tuneopt.analysis.runs import Role, TrainingRun, from_records, one_name_each
from tuneopt.ledger import Ledger
from tuneopt.reporting.study import ALONE, StudyView, SweepView, read_study
from tuneopt.reporting.text import count_text, plural, shareable
from tuneopt.spec import InputError, Regime

PUBLISHED = "published"
"""The name of the published study's runs, and of their corpus, where there is another source."""

_LEDGER_ID = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class Origin:
    """One source by name, with what identifies it."""

    name: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Material:
    """All that a report rests on.

    ``study`` holds the replayed sweeps, None without a ledger. ``options`` are the words of the command line that name
    the sources, after those of the command.
    """

    study: StudyView | None
    inputs: Inputs
    origins: tuple[Origin, ...]
    options: tuple[str, ...]
    command_words: tuple[str, ...] = ("report",)

    @property
    def command(self) -> str:
        """The command that makes the report again, from the folder that the sources lie in."""
        return shlex.join(["tuneopt", *self.command_words, *self.options])


def gather(
    ledger: Ledger | None = None,
    sweeps: Sequence[str] | None = None,
    results: Path | None = None,
    published: bool = False,
    columns: Mapping[str, str] | None = None,
    example: bool = False,
) -> Material:
    """Read the sources; raises `InputError` for none at all and for what cannot be read.

    With ``example`` the ledger is the one that ships with tuneopt (`tuneopt.reporting.example`), and is named so.

    ``columns`` maps the names of the results' columns (`tuneopt.analysis.columns.headings`).
    """
    study = None if ledger is None else read_study(ledger, sweeps)
    # Each source, and the name and the corpus that its runs get where there is another source and they have none.
    parts: list[tuple[Inputs, str, str]] = []
    origins: list[Origin] = []
    options: list[str] = []
    if study is not None and ledger is not None:
        inputs = _of_study(study)
        parts.append((inputs, "", ""))
        facts = (("sweeps", str(len(study.views))), ("trials", f"{len(inputs.runs):,}"))
        where = shareable(ledger.address)
        origins.append(Origin("the example that ships with tuneopt" if example else f"ledger {where}",
                              facts))  # fmt: skip
        options += ["--example"] if example else ["--ledger", where]
    if results is not None:
        inputs = load(results, columns)
        # A file with the name of another source's corpus is about another text, as far as anybody knows.
        taken = {run.regime.corpus for part, _, _ in parts for run in part.runs} | ({PUBLISHED} if published else set())
        parts.append((inputs, results.stem, f"file: {results.stem}" if results.stem in taken else results.stem))
        with results.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        origins.append(Origin(f"file {results.name}", (("SHA-256", digest), *counts(inputs))))
        options += ["--results", shareable(str(results))]
        options += [word for name, column in (columns or {}).items() for word in ("--columns", f"{name}={column}")]
    if published:
        inputs = published_study(further=True)
        parts.append((inputs, PUBLISHED, PUBLISHED))
        origins.append(Origin(inputs.source, counts(inputs)))
        options.append("--published")
    if not parts:
        raise InputError("there is nothing to report on; give --ledger, --results or --published")
    return Material(study, parts[0][0] if len(parts) == 1 else _merge(parts), tuple(origins), tuple(options))


def _of_study(study: StudyView) -> Inputs:
    """Every trial that the sweeps needed: incumbents are candidates, starts are replicates, all others were explored.

    A start counts for the noise once the incumbent was run with as many seeds. A trial of several sweeps is what it
    is in the one that makes most of it. Where a study ran what its tuning ended on with further seeds, that stands and
    the tuning's own incumbent does not: one lucky run would beat the mean of many.
    """
    # A winner is not looked for among a sweep's trials: the sweep has said which one it is.
    records = {trial: record for view in study.views for trial, record in view.needed.items()}
    roles = dict.fromkeys(records, Role.EXPLORED)
    confirmed = {_place(view) for view in study.views if view.phase != ALONE and not view.sweep.space.varied}
    for view in study.views:
        for record in view.start if len(view.winner) >= len(view.start) else ():
            roles[record.trial] = max(roles[record.trial], Role.REPLICATE)
        tuning = view.phase != ALONE and view.sweep.space.varied and _place(view) in confirmed
        for record in () if tuning else view.winner:
            roles[record.trial] = Role.CANDIDATE
    return Inputs(from_records(records.values(), roles), "ledger")


def _place(view: SweepView) -> tuple[str, Regime]:
    return view.optimizer, view.sweep.regime


def _merge(parts: Sequence[tuple[Inputs, str, str]]) -> Inputs:
    """Several sources as one: runs carry their source's name, and its corpus where their rows name none.

    A table exported from a ledger has that ledger's trials, which count once, as the ledger has them.
    """
    runs: list[TrainingRun] = []
    notes = [note for inputs, _, _ in parts for note in inputs.notes]
    for inputs, name, corpus in parts:
        held = {run.trial: run for run in runs if _LEDGER_ID.fullmatch(run.trial)}
        again = [run for run in inputs.runs if run.trial in held]
        if again:
            other = sum(run.report_loss != held[run.trial].report_loss for run in again)
            notes.append(
                f"trials of {name} that the ledger holds count once ({len(again)})"
                + (f"; {other} of them have another loss there, and the ledger's stands" if other else "")
            )
        runs += [
            replace(run, trial=f"{name}: {run.trial}", regime=run.regime._replace(corpus=run.regime.corpus or corpus))
            if name
            else run
            for run in inputs.runs
            if run.trial not in held
        ]
    trials = tuple(trial for inputs, _, _ in parts for trial in inputs.trials)
    targets = tuple(sorted({target for inputs, _, _ in parts for target in inputs.targets}))
    doubts = tuple(doubt for inputs, _, _ in parts for doubt in inputs.doubts)
    source = ", ".join(inputs.source for inputs, _, _ in parts)
    return Inputs(tuple(one_name_each(runs)), source, tuple(notes), trials, targets, doubts)


def counts(inputs: Inputs) -> tuple[tuple[str, str], ...]:
    """How much a source holds, as facts of its origin."""
    finished = sum(run.status == "completed" for run in inputs.runs)
    if inputs.trials:
        names, tasks = ({getattr(trial, part) for trial in inputs.trials} for part in ("optimizer", "task"))
        return (("trials", str(len(inputs.trials))), ("optimizers", str(len(names))), ("tasks", str(len(tasks))))
    return (
        ("runs", f"{plural(len(inputs.runs), 'run')}, {count_text(finished)} with a comparable loss"),
        ("optimizers", str(len({run.optimizer for run in inputs.runs}))),
        ("regimes", str(len({run.regime for run in inputs.runs}))),
    )
