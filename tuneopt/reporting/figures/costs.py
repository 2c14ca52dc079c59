"""What results cost: the tuning budget by optimizer and coordinate, and loss against seconds of a trial.

Unequal tuning makes an unequal comparison, so a report shows where each optimizer's trials went. And a token is not
the only price: an optimizer that saves tokens may still lose on the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.analysis.names import optimizer_name
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, Mark, shortened, spread
from tuneopt.reporting.palette import MUTED, hollow, look, position
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.text import count_text, duration_text, loss_text, plain, plural
from tuneopt.search.standing import Standing, Task
from tuneopt.search.study.spent import AHEAD, JOINT, SEEDS, START, Spent, spent

if TYPE_CHECKING:
    from tuneopt.analysis.costs import ParetoPoint

ROW = 26
"""Pixels of a row of the budget."""

SHADES = ((0.0, "rgba(8,116,179,0.05)"), (1.0, "rgba(8,116,179,0.55)"))
"""From no share to the largest; see-through, so that they read on both pages."""

ORDER = (START, JOINT, SEEDS, AHEAD)
"""What stands for no coordinate, above the coordinates."""

MOST = 2000
"""Points that the figure of seconds holds; those on the front are always drawn."""

WIDE = 20.0
"""Times over the shortest trial that the longest must take for an axis of seconds in logarithms."""


@dataclass(frozen=True)
class BudgetsInfo(Info):
    """Claim: equal care shows as columns that look alike.

    ``rows`` are the budget record of sweeps: each trial counted once, for the coordinate that it was spent on, by
    optimizer and phase of the study; tokens and FLOPs of whole budgets, device seconds as used.
    """

    rows: tuple[Spent, ...]

    title = "What tuning was spent on"
    columns = ("optimizer", "phase", "spent_on", "trials", "diverged", "tokens", "flops", "device_seconds")

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
        """All phases of an optimizer on one purpose together; None where it had no trial."""
        own = [row for row in self.rows if (row.optimizer, row.coordinate) == (optimizer, purpose)]
        parts = ("trials", "diverged", "tokens", "flops", "device_seconds")
        sums = {part: sum(getattr(row, part) for row in own) for part in parts}
        return Spent(optimizer, "", purpose, **sums) if own else None

    def _reading(self) -> str:
        return (
            "Each number counts the trials that an optimizer had for a coordinate, in all regimes together, and the "
            "shade is their share of its device time; equal care shows as columns that look alike."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (row.optimizer, row.phase, row.coordinate, row.trials, row.diverged, row.tokens, row.flops,
             row.device_seconds)
            for row in self.rows
        ]  # fmt: skip


def budgets_info(views: Sequence[SweepView]) -> BudgetsInfo | None:
    """The budget record of the sweeps of a report; None before any trial has ended.

    The rule by which a trial counts for a coordinate is the search's own (`tuneopt.search.study.spent`). Every sweep
    counts as finished here: what it did not ask for in the end was spent all the same.
    """
    from tuneopt.search.records import ended

    standings = {
        view.id: Standing(Task(view.sweep, view.phase), view.state, (), tuple(view.records), True) for view in views
    }
    trials = {trial: ended(record) for view in views for trial, record in view.every.items()}
    rows = spent(
        standings,
        {trial: one.outcome for trial, one in trials.items()},
        {trial: one.seconds for trial, one in trials.items()},
        {trial: view.id for view in views for trial in view.ahead},
    )
    return BudgetsInfo(rows) if rows else None


def draw_budgets(info: BudgetsInfo) -> Drawing:
    """A heat map: the numbers written in are trials, their sum stands at the foot of each column, the shade is time.

    The shade is the share of the optimizer's own device time, so that columns compare whatever a trial costs.
    """

    def shown(optimizer: str, purpose: str) -> tuple[float | None, str, str]:
        cell = info.cell(optimizer, purpose)
        if cell is None:
            return None, "", "no trial"
        whole = sum(row.device_seconds for row in info.rows if row.optimizer == optimizer)
        share = cell.device_seconds / whole if whole else 0.0
        hover = (
            f"{optimizer_name(optimizer)}, {purpose}: {plural(cell.trials, 'trial')}, {cell.diverged} diverged, "
            f"{duration_text(cell.device_seconds)} of devices ({share:.0%} of its own), {count_text(cell.flops)} FLOPs"
        )
        return share, f"{cell.trials:,}", hover

    names, purposes = info.optimizers, info.purposes
    totals = [sum(row.trials for row in info.rows if row.optimizer == name) for name in names]
    drawing = Drawing(ROW * len(purposes) + 120, "optimizer, and trials in all", "spent on")
    drawing.grid(
        [f"{shortened(optimizer_name(name))} {total:,}" for name, total in zip(names, totals, strict=True)],
        [shortened(purpose) for purpose in purposes],
        [[shown(name, purpose) for name in names] for purpose in purposes],
        SHADES,
    )
    return drawing


@dataclass(frozen=True)
class ParetoInfo(Info):
    """Claim: which optimizers nobody beats in both loss and time.

    ``points`` are trials with a loss (nats per token) and a time (device-seconds of the trial: seconds times devices);
    those with ``front`` are beaten by no other trial of their scale in both. ``hidden`` points behind the front are not
    drawn.
    """

    points: tuple[ParetoPoint, ...]
    hidden: int

    title = "Loss against seconds"
    columns = ("corpus", "scale", "ratio", "optimizer", "device_seconds", "loss_nats", "on_the_front", "trial")

    def _reading(self) -> str:
        hidden = f"; {self.hidden} points behind the front are not drawn" if self.hidden else ""
        return (
            "Down and left is better; filled marks on the dashed line of a scale are beaten by none of that scale in "
            f"both loss and time, hollow ones are{hidden}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [(*one.regime, one.optimizer, one.seconds, one.loss, one.front, one.trial) for one in self.points]


def pareto_info(points: Sequence[ParetoPoint]) -> ParetoInfo | None:
    """The points, thinned behind the front; None without one.

    Points are sorted by optimizer, so that the legend has the palette's order and a drawer needs no second pass.
    """
    if not points:
        return None
    front = [one for one in points if one.front]
    back = [one for one in points if not one.front]
    kept = [back[place] for place in spread(len(back), max(MOST - len(front), 2))]
    drawn = sorted((*front, *kept), key=lambda one: (position(one.optimizer), one.regime, one.seconds))
    return ParetoInfo(tuple(drawn), len(back) - len(kept))


def draw_pareto(info: ParetoInfo) -> Drawing:
    """Marks by optimizer, and a dashed front for each scale, stepped: between two trials the slower one's loss holds.

    Scales differ in loss and time by far, so that their fronts do not mix. Hollow marks are beaten by another trial of
    their scale in both. Seconds are in logarithms where they span a factor of `WIDE`.
    """
    drawing = Drawing(440, "device-seconds of the trial", "loss (nats/token)", legend=True)
    for scale in dict.fromkeys(one.regime[:2] for one in info.points):
        front = sorted((one.seconds, one.loss) for one in info.points if one.regime[:2] == scale and one.front)
        drawing.lines([front], MUTED, 1.5, "dash", "hv", showlegend=False)
    for optimizer in dict.fromkeys(one.optimizer for one in info.points):
        own = [one for one in info.points if one.optimizer == optimizer]
        colour, symbol = look(optimizer)
        marks = [
            Mark(one.seconds, one.loss,
                 f"{optimizer} at {one.regime.label}: {loss_text(one.loss)} nats, {duration_text(one.seconds)}",
                 symbol if one.front else hollow(symbol))
            for one in own
        ]  # fmt: skip
        drawing.marks(marks, colour, name=plain(optimizer_name(optimizer)))
    times = [one.seconds for one in info.points if one.seconds > 0]
    if times and max(times) > WIDE * min(times):
        drawing.across.update(type="log")
    drawing.across.update(tickangle=0, nticks=6)
    drawing.up.update(tickformat=".3~f")
    return drawing
