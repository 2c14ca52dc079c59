"""Sensitivity: how far the loss moves over the values next to the best one, coordinate by coordinate."""

from __future__ import annotations

from dataclasses import dataclass

from tuneopt.analysis.sensitivity import Sensitivity, sensitivities
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.figures.star import StarLane, StarPoint, scale_edge, star_info
from tuneopt.report.palette import FAINT, look
from tuneopt.report.study import SweepView
from tuneopt.report.text import change_text, plain, value_text


@dataclass(frozen=True)
class SensitivityInfo:
    """The coordinates over their near grid (one value to each side), most sensitive first; the incumbent's loss."""

    optimizer: str
    incumbent_loss: float
    tolerance: float
    coordinates: tuple[Sensitivity, ...]

    title = "Sensitivity of each coordinate"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        return (
            "Each bar spans the losses when one coordinate moves a single grid step from its best value, so a long bar "
            "needs careful tuning, and a bar inside the shaded tolerance can be left alone."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per coordinate."""
        columns = ("coordinate", "best_value", "near_values", "select_losses_nats", "diverged", "spread_nats")
        return columns, [
            (
                each.coordinate,
                value_text(each.incumbent),
                " ".join(value_text(value) for value in each.values),
                " ".join(f"{loss:.5f}" for loss in each.losses),
                " ".join(value_text(value) for value in each.diverged),
                each.spread,
            )
            for each in self.coordinates
        ]


def sensitivity_info(view: SweepView) -> SensitivityInfo | None:
    """The sensitivities of a sweep; None before its incumbent has a loss or any neighbour of it."""
    info = star_info(view)
    near = [
        (lane.coordinate, point.value, point.loss)
        for lane in info.lanes
        for point in _neighbours(lane)
        if point.status in ("completed", "diverged")
    ]
    if info.incumbent_loss is None or not near:
        return None
    incumbent = dict(view.state.descent.incumbent)
    found = sensitivities(incumbent, info.incumbent_loss, near, info.tolerance)
    return SensitivityInfo(info.optimizer, info.incumbent_loss, info.tolerance, found)


def _neighbours(lane: StarLane) -> list[StarPoint]:
    place = next(index for index, point in enumerate(lane.points) if point.incumbent)
    return [*lane.points[max(place - 1, 0) : place], *lane.points[place + 1 : place + 2]]


def draw_sensitivity(info: SensitivityInfo) -> Drawing:
    """A bar per coordinate with its name above it, and a dot per value."""
    colour = look(info.optimizer).colour
    base = info.incumbent_loss
    worst = [loss - base for each in info.coordinates for loss in each.losses]
    edge = scale_edge(worst, info.tolerance)
    drawing = Drawing(40 * max(len(info.coordinates), 2) + 58, "select loss above the best (nats/token)")
    drawing.band(-info.tolerance, info.tolerance)
    drawing.rule(0)
    for row, each in enumerate(info.coordinates):
        low, high = min(each.losses) - base, max(each.losses) - base
        note = f" \u00b7 diverged at {', '.join(value_text(value) for value in each.diverged)}" if each.diverged else ""
        beyond = ", off the scale" if high > edge else ""
        drawing.note(
            x=0, xref="paper", xanchor="left", xshift=4, y=row - 0.3, align="left",
            text=f"<b>{plain(each.coordinate)}</b>  {change_text(high)}{beyond}{plain(note)}",
        )  # fmt: skip
        drawing.scatter(
            x=[low, min(high, edge)],
            y=[row + 0.14] * 2,
            mode="lines",
            line={"color": colour if high - low > info.tolerance else FAINT, "width": 7},
            opacity=0.45,
            hoverinfo="skip",
        )
        drawing.scatter(
            x=[min(loss - base, edge) for loss in each.losses],
            y=[row + 0.14] * len(each.losses),
            mode="markers",
            marker={
                "size": [12 if value == each.incumbent else 9 for value in each.values],
                "symbol": [_symbol(value == each.incumbent, loss - base > edge)
                           for value, loss in zip(each.values, each.losses, strict=True)],
                "color": colour,
            },
            customdata=[[plain(each.coordinate), plain(value_text(value)), change_text(loss - base)]
                        for value, loss in zip(each.values, each.losses, strict=True)],
            hovertemplate="%{customdata[0]} = %{customdata[1]}<br>%{customdata[2]} nats per token<extra></extra>",
            cliponaxis=False,
        )  # fmt: skip
    lowest = min([0.0, *worst])
    drawing.across.update(
        range=[min(-1.8 * info.tolerance, 1.25 * lowest), 1.06 * edge], tickformat="+.4~g", nticks=5, tickangle=0
    )
    drawing.up.update(range=[max(len(info.coordinates), 2) - 0.4, -0.7], showticklabels=False)
    return drawing


def _symbol(incumbent: bool, beyond: bool) -> str:
    return "diamond" if incumbent else "triangle-right" if beyond else "circle"
