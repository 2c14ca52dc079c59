"""The drawing layer: a plotly figure under construction, as the plain data that plotly.js draws.

Every drawer starts from a `Drawing` and adds marks, lines, bands and rows to it. What all figures share is decided here
once: axes, hover texts, the outline of marks, grids of shaded cells, rows under lane headings, and where a scale ends.
A drawer says only what is particular to its figure. Rows are the layout of every figure that lists named things: a
heading has a row of its own inside the plot, so that long names never squeeze the data on a narrow screen.

Plotly's Python classes check every property at every step, which takes a quarter of a second for a figure with fifty
labels, and a large study has a thousand figures; so a drawing is a plain dict. `Drawing.figure` gives the checked
figure, for notebooks and tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneopt.analysis.names import in_words
from tuneopt.reporting.palette import BAND, MUTED, RULE
from tuneopt.reporting.text import plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

EDGE_TOLERANCES = 6.0
"""A scale of losses shows at least this many tolerances: below that, noise would fill the whole width of a figure."""

ROW = 19
"""Pixels of a row: a line of text with air around it."""

LONGEST = 22
"""Letters of a row's label."""

MOST_ROWS = 120
"""Rows that one figure draws: more are unreadable, and drawing them takes a browser seconds."""

LETTER = 6.4
"""Pixels of a letter of a label, on average."""

_STRIPE = "rgba(128,134,145,0.06)"

_HOVER = "%{text}<extra></extra>"
"""The hover shows the mark's own text and no box with the trace's name, which would repeat the optimizer."""


class Mark(NamedTuple):
    """One marker: where it stands, what it says to a pointer (in lines), its plotly symbol, and its size in pixels.

    ``colour`` is its own where it differs from that of the marks around it.
    """

    x: float
    y: float
    hover: str = ""
    symbol: str = "circle"
    size: float = 9
    colour: str = ""


class Drawing:
    """An empty canvas: transparent, without a title of its own, with room for labels made by plotly.

    ``height`` in pixels; ``x`` and ``y`` are axis titles with units, ``y=None`` for rows that label themselves. Text
    colours are left to the page, which knows whether it is dark. The page writes the title above the drawing, so that
    it can be read and found without JavaScript.
    """

    def __init__(self, height: int, x: str, y: str | None = None, *, legend: bool = False) -> None:
        self.traces: list[dict[str, Any]] = []
        self.shapes: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []
        self.across = _axis(x)
        self.up = _axis(y) if y else {**_axis(""), "showgrid": False}
        self.right: dict[str, Any] = {}
        self.layout: dict[str, Any] = {
            "height": height,
            "autosize": True,
            "margin": {"l": 8, "r": 12, "t": 34 if legend else 10, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": FONT, "size": 12},
            "hovermode": "closest",
            "hoverlabel": {"align": "left"},
            "showlegend": legend,
        }
        if legend:
            self.layout["legend"] = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}

    def scatter(self, **trace: Any) -> None:
        """Add a trace of points or lines with plotly's own properties, for what `marks` and `lines` do not offer."""
        self.traces.append({"type": "scatter", **trace})

    def marks(self, marks: Iterable[Mark], colour: str, opacity: float = 1.0, **trace: Any) -> None:
        """Add markers of one ``colour``, but for those that bring their own. Without any hover text they do not answer.

        Texts are escaped here, because optimizers and coordinates are named by whoever made the table and plotly reads
        some HTML tags. Outlines follow from the symbol: a cross is nothing but its lines, a hollow mark needs a line
        that is seen beside filled ones, and a filled mark has none. Without a width plotly would draw white outlines
        wherever sizes differ, and pale marks without an opacity.
        """
        own = list(marks)
        colours, sizes = _shared([mark.colour or colour for mark in own]), _shared([mark.size for mark in own])
        widths = [
            2.0 if mark.symbol in ("x-thin", "line-ns") else 1.5 if "-open" in mark.symbol else 0.0 for mark in own
        ]
        answers: dict[str, Any] = {"hoverinfo": "skip"}
        if any(mark.hover for mark in own):
            texts = [plain(in_words(mark.hover)).replace("\n", "<br>") for mark in own]
            answers = {"text": texts, "hovertemplate": _HOVER}
        self.scatter(
            x=[mark.x for mark in own],
            y=[mark.y for mark in own],
            mode="markers",
            marker={"symbol": [mark.symbol for mark in own], "size": sizes, "color": colours, "opacity": opacity,
                    "line": {"width": _shared(widths), "color": colours}},
            **answers,
            **trace,
        )  # fmt: skip

    def lines(
        self, pieces: Iterable[Iterable[tuple[Any, Any]]], colour: str, width: float = 2.0, dash: str = "solid",
        shape: str = "linear", **trace: Any,
    ) -> None:  # fmt: skip
        """Add lines, each a piece of (x, y) points, as one trace with gaps: hundreds of traces would be slow to draw.

        Lines do not answer to the pointer unless ``hovertemplate`` is given; the marks on them do.
        """
        points = [point for piece in pieces for point in (*piece, (None, None))]
        line = {"color": colour, "width": width, "dash": dash, "shape": shape}
        silent = {} if "hovertemplate" in trace else {"hoverinfo": "skip"}
        self.scatter(x=[x for x, _ in points], y=[y for _, y in points], mode="lines", line=line, **silent, **trace)

    def bars(self, ends: Iterable[tuple[float, float, float]], colour: str, width: float, opacity: float) -> None:
        """Add horizontal bars of (start, end, row), such as intervals: paler than the marks that lie on them."""
        self.lines([((start, row), (end, row)) for start, end, row in ends], colour, width, opacity=opacity)

    def ribbon(self, lower: Sequence[tuple[float, float]], upper: Sequence[tuple[float, float]], colour: str) -> None:
        """Add the area between two lines of (x, y) points, such as an interval along a curve."""
        edge = [*upper, *reversed(lower)]
        self.scatter(
            x=[x for x, _ in edge], y=[y for _, y in edge], mode="lines", fill="toself", fillcolor=colour,
            line={"width": 0, "color": colour}, opacity=0.13, hoverinfo="skip", showlegend=False,
        )  # fmt: skip

    def grid(
        self,
        columns: Sequence[str],
        rows: Sequence[str],
        cells: Sequence[Sequence[tuple[float | None, str, str]]],
        shades: Sequence[tuple[float, str]],
    ) -> None:
        """Add a heat map with the first row on top: a cell is (number that shades it, text written in it, hover text).

        The colour runs from 0 over ``shades`` to the largest number; None leaves a cell without colour. The texts are
        notes and not the map's own text, because notes take the ink of the page, dark or light.
        """
        self.traces.append(
            {
                "type": "heatmap",
                "x": list(range(len(columns))),
                "y": list(range(len(rows))),
                "z": [[number for number, _, _ in row] for row in cells],
                "customdata": [[plain(hover) for _, _, hover in row] for row in cells],
                "hovertemplate": "%{customdata}<extra></extra>",
                "colorscale": [list(step) for step in shades],
                "zmin": 0.0,
                "showscale": False,
                "xgap": 2,
                "ygap": 2,
                "hoverongaps": False,
            }
        )
        for y, row in enumerate(cells):
            for x, (_, words, _) in enumerate(row):
                if words:
                    self.note(words, x=x, y=y, font={"size": 11})
        for axis, names in ((self.across, columns), (self.up, rows)):
            axis.update(tickmode="array", tickvals=list(range(len(names))), ticktext=[plain(name) for name in names],
                        showgrid=False)  # fmt: skip
        self.across["tickangle"] = -40
        self.up["autorange"] = "reversed"

    def note(self, text: str, **place: Any) -> None:
        """Add a text without an arrow."""
        self.notes.append({"text": text, "showarrow": False, **place})

    def band(self, start: float, end: float) -> None:
        """Shade a range of the horizontal axis."""
        self._rectangle(x0=start, x1=end, yref="paper", y0=0, y1=1, fillcolor=BAND)

    def stripe(self, start: float, end: float) -> None:
        """Shade a range of rows, barely."""
        self._rectangle(xref="paper", x0=0, x1=1, y0=start, y1=end, fillcolor=_STRIPE)

    def bar(self, x: float, start: float, end: float, half: float, colour: str) -> None:
        """Shade a range of the vertical axis at one place of the horizontal one, ``half`` to each side of it."""
        self._rectangle(x0=x - half, x1=x + half, y0=start, y1=end, fillcolor=colour)

    def rule(self, x: float, colour: str = MUTED, dash: str = "solid") -> None:
        """Draw a thin vertical line under everything."""
        self._straight(colour, dash, x0=x, x1=x, yref="paper", y0=0, y1=1)

    def level(self, y: float, colour: str = MUTED, dash: str = "solid") -> None:
        """Draw a thin horizontal line under everything."""
        self._straight(colour, dash, xref="paper", x0=0, x1=1, y0=y, y1=y)

    def scale(self, low: float, high: float, form: str) -> None:
        """Set the horizontal scale from ``low`` to ``high``; ``form`` is a d3 number format.

        Five ticks that stand upright are what a phone has room for.
        """
        self.across.update(range=[low, high], tickformat=form, nticks=5, tickangle=0)

    def column(self, texts: Mapping[int, str]) -> None:
        """Write a text to the right of rows, where no mark can be under it: as labels of a second vertical axis."""
        bare = {"showgrid": False, "showline": False, "zeroline": False, "ticks": "", "automargin": True}
        words = {"tickmode": "array", "tickvals": list(texts), "ticktext": list(texts.values())}
        look = {"overlaying": "y", "side": "right", "matches": "y", "tickfont": {"size": 11}, "ticklabelstandoff": 5}
        self.right = {**bare, **words, **look}
        # plotly leaves out an axis that no trace uses.
        self.scatter(x=[None], y=[None], yaxis="y2", mode="markers", hoverinfo="skip", showlegend=False)

    def _rectangle(self, **rest: Any) -> None:
        self.shapes.append({"type": "rect", "line": {"width": 0}, "layer": "below", **rest})

    def _straight(self, colour: str, dash: str, **rest: Any) -> None:
        line = {"color": colour, "width": 1, "dash": dash}
        self.shapes.append({"type": "line", "line": line, "layer": "below", **rest})

    def plain(self) -> dict[str, Any]:
        """Data and layout as plotly.js takes them."""
        marks = {"shapes": self.shapes, "annotations": self.notes}
        axes = {"xaxis": self.across, "yaxis": self.up, **({"yaxis2": self.right} if self.right else {})}
        return {"data": self.traces, "layout": {**self.layout, **axes, **marks}}

    def figure(self) -> Figure:
        """The same as a plotly figure; raises ValueError for a property that plotly does not know."""
        from plotly.graph_objects import Figure

        return Figure(self.plain())


def _axis(title: str) -> dict[str, Any]:
    words = {"text": title, "standoff": 10, "font": {"size": 12}}
    return {"automargin": True, "gridcolor": RULE, "linecolor": RULE, "zeroline": False, "ticks": "", "title": words}


def _shared(values: list[Any]) -> Any:
    """One value for all marks where it is the same: a third of the text of a large figure."""
    return values[0] if values and len(set(values)) == 1 else values


def scale_edge(differences: Sequence[float], tolerance: float) -> float:
    """The largest difference (nats) worth drawing to scale: three quarters of the points and six tolerances fit.

    A few hopeless values would otherwise squeeze everything that matters into a few pixels; they stand at the edge, as
    an arrow, with their number. Where the largest lies only a little beyond (up to 1.6 times the edge), the scale
    reaches to it: an arrow would cost more than the room.
    """
    worse = sorted(difference for difference in differences if difference > 0)
    floor = EDGE_TOLERANCES * tolerance
    if not worse:
        return floor
    typical = worse[math.ceil(0.75 * len(worse)) - 1]
    edge = max(floor, 1.25 * typical)
    return worse[-1] * 1.02 if worse[-1] <= 1.6 * edge else edge


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of ``count`` places, evenly spaced, both ends among them.

    This is how every figure and table leaves things out. What comes first in some order would be a choice that the
    reader cannot see; and the ends (smallest and largest scale, best and worst trial) are asked for most.
    """
    if count <= limit:
        return list(range(count))
    if limit < 2:
        return list(range(limit))
    return sorted({round(index * (count - 1) / (limit - 1)) for index in range(limit)})


def fitting(sizes: Sequence[int]) -> list[int]:
    """The lanes to draw, evenly spaced, so that their rows (``sizes``) stay within `MOST_ROWS`."""
    for count in range(len(sizes), 1, -1):
        chosen = spread(len(sizes), count)
        if sum(sizes[place] for place in chosen) <= MOST_ROWS:
            return chosen
    return list(range(min(len(sizes), 1)))


def height(lanes: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Pixels that the lanes need, axis and its title included; three rows at least, for less looks like a fault."""
    return ROW * max(sum(len(labels) + 1 for _, labels in lanes), 3) + 58


def lay_out(
    drawing: Drawing,
    lanes: Sequence[tuple[str, Sequence[str]]],
    beside: Sequence[Sequence[str]] = (),
    head: str = "",
) -> list[list[int]]:
    """Draw headings, stripes and labels for (heading, row labels) lanes; returns the vertical places of each lane.

    ``beside`` holds a text for the right end of each row, lane by lane, and ``head`` what stands above them, in the row
    of each heading. Rows are numbered downwards from 0, headings included. Every second lane is striped.
    """
    places: list[list[int]] = []
    row = 0
    for number, (heading, labels) in enumerate(lanes):
        if number % 2 == 0:
            drawing.stripe(row - 0.5, row + len(labels) + 0.5)
        drawing.note(f"<b>{plain(in_words(heading))}</b>", x=0, xref="paper", xanchor="left", xshift=4, y=row)
        places.append([row + 1 + index for index in range(len(labels))])
        row += len(labels) + 1
    own = _labels(places, [[shortened(label) for label in labels] for _, labels in lanes])
    end = max(row, 3) - 0.5
    drawing.up.update(range=[end, -0.6], tickmode="array", tickvals=list(own), ticktext=list(own.values()))
    if beside:
        heads = {each[0] - 1: plain(head) for each in places if head}
        drawing.column(heads | _labels(places, beside))
    return places


def shortened(name: str) -> str:
    """A name that leaves a phone room for the data beside it; the whole of it is in the CSV and in the tables."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"


def _labels(places: Sequence[Sequence[int]], texts: Sequence[Sequence[str]]) -> dict[int, str]:
    """The texts by place."""
    return {
        place: plain(text)
        for own, lane in zip(places, texts, strict=True)
        for place, text in zip(own, lane, strict=True)
    }
