"""Losses by optimizer and regime, with tie groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuneopt.report.compare import Comparison
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import look
from tuneopt.report.rows import fitting, height, lay_out
from tuneopt.report.text import loss_text, plural


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
    """The losses of every regime that has a result; ``regimes`` counts those that a figure cannot hold as well."""

    lanes: tuple[LossLane, ...]
    regimes: int

    title = "Loss by optimizer and regime"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f" ({len(self.lanes)} of {self.regimes} regimes are drawn)" if len(self.lanes) < self.regimes else ""
        return (
            "Each row is an optimizer's distance to the lowest report loss of its regime, with one standard error to "
            f"each side; optimizers of one tie group cannot be told apart{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per optimizer and regime."""
        columns = ("regime", "optimizer", "report_loss_nats", "standard_error_nats", "seeds", "tie_group")
        return columns, [
            (lane.label, point.optimizer, point.loss, point.error, point.runs, point.group)
            for lane in self.lanes
            for point in lane.points
        ]


def losses_info(comparison: Comparison) -> LossesInfo:
    """The losses that a comparison ranks."""
    lanes = []
    for regime, ranking in comparison.rankings.items():
        points = []
        groups = ranking["tie_groups"] or [None] * len(ranking["order"])
        for optimizer, loss, group in zip(ranking["order"], ranking["losses"], groups, strict=True):
            runs = comparison.winners[regime, optimizer].runs
            sigma = ranking["sigma"]
            points.append(LossPoint(optimizer, loss, None if sigma is None else sigma / math.sqrt(runs), runs, group))
        lanes.append(LossLane(comparison.label(regime), tuple(points)))
    chosen = fitting([len(lane.points) for lane in lanes])
    return LossesInfo(tuple(lanes[place] for place in chosen), len(lanes))


def draw_losses(info: LossesInfo) -> Drawing:
    """A lane per regime, a row per optimizer in its colour."""
    lanes = [(lane.label, [point.optimizer for point in lane.points]) for lane in info.lanes]
    drawing = Drawing(height(lanes), "report loss above the lowest (nats/token)")
    drawing.rule(0)
    beside = [[_beside(point) for point in lane.points] for lane in info.lanes]
    placed = lay_out(drawing, lanes, beside, "loss \u00b7 tie group")
    rows: dict[str, list[tuple[float, int, LossPoint]]] = {}
    for lane, places in zip(info.lanes, placed, strict=True):
        for point, place in zip(lane.points, places, strict=True):
            rows.setdefault(point.optimizer, []).append((point.loss - lane.points[0].loss, place, point))
    for optimizer, found in rows.items():
        seen = look(optimizer)
        errors = [point.error or 0.0 for _, _, point in found]
        drawing.scatter(
            x=[x for x, _, _ in found],
            y=[place for _, place, _ in found],
            mode="markers",
            error_x={"type": "data", "array": errors, "thickness": 2, "width": 5, "color": seen.colour},
            marker={"symbol": seen.symbol, "size": 11, "color": seen.colour},
            text=[f"{loss_text(p.loss, p.error)} nats per token, {plural(p.runs, 'seed')}" for _, _, p in found],
            hovertemplate="%{text}<extra></extra>",
            cliponaxis=False,
        )
    widest = max([1e-3, *(x + (point.error or 0.0) for found in rows.values() for x, _, point in found)])
    drawing.across.update(range=[-0.1 * widest, 1.06 * widest], tickformat="+.4~g", nticks=5, tickangle=0)
    return drawing


def _beside(point: LossPoint) -> str:
    return loss_text(point.loss) + (f" \u00b7 {point.group}" if point.group else "")
