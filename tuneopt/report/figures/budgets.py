"""What tuning was spent on: trials by optimizer and coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import position
from tuneopt.report.rows import shortened
from tuneopt.report.study import SweepView
from tuneopt.report.text import count_text, duration_text, plain, plural
from tuneopt.search.standing import Standing, Task
from tuneopt.search.study.spent import AHEAD, JOINT, SEEDS, START, Spent, spent

ROW = 26
"""Pixels of a row."""

SHADES = ((0.0, "rgba(8,116,179,0.05)"), (1.0, "rgba(8,116,179,0.55)"))
"""From no share to the largest; see-through, so that they read on both pages."""

ORDER = (START, JOINT, SEEDS, AHEAD)
"""What stands for no coordinate, above the coordinates."""


@dataclass(frozen=True)
class BudgetsInfo:
    """The budget record of sweeps: each trial once, for the coordinate that it was spent on."""

    rows: tuple[Spent, ...]

    title = "What tuning was spent on"
    reading = (
        "Each number counts the trials that an optimizer had for a coordinate, in all regimes together, and the shade "
        "is their share of its device time; equal care shows as columns that look alike."
    )

    @property
    def optimizers(self) -> tuple[str, ...]:
        """In the palette's order."""
        return tuple(sorted({row.optimizer for row in self.rows}, key=position))

    @property
    def purposes(self) -> tuple[str, ...]:
        """What trials were spent on: starts, combinations and reruns first, then coordinates, most trials first."""
        trials: dict[str, int] = {}
        for row in self.rows:
            trials[row.coordinate] = trials.get(row.coordinate, 0) + row.trials
        names = sorted(set(trials) - set(ORDER), key=lambda name: (-trials[name], name))
        return (*(word for word in ORDER if word in trials), *names)

    def cell(self, optimizer: str, purpose: str) -> Spent | None:
        """All phases of an optimizer on one purpose together."""
        held = [row for row in self.rows if (row.optimizer, row.coordinate) == (optimizer, purpose)]
        if not held:
            return None
        return Spent(
            optimizer,
            "",
            purpose,
            trials=sum(row.trials for row in held),
            diverged=sum(row.diverged for row in held),
            tokens=sum(row.tokens for row in held),
            flops=sum(row.flops for row in held),
            device_seconds=sum(row.device_seconds for row in held),
        )

    def seconds(self, optimizer: str) -> float:
        """Device seconds of an optimizer."""
        return sum(row.device_seconds for row in self.rows if row.optimizer == optimizer)

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per optimizer, phase and purpose."""
        columns = ("optimizer", "phase", "spent_on", "trials", "diverged", "tokens", "flops", "device_seconds")
        return columns, [
            (row.optimizer, row.phase, row.coordinate, row.trials, row.diverged, row.tokens, row.flops,
             row.device_seconds)
            for row in self.rows
        ]  # fmt: skip


def budgets_info(views: Sequence[SweepView]) -> BudgetsInfo | None:
    """The budget record of the sweeps of a report; None before any trial has ended."""
    from tuneopt.search.records import ended

    standings = {
        view.id: Standing(Task(view.sweep, view.phase), view.state, (), tuple(view.records), True, True)
        for view in views
    }
    records = {trial: record for view in views for trial, record in view.every.items()}
    told = {trial: ended(record) for trial, record in records.items()}
    rows = spent(
        standings,
        {trial: each.outcome for trial, each in told.items()},
        {trial: each.seconds for trial, each in told.items()},
        {trial: view.id for view in views for trial in view.ahead},
    )
    return BudgetsInfo(rows) if rows else None


def draw_budgets(info: BudgetsInfo) -> Drawing:
    """A heat map with the numbers of trials written in, their sum at the foot of each column."""
    names, purposes = info.optimizers, info.purposes
    grid = [[info.cell(name, purpose) for name in names] for purpose in purposes]
    drawing = Drawing(ROW * len(purposes) + 120, "optimizer, and trials in all", "spent on")
    drawing.traces.append(
        {
            "type": "heatmap",
            "x": list(range(len(names))),
            "y": list(range(len(purposes))),
            "z": [[_share(info, cell) for cell in cells] for cells in grid],
            "customdata": [[plain(_hover(info, cell)) for cell in cells] for cells in grid],
            "hovertemplate": "%{customdata}<extra></extra>",
            "colorscale": [list(step) for step in SHADES],
            "zmin": 0.0,
            "showscale": False,
            "xgap": 2,
            "ygap": 2,
            "hoverongaps": False,
        }
    )
    for row, cells in enumerate(grid):
        for column, cell in enumerate(cells):
            if cell is not None:  # notes, not the map's own text: they take the ink of the page
                drawing.note(f"{cell.trials:,}", x=column, y=row, font={"size": 11})
    totals = [sum(row.trials for row in info.rows if row.optimizer == name) for name in names]
    drawing.across.update(
        tickmode="array", tickvals=list(range(len(names))), showgrid=False, tickangle=-40,
        ticktext=[f"{plain(shortened(name))} {total:,}" for name, total in zip(names, totals, strict=True)],
    )  # fmt: skip
    drawing.up.update(
        tickmode="array", tickvals=list(range(len(purposes))), ticktext=[plain(shortened(each)) for each in purposes],
        showgrid=False, autorange="reversed",
    )  # fmt: skip
    return drawing


def _share(info: BudgetsInfo, cell: Spent | None) -> float | None:
    if cell is None:
        return None
    whole = info.seconds(cell.optimizer)
    return cell.device_seconds / whole if whole else 0.0


def _hover(info: BudgetsInfo, cell: Spent | None) -> str:
    if cell is None:
        return "no trial"
    share = _share(info, cell) or 0.0
    return (
        f"{cell.optimizer}, {cell.coordinate}: {plural(cell.trials, 'trial')}, {cell.diverged} diverged, "
        f"{duration_text(cell.device_seconds)} of devices ({share:.0%} of its own), {count_text(cell.flops)} FLOPs"
    )
