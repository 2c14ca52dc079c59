"""A scene on paper by matplotlib: PDF with its letters as letters, and PNG at 300 dots per inch.

The only file of the report that imports matplotlib. Nothing depends on the clock: the same scene gives the same file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneopt.reporting.palette import LINES, bare, outline
from tuneopt.reporting.scene import Box, Scene, Sign, Stroke, Words, text_width

INK = "#1b1f24"
DPI = 300


def save(scene: Scene, path: Path, form: str, point: float, about: Mapping[str, str]) -> None:
    """Write a scene as ``form`` (pdf or png), ``point`` points for a pixel; ``about`` goes into the file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"pdf.fonttype": 42, "font.family": "sans-serif", "text.parse_math": False}):
        figure = Figure(figsize=(scene.width * point / 72, scene.height * point / 72))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, scene.width)
        axes.set_ylim(scene.height, 0)
        axes.axis("off")
        for order, part in enumerate(scene.parts):
            for artist in _artists(part, point):
                artist.set_zorder(order)
                axes.add_artist(artist)
        undated = {"CreationDate": None} if form == "pdf" else {"Software": None}
        names = {"Title": "Title", "Subject": "Subject", "Keywords": "Keywords"} if form == "pdf" else {
            "Title": "Title", "Subject": "Description", "Keywords": "Source"}  # fmt: skip
        told = {names[name]: text for name, text in about.items()}
        figure.savefig(path, format=form, dpi=DPI, facecolor="white", metadata={**undated, **told})


def _artists(part: Stroke | Sign | Words | Box, point: float) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Polygon, Rectangle
    from matplotlib.text import Text

    if isinstance(part, Box):
        return [Rectangle((part.x, part.y), part.width, part.height, facecolor=_colour(part.colour), linewidth=0)]
    if isinstance(part, Words):
        return _text(part, point, Text)
    if isinstance(part, Stroke):
        if part.fill:
            return [Polygon(part.points, facecolor=_colour(part.colour, part.opacity), linewidth=0)]
        xs, ys = zip(*part.points, strict=True)
        dash: Any = "-"
        if part.dash:
            dash = (0, [float(length) / max(part.width, 1.0) for length in part.dash.split()])
        return [Line2D(xs, ys, linewidth=part.width * point, color=_colour(part.colour, part.opacity), linestyle=dash,
                       solid_capstyle="butt")]  # fmt: skip
    if part.opacity == 0:
        return []
    colour, radius = _colour(part.colour, part.opacity), part.size / 2
    lines = bare(part.symbol) in LINES
    hollow = "-open" in part.symbol
    clear = part.symbol.endswith("-open-dot")
    edge = {"linewidth": (part.line or 1.5) * point if hollow else 0.0, "edgecolor": colour,
            "facecolor": "none" if clear else "white" if hollow else colour}  # fmt: skip
    pieces = outline(part.symbol)
    if not pieces:
        dots = [Circle((part.x, part.y), part.size / 7, facecolor=colour if hollow else "white", linewidth=0)]
        return [Circle((part.x, part.y), radius, **edge), *(dots if part.symbol.endswith("-dot") else [])]
    ways = [[(part.x + radius * x, part.y + radius * y) for x, y in piece] for piece in pieces]
    if lines:
        return [Line2D(*zip(*way, strict=True), linewidth=part.line * point, color=colour) for way in ways]
    return [Polygon(way, **edge) for way in ways]


def _text(part: Words, point: float, text: Any) -> list[Any]:
    """The runs of a text one behind the other; a text of one weight is one piece."""
    anchor = {"start": "left", "end": "right", "middle": "center"}[part.anchor]
    common = {"fontsize": part.size * point, "color": _colour(part.colour or INK), "va": "center_baseline",
              "rotation": -part.angle, "rotation_mode": "anchor"}  # fmt: skip
    if len({bold for _, bold in part.runs}) <= 1:
        weight = "bold" if part.runs and part.runs[0][1] else "normal"
        return [text(part.x, part.y, part.text, ha=anchor, fontweight=weight, **common)]
    x, pieces = part.x, []
    for words, bold in part.runs:
        pieces.append(text(x, part.y, words, ha="left", fontweight="bold" if bold else "normal", **common))
        x += text_width(words, part.size, bold)
    return pieces


def _colour(css: str, opacity: float = 1.0) -> tuple[float, float, float, float]:
    """A colour of a page (``#rrggbb`` or ``rgba(...)``) as shares of red, green, blue and ink."""
    if css == "none":
        return 0.0, 0.0, 0.0, 0.0
    if css.startswith("#"):
        red, green, blue = (int(css[at : at + 2], 16) / 255 for at in (1, 3, 5))
        return red, green, blue, opacity
    red, green, blue, alpha = (float(part) for part in re.findall(r"[\d.]+", css))
    return red / 255, green / 255, blue / 255, alpha * opacity
