"""What a picture consists of: lines, marks, boxes and words at pixels; an SVG or a page of paper is written from it.

``series`` names the optimizer (or whatever a trace stands for), by which the page brings one line to the front.
``hover`` is what a mark says to a pointer, in lines.
"""

from __future__ import annotations

import html
import itertools
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

Point = tuple[float, float]

_TAG = re.compile(r"(</?b>|<br>)")
_NARROW, _BROAD = set("ijlftrI.,:;'|![]()/ "), set("mwMWGOQ@%+\u00d7")


class Stroke(NamedTuple):
    """A line through points, or with ``fill`` an area; ``width`` in pixels, ``dash`` as SVG has it, empty for none."""

    points: tuple[Point, ...]
    colour: str
    width: float
    dash: str = ""
    fill: bool = False
    opacity: float = 1.0
    series: str = ""
    hover: str = ""

    def moved(self, down: float) -> Stroke:
        """The same, ``down`` pixels lower."""
        return self._replace(points=tuple((x, y + down) for x, y in self.points))


class Sign(NamedTuple):
    """A mark: a plotly symbol of ``size`` pixels; ``line`` is the width of an outline."""

    x: float
    y: float
    symbol: str
    size: float
    colour: str
    line: float = 0.0
    opacity: float = 1.0
    series: str = ""
    hover: str = ""

    def moved(self, down: float) -> Sign:
        """The same, ``down`` pixels lower."""
        return self._replace(y=self.y + down)


class Words(NamedTuple):
    """A text; ``anchor`` is start, middle or end, ``y`` its middle. ``colour`` is empty for the ink of the page."""

    x: float
    y: float
    runs: tuple[tuple[str, bool], ...]
    size: float = 12.0
    anchor: str = "start"
    colour: str = ""
    angle: float = 0.0
    series: str = ""

    @property
    def text(self) -> str:
        """The letters alone."""
        return "".join(words for words, _ in self.runs)

    @property
    def width(self) -> float:
        """About how many pixels it takes."""
        return sum(text_width(words, self.size, bold) for words, bold in self.runs)

    def moved(self, down: float) -> Words:
        """The same, ``down`` pixels lower."""
        return self._replace(y=self.y + down)


class Box(NamedTuple):
    """A filled rectangle from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    hover: str = ""

    def moved(self, down: float) -> Box:
        """The same, ``down`` pixels lower."""
        return self._replace(y=self.y + down)


@dataclass
class Scene:
    """A picture of ``width`` by ``height`` pixels; later parts lie on earlier ones."""

    width: float
    height: float
    parts: list[Stroke | Sign | Words | Box] = field(default_factory=list)


@lru_cache(maxsize=4096)
def runs(markup: str) -> tuple[tuple[tuple[str, bool], ...], ...]:
    """The lines of a plotly label as (text, bold) runs: of its tags the drawers use ``<b>`` and ``<br>``.

    A page repeats most of its labels: in each figure, and in its pictures for a screen and a phone.
    """
    lines: list[list[tuple[str, bool]]] = [[]]
    bold = False
    for piece in _TAG.split(markup):
        if piece == "<br>":
            lines.append([])
        elif piece in ("<b>", "</b>"):
            bold = piece == "<b>"
        elif piece:
            lines[-1].append((html.unescape(piece), bold))
    return tuple(tuple(line) for line in lines)


@lru_cache(maxsize=4096)
def spoken(markup: str) -> str:
    """The letters of a label, line by line: the hover texts of a figure come again in its other picture."""
    return "\n".join("".join(words for words, _ in line) for line in runs(markup))


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """About how many pixels a text takes in the fonts of a page, rather too many than too few."""
    units = sum(0.38 if letter in _NARROW else 0.92 if letter in _BROAD else 0.72 if letter.isupper() else 0.62
                for letter in text)  # fmt: skip
    return units * size * (1.06 if bold else 1.0)


def clipped(points: list[Point], left: float, top: float, right: float, bottom: float) -> list[list[Point]]:
    """The pieces of a line that lie inside a rectangle (Liang and Barsky, segment by segment)."""
    for x, y in points:
        if not (left <= x <= right and top <= y <= bottom):
            break
    else:
        return [list(points)] if len(points) > 1 else []
    pieces: list[list[Point]] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        enter, leave, across, up = 0.0, 1.0, x1 - x0, y1 - y0
        for step, room in ((-across, x0 - left), (across, right - x0), (-up, y0 - top), (up, bottom - y0)):
            if step == 0:
                if room < 0:
                    enter = 2.0  # parallel to this side and beyond it
            elif step < 0:
                enter = max(enter, room / step)
            else:
                leave = min(leave, room / step)
        if enter > leave:
            continue
        # Ends that are inside stay as they are to the last bit, by which the next segment is known to go on from there.
        start = (x0, y0) if enter == 0 else (x0 + enter * across, y0 + enter * up)
        end = (x1, y1) if leave == 1 else (x0 + leave * across, y0 + leave * up)
        if pieces and pieces[-1][-1] == start:
            pieces[-1].append(end)
        else:
            pieces.append([start, end])
    return pieces
