"""Losses by optimizer and regime, with tie groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuneopt.report.compare import Comparison, winner_of
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import look
from tuneopt.report.rows import column, heads, height, lay_out
from tuneopt.report.study import Study
from tuneopt.report.text import loss_text, plural

COLUMN = 68
"""Pixels of the column of numbers beside the rows."""


@dataclass(frozen=True)
class LossPoint:
    """An optimizer's result: mean report loss over ``runs`` seeds, its standard error (None: no noise is known)."""

    optimizer: str
    loss: float
    error: float | None
    runs: int
    group: int | None


@dataclass(frozen=True)
class LossLane:
    """A regime and its optimizers, lowest loss first."""

    label: str
    points: tuple[LossPoint, ...]


@dataclass(frozen=True)
class LossesInfo:
    """The losses of every regime that has a result."""

    lanes: tuple[LossLane, ...]

    title = "Loss by optimizer and regime"
    reading = (
        "Each row is an optimizer's distance to the lowest report loss of its regime, with one standard error to each "
        "side; optimizers of one tie group cannot be told apart."
    )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per optimizer and regime."""
        columns = ("regime", "optimizer", "report_loss_nats", "standard_error_nats", "seeds", "tie_group")
        return columns, [
            (lane.label, point.optimizer, point.loss, point.error, point.runs, point.group)
            for lane in self.lanes
            for point in lane.points
        ]


def losses_info(study: Study, comparison: Comparison) -> LossesInfo:
    """The losses that a comparison ranks."""
    lanes = []
    for regime, ranking in comparison.rankings.items():
        points = []
        groups = ranking["tie_groups"] or [None] * len(ranking["order"])
        for optimizer, loss, group in zip(ranking["order"], ranking["losses"], groups, strict=True):
            view = winner_of(study, comparison, regime, optimizer)
            runs = len(view.winner) if view is not None else 1
            sigma = ranking["sigma"]
            points.append(LossPoint(optimizer, loss, None if sigma is None else sigma / math.sqrt(runs), runs, group))
        lanes.append(LossLane(comparison.label(regime), tuple(points)))
    return LossesInfo(tuple(lanes))


def draw_losses(info: LossesInfo) -> Drawing:
    """A lane per regime, a row per optimizer in its colour."""
    lanes = [(lane.label, [point.optimizer for point in lane.points]) for lane in info.lanes]
    drawing = Drawing(height(lanes), "report loss above the lowest (nats/token)", right=COLUMN)
    drawing.rule(0)
    spans = [point.loss - lane.points[0].loss + (point.error or 0.0) for lane in info.lanes for point in lane.points]
    widest = max([*spans, 1e-3])
    every = lay_out(drawing, lanes)
    for lane, places in zip(info.lanes, every, strict=True):
        for point, place in zip(lane.points, places, strict=True):
            seen = look(point.optimizer)
            hover = f"{loss_text(point.loss, point.error)} nats per token, {plural(point.runs, 'seed')}"
            drawing.scatter(
                x=[point.loss - lane.points[0].loss],
                y=[place],
                mode="markers",
                error_x={
                    "type": "data",
                    "array": [point.error or 0.0],
                    "thickness": 2,
                    "width": 5,
                    "color": seen.colour,
                },
                marker={"symbol": seen.symbol, "size": 11, "color": seen.colour},
                hovertemplate=f"{hover}<extra></extra>",
                cliponaxis=False,
            )
        column(drawing, places, [_beside(point) for point in lane.points])
    heads(drawing, every, "loss \u00b7 tie group", COLUMN)
    drawing.across.update(range=[-0.1 * widest, 1.06 * widest], tickformat="+.4~g", nticks=5, tickangle=0)
    return drawing


def _beside(point: LossPoint) -> str:
    return loss_text(point.loss) + (f" \u00b7 {point.group}" if point.group else "")
