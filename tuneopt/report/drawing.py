"""A plotly figure under construction, as the plain data that plotly.js draws.

Plotly's Python classes check every property at every step, which takes a quarter of a second for a figure with fifty
labels; a large study has a thousand figures. `Drawing.figure` gives the checked figure, for notebooks and tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuneopt.report.palette import BAND, MUTED, RULE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_STRIPE = "rgba(128,134,145,0.06)"


class Drawing:
    """An empty canvas: transparent, without a title of its own, with room for labels made by plotly.

    ``height`` in pixels; ``x`` and ``y`` are axis titles with units, ``y=None`` for rows that label themselves. Text
    colours are left to the page, which knows whether it is dark.
    """

    def __init__(self, height: int, x: str, y: str | None = None, *, legend: bool = False) -> None:
        self.traces: list[dict[str, Any]] = []
        self.shapes: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []
        self.across = _axis(x)
        self.up = _axis(y) if y else {**_axis(""), "showgrid": False}
        self.beside: dict[str, Any] = {}
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
        """Add points or lines."""
        self.traces.append({"type": "scatter", **trace})

    def note(self, text: str, **place: Any) -> None:
        """Add a text without an arrow."""
        self.notes.append({"text": text, "showarrow": False, **place})

    def band(self, start: float, end: float) -> None:
        """Shade a range of the horizontal axis."""
        self._rectangle(x0=start, x1=end, yref="paper", y0=0, y1=1, fillcolor=BAND)

    def stripe(self, start: float, end: float) -> None:
        """Shade a range of rows, barely."""
        self._rectangle(xref="paper", x0=0, x1=1, y0=start, y1=end, fillcolor=_STRIPE)

    def rule(self, x: float, colour: str = MUTED, dash: str = "solid") -> None:
        """Draw a thin vertical line under everything."""
        line = {"color": colour, "width": 1, "dash": dash}
        self.shapes.append({"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line,
                            "layer": "below"})  # fmt: skip

    def level(self, y: float, colour: str = MUTED, dash: str = "solid") -> None:
        """Draw a thin horizontal line under everything."""
        line = {"color": colour, "width": 1, "dash": dash}
        self.shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line,
                            "layer": "below"})  # fmt: skip

    def column(self, texts: Mapping[int, str]) -> None:
        """Write a text to the right of rows, where no mark can be under it: as labels of a second vertical axis."""
        bare = {"showgrid": False, "showline": False, "zeroline": False, "ticks": "", "automargin": True}
        words = {"tickmode": "array", "tickvals": list(texts), "ticktext": list(texts.values())}
        look = {"overlaying": "y", "side": "right", "matches": "y", "tickfont": {"size": 11}, "ticklabelstandoff": 5}
        self.beside = {**bare, **words, **look}
        # plotly leaves out an axis that no trace uses.
        self.scatter(x=[None], y=[None], yaxis="y2", mode="markers", hoverinfo="skip", showlegend=False)

    def _rectangle(self, **rest: Any) -> None:
        self.shapes.append({"type": "rect", "line": {"width": 0}, "layer": "below", **rest})

    def plain(self) -> dict[str, Any]:
        """Data and layout as plotly.js takes them."""
        marks = {"shapes": self.shapes, "annotations": self.notes}
        axes = {"xaxis": self.across, "yaxis": self.up, **({"yaxis2": self.beside} if self.beside else {})}
        return {"data": self.traces, "layout": {**self.layout, **axes, **marks}}

    def figure(self) -> Figure:
        """The same as a plotly figure; raises ValueError for a property that plotly does not know."""
        from plotly.graph_objects import Figure

        return Figure(self.plain())


def _axis(title: str) -> dict[str, Any]:
    words = {"text": title, "standoff": 10, "font": {"size": 12}}
    return {"automargin": True, "gridcolor": RULE, "linecolor": RULE, "zeroline": False, "ticks": "", "title": words}
