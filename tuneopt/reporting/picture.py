"""From a drawing to a picture of a given width: axes, ticks, grid, legend, notes and marks become parts at pixels.

A drawing is plotly's plain data (`tuneopt.reporting.drawing`), which a notebook shows as it is. The page needs no
JavaScript for its figures: each is a picture made here, once for a screen and once for a phone. Of plotly's language
this reads what the drawers speak; a trace of a kind that is not known here is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from tuneopt.reporting.axes import PixelAxis, axis, number_text, thinned
from tuneopt.reporting.palette import LINES, RULE, bare, shade
from tuneopt.reporting.scene import Box, Point, Scene, Sign, Stroke, Words, clipped, runs, spoken, text_width

SIZE, TICK = 12.0, 11.0
"""Pixels of the letters of titles and of ticks."""

LEGEND_ROW, MOST_LEGEND = 20.0, 2
"""Pixels of a row of a legend, and its rows on a screen; a phone's has twice as many. Names beyond are in the data."""

BAND_OVERHANG = 8.0
"""Pixels by which a band may reach beyond its plot, for half of a sign that stands on the edge."""

_FIELD = re.compile(r"%\{(\w+)(?:\[(\d+)\])?(?::([^}]*))?\}")


class Plot(NamedTuple):
    """One pair of axes: with pixels (``x``, ``y``), and as plotly describes them (``across``, ``up``)."""

    x: PixelAxis
    y: PixelAxis
    across: Mapping[str, Any]
    up: Mapping[str, Any]

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the plot."""
        return self.x.start, self.y.end, self.x.end, self.y.start


def picture(plain: Mapping[str, Any], width: float) -> Scene:
    """The picture of a drawing, ``width`` pixels wide; its height is the drawing's, and more where a legend wraps."""
    layout, data = plain["layout"], plain["data"]
    legend, extra = _legend(layout, data, width)
    scene = Scene(width, float(layout["height"]) + extra)
    plots = _plots(layout, data, scene, extra)
    for shape in layout.get("shapes", ()):
        _shape(scene, shape, plots)
    for plot in plots.values():
        _grid(scene, plot)
    for trace in data:
        _trace(scene, trace, plots[_key(trace.get("xaxis"))], layout)
    scene.parts += legend
    for note in layout.get("annotations", ()):
        _note(scene, note, plots)
    return scene


def _key(name: str | None) -> str:
    """``2`` of ``x2`` or ``y2``; empty for the first axes."""
    return (name or "").lstrip("xy").removesuffix(" domain")


def _plot_of(drawn: Mapping[str, Any], plots: Mapping[str, Plot]) -> Plot:
    """The plot that a shape or a note belongs to, by the first of its axes; the first plot where it names none."""
    return plots[_key(next((ref for ref in (drawn.get("xref", "x"), drawn.get("yref", "y")) if ref != "paper"), ""))]


def _plots(layout: Mapping[str, Any], data: Sequence[Mapping[str, Any]], scene: Scene, extra: float) -> dict[str, Plot]:
    """The plots of a layout, by the number of their axes, with the room that their labels need around them."""
    margin = layout["margin"]
    several = any(re.fullmatch(r"xaxis\d+", key) for key in layout)
    first, up = layout["xaxis"], layout["yaxis"]
    left, right, top, bottom = (float(margin[side]) for side in ("l", "r", "t", "b"))
    if first.get("automargin", not several):
        trial = axis(up, _values(data, "y", ""), scene.height - 80, up=True)
        shown = up.get("showticklabels", True)
        widest = max((text_width(_letters(text), TICK) for _, text in trial.ticks), default=0.0) if shown else 0.0
        left += widest + (6 if widest else 0) + (18 if up["title"]["text"] else 0)
        names = layout.get("yaxis2", {}).get("ticktext", ()) if not several else ()
        right += max((text_width(_letters(text), TICK) for text in names), default=0.0) + (8 if names else 0)
        right = max(right, 16.0)
        turned = _angle(first, _values(data, "x", ""), scene.width - left - right)
        texts = [text_width(_letters(text), TICK) for text in first.get("ticktext", ())] or [0.0]
        bottom += 16 if not turned else max(texts) * (0.7 if turned != 90 else 1.0) + 8
        bottom += 20 if first["title"]["text"] else 2
    wide, high = scene.width - left - right, scene.height - top - bottom - extra
    plots = {}
    for key in [name.removeprefix("xaxis") for name in layout if name.startswith("xaxis")]:
        across, upright = layout[f"xaxis{key}"], layout[f"yaxis{key}"]
        x0, x1 = across.get("domain", (0.0, 1.0))
        y0, y1 = upright.get("domain", (0.0, 1.0))
        ends_x = (left + x0 * wide, left + x1 * wide)
        base = top + extra + high
        ends_y = (base - y0 * high, base - y1 * high)
        own_x = axis(across, _values(data, "x", key), ends_x[1] - ends_x[0])
        own_y = axis(upright, _values(data, "y", key), ends_y[0] - ends_y[1], up=True)
        plots[key] = Plot(
            PixelAxis(own_x.low, own_x.high, own_x.log, own_x.ticks, *ends_x),
            PixelAxis(own_y.low, own_y.high, own_y.log, own_y.ticks, *ends_y), across, upright,
        )  # fmt: skip
    return plots


def _letters(markup: str) -> str:
    return "".join(words for line in runs(markup) for words, _ in line)


def _values(data: Sequence[Mapping[str, Any]], name: str, key: str) -> Iterator[float]:
    """The numbers that lie on an axis, error bars and the half cells of a grid included."""
    for trace in data:
        if _key(trace.get("xaxis")) != key or (trace.get("yaxis") == "y2" and key != "2"):
            continue
        numbers = trace.get(name, ())
        if trace["type"] == "heatmap":
            yield from (-0.5, len(numbers) - 0.5)
            continue
        yield from (value for value in numbers if value is not None)
        errors = trace.get(f"error_{name}", {}).get("array", ())
        for value, error in zip(numbers, errors, strict=False):
            if value is not None and error is not None:
                yield from (value - error, value + error)


def _angle(plain: Mapping[str, Any], values: Iterable[float], pixels: float) -> int:
    """By how many degrees the horizontal axis' texts are turned: as asked for, or upright where they would overlap."""
    if "tickangle" in plain:
        return abs(int(plain["tickangle"]))
    if "autotickangles" not in plain:
        return 0
    ticks = axis(plain, values, pixels).ticks
    return 90 if sum(text_width(_letters(text), TICK) + 5 for _, text in ticks) > pixels else 0


def _grid(scene: Scene, plot: Plot) -> None:
    """Grid lines, tick texts and titles of a pair of axes."""
    left, top, right, bottom = plot.edges
    rules = [((left, bottom), (right, bottom))]
    if plot.across.get("showgrid", True):
        rules = [*(((x, top), (x, bottom)) for x in (plot.x.inner(at) for at, _ in plot.x.ticks)), *rules]
    if plot.up.get("showgrid", True):
        rules = [*(((left, y), (right, y)) for y in (plot.y.inner(at) for at, _ in plot.y.ticks)), *rules]
    scene.parts += [Stroke(rule, RULE, 1) for rule in rules]
    if plot.up.get("showticklabels", True):
        for at, text in plot.y.ticks:
            scene.parts.append(Words(left - 6, plot.y.inner(at), runs(text)[0], TICK, "end"))
    side = plot.up.get("side_texts", {})
    scene.parts += [Words(right + 7, plot.y.inner(at), runs(text)[0], TICK) for at, text in side.items()]
    angle = _angle(plot.across, [], right - left)
    places = [plot.x.inner(at) for at, _ in plot.x.ticks]
    widths = [text_width(_letters(text), TICK) for _, text in plot.x.ticks]
    kept = range(len(places)) if angle else thinned(widths, places, max(widths, default=0.0) + 6)  # type: ignore[arg-type]
    for number in kept:
        words, x = runs(plot.x.ticks[number][1])[0], places[number]
        if angle:
            scene.parts.append(Words(x + 4, bottom + 8, words, TICK, "end", angle=-float(angle)))
        else:
            half = widths[number] / 2
            x = min(max(x, half + 1), scene.width - half - 1)
            scene.parts.append(Words(x, bottom + 11, words, TICK, "middle"))
    title = plot.across["title"]["text"]
    if title:
        half = text_width(title, SIZE) / 2 + 2
        middle = min(max((left + right) / 2, half), max(scene.width - half, half))
        scene.parts.append(Words(middle, scene.height - 10, runs(title)[0], SIZE, "middle"))
    title = plot.up["title"]["text"]
    if title:
        scene.parts.append(Words(10, (top + bottom) / 2, runs(title)[0], SIZE, "middle", angle=-90.0))


def _shape(scene: Scene, shape: Mapping[str, Any], plots: Mapping[str, Plot]) -> None:
    """A band, a stripe or a rule, cut at the edges of its plot."""
    plot = _plot_of(shape, plots)
    left, top, right, bottom = plot.edges

    def place(axis_: PixelAxis, ref: str, value: float) -> float:
        if ref == "paper" or ref.endswith("domain"):
            return axis_.start + value * (axis_.end - axis_.start)
        return axis_.at(value)

    xs = [place(plot.x, shape.get("xref", "x"), shape[name]) for name in ("x0", "x1")]
    ys = [place(plot.y, shape.get("yref", "y"), shape[name]) for name in ("y0", "y1")]
    if shape["type"] == "line":
        line = shape["line"]
        for piece in clipped(list(zip(xs, ys, strict=True)), left, top, right, bottom):
            scene.parts.append(Stroke(tuple(piece), line["color"], line["width"], _dash(line.get("dash", "solid"))))
        return
    # A band in data values, around one tick say, is as wide as what it lies behind: a little beyond the plot's edge.
    xref = shape.get("xref", "x")
    reach = 0.0 if xref == "paper" or "domain" in xref else BAND_OVERHANG
    x0, x1 = (min(max(x, left - reach), right + reach) for x in sorted(xs))
    y0, y1 = (min(max(y, top), bottom) for y in sorted(ys))
    if x1 > x0 and y1 > y0:
        scene.parts.append(Box(x0, y0, x1 - x0, y1 - y0, shape["fillcolor"]))


def _dash(dash: str) -> str:
    return {"solid": "", "dot": "1.5 3", "dash": "6 4"}.get(dash, dash.replace("px", "").replace(",", " "))


def _note(scene: Scene, note: Mapping[str, Any], plots: Mapping[str, Plot]) -> None:
    """A text at a place of its plot, of the whole plot area (``paper``) or of one panel (``domain``).

    With ``showarrow`` a thin line leads from the place to the text, which stands ``ax``, ``ay`` pixels beside it.
    """
    xref, yref = note.get("xref", "x"), note.get("yref", "y")
    plot = _plot_of(note, plots)
    area = _area(plots)

    def place(axis_: PixelAxis, ref: str, value: float, ends: tuple[float, float]) -> float:
        if ref == "paper":
            return ends[0] + value * (ends[1] - ends[0])
        return axis_.start + value * (axis_.end - axis_.start) if ref.endswith("domain") else axis_.inner(value)

    x = place(plot.x, xref, note["x"], (area[0], area[2])) + note.get("xshift", 0)
    y = place(plot.y, yref, note["y"], (area[3], area[1])) - note.get("yshift", 0)
    size = float(note.get("font", {}).get("size", SIZE))
    anchor = {"left": "start", "right": "end"}.get(note.get("xanchor", ""), "middle")
    lift = {"bottom": -0.62 * size, "top": 0.62 * size}.get(note.get("yanchor", ""), 0.0)
    colour = note.get("font", {}).get("color", "")
    if note.get("showarrow"):
        away = note["ax"], note["ay"]
        start = note["standoff"] / math.hypot(*away)
        gap = math.copysign(3, away[0])  # between the line and the first letter
        ends = (x + start * away[0], y + start * away[1]), (x + away[0] - gap, y + away[1])
        scene.parts.append(Stroke(ends, note["arrowcolor"], note["arrowwidth"], series=note.get("name", "")))
        x, y = x + away[0], y + away[1]
    lines = runs(note["text"])
    for number, words in enumerate(lines):
        at = y + lift + (number - (len(lines) - 1) / 2) * 1.25 * size
        part = Words(x, at, words, size, anchor, colour, float(note.get("textangle", 0)), note.get("name", ""))
        if xref == "paper" and not part.angle and anchor == "middle":  # a title: inside the picture at any width
            half = part.width / 2
            part = Words(min(max(x, half + 2), max(scene.width - half - 2, half)), at, words, size, anchor, colour)
        scene.parts.append(part)


def _area(plots: Mapping[str, Plot]) -> tuple[float, float, float, float]:
    """The rectangle around all plots."""
    edges = [plot.edges for plot in plots.values()]
    return min(e[0] for e in edges), min(e[1] for e in edges), max(e[2] for e in edges), max(e[3] for e in edges)


def _legend(
    layout: Mapping[str, Any], data: Sequence[Mapping[str, Any]], width: float
) -> tuple[list[Stroke | Sign | Words | Box], float]:
    """The parts of a legend above the plot, and by how much it makes the picture taller than planned."""
    parts: list[Stroke | Sign | Words | Box] = []
    if not layout.get("showlegend"):
        return parts, 0.0
    named = [trace for trace in data if trace.get("name") and trace.get("showlegend", True)]
    most = MOST_LEGEND * (1 if width > 600 else 2)
    x, row, shown = 8.0, 0, 0
    for trace in named:
        words = runs(trace["name"])[0]
        step = 22 + text_width(_letters(trace["name"]), SIZE) + 14
        if x + step > width - 60 * (row == most - 1) and x > 8:
            if row == most - 1:
                break
            x, row = 8.0, row + 1
        y = 11 + LEGEND_ROW * row
        series = _letters(trace["name"])
        if "lines" in trace["mode"]:
            line = trace["line"]
            parts.append(Stroke(((x, y), (x + 18, y)), line["color"], line["width"], _dash(line.get("dash", "solid")),
                                series=series))  # fmt: skip
        if "markers" in trace["mode"]:
            symbol, colour = next(_each(trace["marker"]["symbol"])), next(_each(trace["marker"]["color"]))
            line = 2.0 if bare(symbol) in LINES else 1.5 if "-open" in symbol else 0.0
            parts.append(Sign(x + 9, y, symbol, 9, colour, line, series=series))
        parts.append(Words(x + 23, y, words, SIZE, series=series))
        x, shown = x + step, shown + 1
    if shown < len(named):
        parts.append(Words(x + 2, 11 + LEGEND_ROW * row, ((f"+{len(named) - shown}", False),), SIZE))
    # The drawing has room for one row.
    return parts, LEGEND_ROW * row


def _trace(scene: Scene, trace: Mapping[str, Any], plot: Plot, layout: Mapping[str, Any]) -> None:
    if trace.get("yaxis") == "y2" and "overlaying" in layout.get("yaxis2", {}):  # the texts to the right of rows
        right = layout["yaxis2"]
        scene.parts += [Words(plot.x.end + 7, plot.y.inner(at), runs(text)[0], TICK)
                        for at, text in zip(right["tickvals"], right["ticktext"], strict=True)]  # fmt: skip
        return
    if trace["type"] == "heatmap":
        _cells(scene, trace, plot)
        return
    if trace["type"] != "scatter":
        raise ValueError(f"no picture can be made of a trace of type {trace['type']!r}; draw it as a scatter")
    if "lines" in trace["mode"]:
        _lines(scene, trace, plot)
    if "error_x" in trace:
        _errors(scene, trace, plot)
    if "markers" in trace["mode"]:
        _marks(scene, trace, plot)


def _lines(scene: Scene, trace: Mapping[str, Any], plot: Plot) -> None:
    line, series = trace["line"], _letters(trace.get("legendgroup") or trace.get("name", ""))
    points, stepped = list(zip(plot.x.all(trace["x"]), plot.y.all(trace["y"]), strict=True)), line.get("shape") == "hv"
    pieces: list[list[Point]] = [[]]
    for x, y in points:
        if x is None or y is None:
            pieces.append([])
            continue
        if stepped and pieces[-1]:
            pieces[-1].append((x, pieces[-1][-1][1]))
        pieces[-1].append((x, y))
    left, top, right, bottom = plot.edges
    if trace.get("fill") == "toself":
        for piece in filter(None, pieces):
            scene.parts.append(Stroke(tuple(piece), trace["fillcolor"], 0, fill=True, opacity=trace["opacity"],
                                      series=series))  # fmt: skip
        return
    hover, dash, opacity = _hover(trace, None), _dash(line.get("dash", "solid")), trace.get("opacity", 1.0)
    free, colour, width = trace.get("cliponaxis") is False, line["color"], line["width"]
    for piece in pieces:
        inside = [piece] if free else clipped(piece, left - 1, top - 1, right + 1, bottom + 1)
        scene.parts += [Stroke(tuple(own), colour, width, dash, False, opacity, series, hover)
                        for own in inside if len(own) > 1]  # fmt: skip
    if not hover and "hovertemplate" in trace and "markers" not in trace["mode"]:
        for number, (x, y) in enumerate(points):
            if x is not None and y is not None and top <= y <= bottom:
                hover = _hover(trace, number)
                scene.parts.append(Sign(x, y, "circle", 7, line["color"], opacity=0.0, series=series, hover=hover))


def _errors(scene: Scene, trace: Mapping[str, Any], plot: Plot) -> None:
    """Horizontal error bars with caps, cut at the edges of the plot."""
    error = trace["error_x"]
    for x, y, size in zip(trace["x"], trace["y"], error["array"], strict=True):
        if not size:
            continue
        ends = [min(max(plot.x.at(end), plot.x.start), plot.x.end) for end in (x - size, x + size)]
        at, cap = plot.y.at(y), float(error["width"]) / 1.5
        ways = [((ends[0], at), (ends[1], at)), *(((end, at - cap), (end, at + cap)) for end in ends)]
        scene.parts += [Stroke(way, error["color"], error["thickness"]) for way in ways]


def _marks(scene: Scene, trace: Mapping[str, Any], plot: Plot) -> None:
    marker, series = trace["marker"], _letters(trace.get("legendgroup") or trace.get("name", ""))
    left, top, right, bottom = plot.edges
    free = trace.get("cliponaxis") is False
    texts = trace.get("text", ()) if "text" in trace["mode"] else ()
    symbols, colours, sizes = _each(marker.get("symbol", "circle")), _each(marker["color"]), _each(marker["size"])
    lines, faded = _each(marker.get("line", {}).get("width", 0.0)), _each(marker.get("opacity", 1.0))
    opacity = trace.get("opacity", 1.0)
    for number, (at, up) in enumerate(zip(plot.x.all(trace["x"]), plot.y.all(trace["y"]), strict=True)):
        symbol, colour, size, line, pale = next(symbols), next(colours), next(sizes), next(lines), next(faded)
        if at is None or up is None:
            continue
        if not free and not (left - 2 <= at <= right + 2 and top - 2 <= up <= bottom + 2):
            continue
        scene.parts.append(Sign(at, up, symbol, float(size), colour, float(line), opacity * float(pale), series,
                                _hover(trace, number)))  # fmt: skip
        if texts:
            font = trace["textfont"]
            scene.parts.append(Words(at, up, ((texts[number], False),), font["size"], "middle", font["color"]))


def _each(value: Any) -> Iterator[Any]:
    """The values of all marks, one after the other, where a trace has one for each or one for all."""
    return iter(value) if isinstance(value, list | tuple) else repeat(value)


def _hover(trace: Mapping[str, Any], number: int | None) -> str:
    """What a mark says; of a line (``number`` None) only what does not depend on a point of it."""
    template = trace.get("hovertemplate", "").replace("<extra></extra>", "")
    if not template or (number is None and "%{" in template):
        return ""
    if template == "%{text}":  # most of them
        return spoken(str(trace["text"][number]))

    def value(match: re.Match[str]) -> str:
        name, index, form = match.groups()
        own = trace[name][number]
        own = own[int(index)] if index is not None else own
        return number_text(own, form) if form else str(own)

    return spoken(_FIELD.sub(value, template) if number is not None else template)


def _cells(scene: Scene, trace: Mapping[str, Any], plot: Plot) -> None:
    """The cells of a grid, shaded from 0 to the largest number; without a number a cell has no colour."""
    numbers = [value for row in trace["z"] for value in row if value is not None]
    most = max(numbers, default=0.0) or 1.0
    for y, row in enumerate(trace["z"]):
        for x, value in enumerate(row):
            ends = sorted((plot.x.at(x - 0.5), plot.x.at(x + 0.5)))
            sides = sorted((plot.y.at(y - 0.5), plot.y.at(y + 0.5)))
            colour = "none" if value is None else shade(trace["colorscale"], value / most)
            scene.parts.append(Box(ends[0] + 1, sides[0] + 1, ends[1] - ends[0] - 2, sides[1] - sides[0] - 2, colour,
                                   trace["customdata"][y][x]))  # fmt: skip
