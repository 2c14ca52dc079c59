"""The star as an ablation plot: every one-coordinate change of the incumbent, and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import BAD, look
from tuneopt.report.rows import height, lay_out
from tuneopt.report.study import SweepView
from tuneopt.report.text import change_text, plain, value_text
from tuneopt.spec import Value

EDGE_TOLERANCES = 6.0
"""The scale shows at least this many tolerances to the right, however small the differences are."""


@dataclass(frozen=True)
class StarPoint:
    """One value of a coordinate, the rest as in the incumbent; ``difference`` to the incumbent in nats if it ended."""

    value: Value
    status: str
    loss: float | None
    difference: float | None

    @property
    def incumbent(self) -> bool:
        """Whether this is the incumbent itself."""
        return self.status == "incumbent"


@dataclass(frozen=True)
class StarLane:
    """A coordinate and its values in ascending order (words as declared), the incumbent's among them."""

    coordinate: str
    points: tuple[StarPoint, ...]


@dataclass(frozen=True)
class StarInfo:
    """The star around the incumbent; ``edge`` is the largest difference drawn to scale, in nats."""

    optimizer: str
    incumbent_loss: float | None
    tolerance: float
    lanes: tuple[StarLane, ...]
    edge: float

    title = "Ablations around the best configuration"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        return (
            "Each row changes one value of the best configuration and nothing else; points to the right are worse, "
            "arrows lie beyond the scale, and inside the shaded band "
            f"(\u00b1{self.tolerance:.4f} nats, the tolerance) a change makes no difference that counts."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per value."""
        columns = ("coordinate", "value", "status", "select_loss_nats", "difference_to_incumbent_nats")
        return columns, [
            (lane.coordinate, value_text(point.value), point.status, point.loss, point.difference)
            for lane in self.lanes
            for point in lane.points
        ]


def star_info(view: SweepView) -> StarInfo:
    """The star of a sweep; coordinates in declared order, those that the space holds at one value left out."""
    descent, space = view.state.descent, view.sweep.space
    base = descent.incumbent_loss
    lanes = []
    for axis in space.axes:
        own = StarPoint(space.value(descent.incumbent, axis.name), "incumbent", base, None if base is None else 0.0)
        changes = [
            StarPoint(
                change.value,
                change.status,
                change.loss,
                None if base is None or change.loss is None else change.loss - base,
            )
            for change in descent.star
            if change.coordinate == axis.name
        ]
        points = [own, *changes]
        if axis.numeric:
            points.sort(key=lambda point: float(point.value))
        else:
            points.sort(key=lambda point: axis.values.index(point.value))
        if changes:
            lanes.append(StarLane(axis.name, tuple(points)))
    tolerance = view.state.tolerance
    differences = [point.difference for lane in lanes for point in lane.points if point.difference is not None]
    return StarInfo(view.optimizer, base, tolerance, tuple(lanes), scale_edge(differences, tolerance))


def scale_edge(differences: list[float], tolerance: float) -> float:
    """The largest difference worth drawing to scale: three quarters of the points and six tolerances fit.

    A few hopeless values would otherwise squeeze everything that matters into a few pixels; they stand at the edge
    with their number.
    """
    worse = sorted(difference for difference in differences if difference > 0)
    floor = EDGE_TOLERANCES * tolerance
    if not worse:
        return floor
    typical = worse[math.ceil(0.75 * len(worse)) - 1]
    edge = max(floor, 1.25 * typical)
    return worse[-1] * 1.02 if worse[-1] <= 1.6 * edge else edge


def draw_star(info: StarInfo) -> Drawing:
    """A lane per coordinate, a row per value; what lies beyond the scale stands at its edge with its number."""
    colour = look(info.optimizer).colour
    differences = [point.difference for lane in info.lanes for point in lane.points if point.difference is not None]
    left = min(-1.8 * info.tolerance, 1.25 * min(differences, default=0.0))
    lanes = [(lane.coordinate, [value_text(point.value) for point in lane.points]) for lane in info.lanes]
    drawing = Drawing(height(lanes), "select loss above the best (nats/token)")
    drawing.band(-info.tolerance, info.tolerance)
    drawing.rule(0)
    every = [[_spot(point, info.edge) for point in lane.points] for lane in info.lanes]
    placed = lay_out(drawing, lanes, [[spot.label for spot in spots] for spots in every])
    for lane, spots, places in zip(info.lanes, every, placed, strict=True):
        tones = [BAD if point.status == "diverged" else colour for point in lane.points]
        drawing.scatter(
            x=[end for spot in spots for end in (0, spot.x, None)],
            y=[end for place in places for end in (place, place, None)],
            mode="lines",
            line={"color": colour, "width": 2},
            opacity=0.35,
            hoverinfo="skip",
        )
        drawing.scatter(
            x=[spot.x for spot in spots],
            y=places,
            mode="markers",
            marker={
                "symbol": [spot.symbol for spot in spots],
                "size": [13 if point.incumbent else 10 for point in lane.points],
                "color": tones,
                "opacity": 1,
                "line": {"width": [2 if spot.symbol == "x-thin" else 0 for spot in spots], "color": tones},
            },
            customdata=[
                [plain(lane.coordinate), plain(value_text(point.value)), plain(spot.hover)]
                for point, spot in zip(lane.points, spots, strict=True)
            ],
            hovertemplate="%{customdata[0]} = %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
            cliponaxis=False,
        )
    drawing.across.update(range=[left, 1.04 * info.edge], tickformat="+.4~g", nticks=5, tickangle=0)
    return drawing


@dataclass(frozen=True)
class _Spot:
    """Where a point is drawn and what is written beside it."""

    x: float
    symbol: str
    label: str
    hover: str


def _spot(point: StarPoint, edge: float) -> _Spot:
    if point.incumbent:
        return _Spot(0.0, "diamond", "best", f"best configuration, {_loss(point.loss)}")
    if point.difference is None:
        symbol = "x-thin" if point.status == "diverged" else "circle-open"
        return _Spot(edge, symbol, point.status, point.status)
    label = change_text(point.difference)
    hover = f"{_loss(point.loss)}, {label} to the best"
    if point.difference > edge:
        return _Spot(edge, "triangle-right", label, f"{hover}, off the scale")
    return _Spot(point.difference, "circle", label, hover)


def _loss(loss: float | None) -> str:
    return "no loss" if loss is None else f"{loss:.4f} nats per token"
