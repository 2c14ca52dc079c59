"""Panels of one figure next to each other (small multiples), with shared scales and names at the ends of lines.

Panels share both axes, so that the eye may travel between them; where a page is narrow they stand under each other.
Lines are named at their ends instead of in a legend: a reader's eye need not leave the line. Names that would lie over
each other move apart, and a thin line leads from each that moved to the end that it names.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneopt.reporting.drawing import LETTER, Drawing, shortened
from tuneopt.reporting.text import plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDE, NARROW = 920, 358
"""Pixels of a figure on a screen and on a phone."""

FONT_SIZE = 12

_TOP, _BOTTOM, _LEFT, _GAP, _BELOW = 26, 46, 56, 14, 40
"""Pixels: the title of a panel, the horizontal axis with its title, the vertical axis with its title, room between two
panels of a row, and room for the axis under a row that is not the last."""


_LEAST = 100
"""Pixels that the plot of a panel has at least, between its names: five ticks."""

_INDENT, _LED = 9, 26
"""Pixels from the end of a line to its name, and where thin lines lead to names."""

_MOVED = 7
"""Pixels by which a name may stand beside the end of its line and still be seen to belong to it: half a name."""


class Label(NamedTuple):
    """A name at the end of a line: where the line ends, its colour, and whether it is set bold.

    ``series`` is the name of the line's trace, ``left`` puts the name before the line's start.
    """

    x: float
    y: float
    text: str
    colour: str
    series: str = ""
    bold: bool = False
    left: bool = False


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near as may be to ``wanted`` (ascending), ``gap`` apart, between ``low`` and ``high``.

    Pools of names that would overlap are centred on the mean of what they want (isotonic regression). Where there is
    no room for all between the bounds, the gap shrinks.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    pools: list[list[float]] = []  # (sum of what is wanted from the first place, count) each
    for number, place in enumerate(wanted):
        pools.append([place - number * gap, 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + count]
    starts = [total / count for total, count in pools for _ in range(int(count))]
    last = high - (len(wanted) - 1) * gap
    return [min(max(start, low), last) + number * gap for number, start in enumerate(starts)]


@dataclass
class Panel:
    """One panel: a drawing without axis titles, its title, and the names at the ends of its lines."""

    title: str
    drawing: Drawing
    labels: list[Label]


@dataclass
class Panels:
    """Panels in reading order. ``x`` and ``y`` name the shared axes, ``tall`` is the height of a plot in pixels.

    ``up`` is the shared vertical range, bottom first.
    """

    panels: Sequence[Panel]
    x: str
    y: str
    up: tuple[float, float]
    tall: int = 250
    most: int = 4

    def plain(self, width: int = WIDE) -> dict[str, Any]:
        """Data and layout as plotly.js takes them, laid out for a figure of ``width`` pixels."""
        indents = [self._indent(left) for left in (False, True)]
        right, left = (
            extra
            + max((_wide(one, indent) for panel in self.panels for one in panel.labels if one.left == side), default=0)
            for side, extra, indent in ((False, 10, indents[False]), (True, 8, indents[True]))
        )
        edge = _LEFT if self.y else 0
        fit = int((width - edge + _GAP) // (left + right + _LEAST + _GAP))
        columns = max(1, min(len(self.panels), self.most, fit))
        rows = -(-len(self.panels) // columns)
        columns = -(-len(self.panels) // rows)  # as even as may be: 3 and 3 rather than 4 and 2
        slot = (width - edge - _GAP * (columns - 1)) / columns
        height = rows * (self.tall + _TOP) + (rows - 1) * _BELOW + _BOTTOM
        inner_wide, inner_high = float(width - edge), float(height - _BOTTOM)
        data: list[dict[str, Any]] = []
        layout: dict[str, Any] = {
            **self.panels[0].drawing.layout,
            "height": height,
            "width": width,
            "margin": {"l": edge, "r": 0, "t": 0, "b": _BOTTOM},
            "shapes": [],
            "annotations": [],
            "showlegend": False,
        }
        del layout["autosize"]
        for number, panel in enumerate(self.panels):
            row, column = divmod(number, columns)
            x0 = column * (slot + _GAP) + left
            x1 = column * (slot + _GAP) + slot - right
            y1 = inner_high - row * (self.tall + _TOP + _BELOW) - _TOP
            key = "" if number == 0 else str(number + 1)
            across = {**panel.drawing.across, "anchor": f"y{key}", "automargin": False,
                      "domain": [x0 / inner_wide, x1 / inner_wide], "title": {"text": ""}}  # fmt: skip
            up = {**panel.drawing.up, "anchor": f"x{key}", "automargin": False, "range": list(self.up),
                  "domain": [(y1 - self.tall) / inner_high, y1 / inner_high], "title": {"text": ""},
                  "showticklabels": column == 0 and not left > 8}  # fmt: skip
            layout[f"xaxis{key}"], layout[f"yaxis{key}"] = across, up
            data += [{**trace, "xaxis": f"x{key}", "yaxis": f"y{key}"} for trace in panel.drawing.traces]
            layout["shapes"] += [_moved(shape, key) for shape in panel.drawing.shapes]
            layout["annotations"] += [{"xref": f"x{key}", "yref": f"y{key}", **note} for note in panel.drawing.notes]
            layout["annotations"] += self._named(panel, key, indents)
            layout["annotations"].append({
                "text": f"<b>{plain(panel.title)}</b>", "showarrow": False, "xref": f"x{key} domain",
                "yref": f"y{key} domain", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 4,
                "font": {"size": 13},
            })  # fmt: skip
        layout["annotations"] += [
            {"text": plain(self.x), "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0,
             "yshift": -26, "yanchor": "top", "xanchor": "center", "font": {"size": FONT_SIZE}},
            *([{"text": plain(self.y), "showarrow": False, "xref": "paper", "yref": "paper", "x": 0, "y": 0.5,
                "xshift": -_LEFT + 8, "xanchor": "center", "textangle": -90, "font": {"size": FONT_SIZE}}]
              if self.y else []),
        ]  # fmt: skip
        return {"data": data, "layout": layout}

    def _placed(self, panel: Panel, left: bool) -> list[tuple[Label, float]]:
        """The names of one side of a panel from below, each with the pixels by which it stands above its line's end."""
        low, high = sorted(self.up)
        pixel = (high - low) / self.tall
        own = sorted((one for one in panel.labels if one.left == left), key=lambda one: one.y)
        places = spread_out([one.y for one in own], 13 * pixel, low + 4 * pixel, high - 4 * pixel)
        return [(one, (place - one.y) / pixel) for one, place in zip(own, places, strict=True)]

    def _indent(self, left: bool) -> int:
        """Pixels between the ends of lines and their names on one side: the same in all panels."""
        moved = any(abs(lift) > _MOVED for panel in self.panels for _, lift in self._placed(panel, left))
        return _LED if moved else _INDENT

    def _named(self, panel: Panel, key: str, indents: Sequence[int]) -> list[dict[str, Any]]:
        """The names at the ends of a panel's lines, moved apart where they would overlap."""
        notes = []
        for left in (False, True):
            for one, lift in self._placed(panel, left):
                words, away = plain(shortened(one.text)), -indents[left] if left else indents[left]
                place: dict[str, Any] = {"showarrow": False, "xshift": away, "yshift": lift}
                if indents[left] == _LED:
                    place = {"showarrow": True, "ax": away, "ay": -lift, "standoff": 6,
                             "arrowhead": 0, "arrowwidth": 0.7, "arrowcolor": one.colour}  # fmt: skip
                notes.append({
                    "text": f"<b>{words}</b>" if one.bold else words, "xref": f"x{key}", "yref": f"y{key}", "x": one.x,
                    "y": one.y, "xanchor": "right" if left else "left", "font": {"size": 11, "color": one.colour},
                    "name": one.series, **place,
                })  # fmt: skip
        return notes

    def figure(self) -> Figure:
        """The same as a plotly figure, for notebooks."""
        from plotly.graph_objects import Figure

        return Figure(copy.deepcopy(self.plain()))


def _wide(label: Label, indent: int) -> float:
    """Pixels that a name at the end of a line takes, its distance to the line included."""
    return LETTER * len(shortened(label.text)) + indent + 1


def _moved(shape: dict[str, Any], key: str) -> dict[str, Any]:
    """A shape of a drawing on its panel's axes; "paper", the whole of the plot, becomes the whole of the panel."""
    refs = {}
    for axis in ("x", "y"):
        whole = shape.get(f"{axis}ref") == "paper"
        refs[f"{axis}ref"] = f"{axis}{key} domain" if whole else f"{axis}{key}"
    return {**shape, **refs}
