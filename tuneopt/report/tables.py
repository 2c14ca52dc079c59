"""The tables of a sweep, as texts in rows: what was tuned, which moves it took, what it claims and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuneopt.analysis import importance
from tuneopt.report.blocks import NamedValues, Table
from tuneopt.report.figures.path import PathInfo
from tuneopt.report.study import SweepView
from tuneopt.report.text import (
    NONE,
    bytes_text,
    change_text,
    changes_text,
    count_text,
    duration_text,
    listed,
    loss_text,
    percent_text,
    plural,
    value_text,
)
from tuneopt.spec import Value


def hyperparameters(view: SweepView) -> Table:
    """Start and best value of every hyperparameter, with the grid it was searched on."""
    descent, space = view.state.descent, view.sweep.space
    rows = []
    for name, best in descent.incumbent:
        axis = space.by_name.get(name)
        start = space.value(space.start, name)
        tried: list[Value] = list(axis.values) if axis else []
        tried += [change.value for change in descent.star if change.coordinate == name and change.value not in tried]
        edge = "on an edge" if name in descent.certificate.edges else "" if axis is None or axis.held else "inside"
        if axis and axis.numeric and not axis.held and best in (axis.off, axis.low, axis.high):
            edge = "at its bound" if best != axis.off else "off"
        varied = "held" if axis is None or axis.held else ", ".join(value_text(value) for value in _ascending(tried))
        rows.append((name, value_text(start), value_text(best), "changed" if best != start else "", varied, edge))
    rows.sort(key=lambda row: row[4] == "held")
    heads = ("hyperparameter", "start", "best", "", "values tried around the best", "on the grid")
    return Table("Best configuration", heads, tuple(rows), frozenset({1, 2}))


def _ascending(values: Sequence[Value]) -> list[Value]:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return sorted(values, key=float) if numbers else list(values)


def moves(info: PathInfo) -> Table:
    """The incumbents, one to a row."""
    return Table(
        "Moves",
        ("", "wave", "move", "what changed", "select loss (nats)", "gain (nats)"),
        tuple(
            (str(number), str(stand.wave), stand.kind, changes_text(stand.changes) or NONE, loss_text(stand.loss),
             NONE if stand.loss is None or stand.before is None else f"{stand.before - stand.loss:.4f}")
            for number, stand in enumerate(info.stands)
        ),
        frozenset({0, 1, 4, 5}),
        f"A move must gain more than the tolerance of {info.tolerance:.4f} nats.",
    )  # fmt: skip


def certificate(view: SweepView) -> NamedValues:
    """What the certificate claims, and on what it rests."""
    state, descent = view.state, view.state.descent
    status = Counter(change.status for change in descent.star)
    near = sum(
        change.loss is not None
        and descent.incumbent_loss is not None
        and abs(change.loss - descent.incumbent_loss) <= state.tolerance
        for change in descent.star
    )
    best = min((change.loss for change in descent.star if change.loss is not None), default=None)
    margin = None if best is None or descent.incumbent_loss is None else best - descent.incumbent_loss
    measured = f"max({view.sweep.tolerance_floor:g}, 1.645 \u221a2 \u03c3) = {state.tolerance:.4f} nats"
    return NamedValues(
        "Certificate",
        (
            ("complete", "yes" if descent.certificate.complete and state.finished else "no"),
            ("tolerance", measured),
            ("noise between seeds \u03c3", "not measured" if state.sigma is None else
             f"{state.sigma:.4f} nats, from {len(view.start)} seeds of the start"),
            ("changes in the star", ", ".join(f"{count} {name}" for name, count in sorted(status.items())) or "none"),
            ("within the tolerance", f"{near} of {len(descent.star)}"),
            ("best change", NONE if margin is None else f"{change_text(margin)} nats to the incumbent"),
            ("on an edge", listed(descent.certificate.edges) or "no coordinate"),
            ("could not be run", str(descent.certificate.missing)),
            ("policy, waves, moves", f"{view.sweep.policy}, {state.progress.waves}, {len(descent.path)}"),
        ),
    )  # fmt: skip


def importances(view: SweepView) -> Table | None:
    """What set the best trials of the sweep apart, coordinate by coordinate; None where too few trials tell."""
    found = importance.importances(view.sweep, view.every.values())
    if found is None:
        return None
    rows = tuple((each.coordinate, percent_text(each.share), str(each.values)) for each in found.entries)
    return Table(
        "What the best trials owe their losses to",
        ("coordinate", "share of importance", "values tried"),
        rows,
        frozenset({1, 2}),
        f"{found.evaluator} (Optuna) over {found.trials} trials of this sweep: where the best {found.best} lie "
        f"(loss up to {found.bar:.4f} nats) against where all lie. The star above says what one change costs "
        "at the best configuration; this says what mattered anywhere.",
    )


def _wall(view: SweepView, seconds: float) -> str:
    """Its runs' seconds by the clock; a sweep of a study shares them with the others."""
    if view.runs and not any("wall_seconds" in run for run in view.runs):
        return "shared with the other sweeps of its study"
    return f"{duration_text(seconds)} in {plural(len(view.runs), 'run')}" if view.runs else NONE


def budget(view: SweepView) -> NamedValues:
    """What the sweep cost."""
    records, progress = list(view.every.values()), view.state.progress
    parts = ("train", "eval", "startup", "checkpoint")
    seconds = {part: view.device_seconds(part) for part in parts}
    total = sum(seconds.values())
    wall = sum(float(run.get("wall_seconds") or 0) for run in view.runs)
    room = sum(float(run.get("wall_seconds") or 0) * float(run.get("slots") or 0) for run in view.runs)
    busy = sum(float(run.get("busy_seconds") or 0) for run in view.runs)
    reused = sum(trial not in view.launched for trial in view.records) if view.runs else None
    return NamedValues(
        "Budget",
        (
            ("trials", f"{progress.done} done, {progress.diverged} diverged, {progress.unproven} unproven, "
                       f"{len(view.state.pending)} to run"),
            ("not run by this sweep", NONE if reused is None else f"{reused} reused"),
            ("launched ahead, not needed", str(len(view.ahead))),
            ("training tokens", count_text(sum(record.tokens for record in records))),
            ("training FLOPs", count_text(sum(record.flops for record in records))),
            ("device time", f"{duration_text(total)} ({total / 3600:.3g} device-hours)"),
            ("of which", ", ".join(f"{part} {percent_text(spent / total)}" for part, spent in seconds.items())
             if total else NONE),
            ("wall time", _wall(view, wall)),
            ("slot utilisation", percent_text(busy / room) if room else NONE),
            ("peak memory of a trial", bytes_text(max((r.peak_bytes for r in records if r.peak_bytes), default=None))),
            ("checkpoint", bytes_text(max((r.checkpoint_bytes for r in records if r.checkpoint_bytes), default=None))),
        ),
        "FLOPs count training, not evaluation; utilisation is the seconds inside training and evaluation over wall "
        "seconds times slots.",
    )  # fmt: skip
