"""Points in groups side by side, one line per optimizer in each group: a value against two things at once.

The groups share one horizontal axis, so that a figure with three scales and four ratios still fits a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneopt.report.drawing import Drawing
from tuneopt.report.palette import FAINT, hollow, look, position
from tuneopt.report.text import plain

GAP = 0.7
"""Empty room between two groups, in places."""

MOST_PLACES = 24
"""Places on the axis: more labels than these would lie over each other."""


@dataclass(frozen=True)
class Spot:
    """A value of one optimizer at one place; None at an end of the interval that is open or not known."""

    group: str
    place: str
    optimizer: str
    value: float
    low: float | None
    high: float | None
    hover: str
    sure: bool = True


def places_of(spots: Sequence[Spot]) -> Mapping[tuple[str, str], float]:
    """Where each (group, place) stands on the axis, in the order in which they come."""
    groups: dict[str, dict[str, None]] = {}
    for spot in spots:
        groups.setdefault(spot.group, {})[spot.place] = None
    found: dict[tuple[str, str], float] = {}
    at = 0.0
    for group, places in groups.items():
        for place in places:
            found[group, place] = at
            at += 1
        at += GAP
    return found


def draw_groups(drawing: Drawing, spots: Sequence[Spot], ceiling: float, floor: float) -> None:
    """Lines within groups, a marker for each value (hollow where it is not sure), thin bars for intervals.

    Optimizers stand a little beside each other, so that their intervals can be told apart. ``floor`` and ``ceiling``
    cut the bars.
    """
    places = places_of(spots)
    optimizers = sorted({spot.optimizer for spot in spots}, key=position)
    step = min(0.07, 0.62 / max(len(optimizers), 1))
    for number, optimizer in enumerate(optimizers):
        own = [spot for spot in spots if spot.optimizer == optimizer]
        shift = step * (number - (len(optimizers) - 1) / 2)
        seen = look(optimizer)
        x: list[float | None] = []
        y: list[float | None] = []
        for index, spot in enumerate(own):
            if index and spot.group != own[index - 1].group:
                x.append(None)
                y.append(None)
            x.append(round(places[spot.group, spot.place] + shift, 4))
            y.append(spot.value)
        drawing.scatter(
            x=[at for spot in own for at in (*[round(places[spot.group, spot.place] + shift, 4)] * 2, None)],
            y=[end for spot in own for end in (_cut(spot.low, spot.value, floor, ceiling),
                                               _cut(spot.high, spot.value, floor, ceiling), None)],
            mode="lines", line={"color": seen.colour, "width": 1.5}, opacity=0.45, hoverinfo="skip",
            legendgroup=optimizer, showlegend=False,
        )  # fmt: skip
        drawing.scatter(
            x=x, y=y, mode="lines", line={"color": seen.colour, "width": 1.6}, hoverinfo="skip",
            legendgroup=optimizer, showlegend=False, connectgaps=False,
        )  # fmt: skip
        drawing.scatter(
            x=[round(places[spot.group, spot.place] + shift, 4) for spot in own],
            y=[min(spot.value, ceiling) for spot in own],
            mode="markers",
            name=plain(optimizer),
            legendgroup=optimizer,
            marker={
                "symbol": [seen.symbol if spot.sure else hollow(seen.symbol) for spot in own],
                "size": 8,
                "color": seen.colour,
                "line": {"width": [0 if spot.sure else 1.5 for spot in own], "color": seen.colour},
            },
            text=[plain(spot.hover) for spot in own],
            hovertemplate="%{text}<extra></extra>",
        )
    _label(drawing, places)
    drawing.up.update(range=[floor, ceiling])
    if "legend" in drawing.layout:  # above the names of the groups
        drawing.layout["legend"]["y"] = 1.07


def _cut(end: float | None, value: float, floor: float, ceiling: float) -> float:
    return min(max(value if end is None else end, floor), ceiling)


def _label(drawing: Drawing, places: Mapping[tuple[str, str], float]) -> None:
    """Place names under the axis, group names above the plot, a faint rule between groups."""
    drawing.across.update(
        tickmode="array",
        tickvals=list(places.values()),
        ticktext=[plain(place) for _, place in places],
        range=[-0.6, max(places.values(), default=0.0) + 0.6],
        showgrid=False,
        tickfont={"size": 11},
        autotickangles=[0, -90],
    )
    groups: dict[str, list[float]] = {}
    for (group, _), at in places.items():
        groups.setdefault(group, []).append(at)
    for number, (group, own) in enumerate(groups.items()):
        drawing.note(
            f"<b>{plain(group)}</b>", x=sum(own) / len(own), y=1, yref="paper", yanchor="bottom", font={"size": 12}
        )
        if number:
            drawing.rule(own[0] - (1 + GAP) / 2, FAINT)
