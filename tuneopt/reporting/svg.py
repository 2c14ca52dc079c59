"""A scene as SVG text that stands in a page: it takes the page's ink, and needs no script.

What a mark says to a pointer is its ``<title>``, which browsers show by themselves; the page's script shows it sooner
and larger. Numbers have one decimal, a tenth of a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from html import escape

from tuneopt.reporting.drawing import FONT
from tuneopt.reporting.palette import LINES, bare, outline
from tuneopt.reporting.scene import Box, Point, Scene, Sign, Stroke, Words

USUAL = 11.0
"""Pixels of letters whose text does not say so: most of them, and a fortieth of a page."""


def svg(scene: Scene, name: str, label: str = "", alone: bool = False) -> str:
    """The SVG of a scene. ``name`` is its class, ``label`` says what it shows.

    ``alone`` makes a file of it that needs no page: with its own font and ink, on white.
    """
    size = f'viewBox="0 0 {scene.width:g} {scene.height:g}" width="{scene.width:g}" height="{scene.height:g}"'
    size += f' font-size="{USUAL:g}"'
    head = f'<svg class="{name}" {size} role="img" aria-label="{escape(label)}">'
    if alone:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{escape(FONT)}" fill="#1b1f24" '
            f'color="#1b1f24"><title>{escape(label)}</title><rect width="100%" height="100%" fill="#fff"/>'
        )
    return f"{head}{''.join(_grouped(scene))}</svg>"


def _grouped(scene: Scene) -> Iterable[str]:
    """The parts in order; those of one series that follow each other share a group, by which the page finds them."""
    series = ""
    for part in scene.parts:
        own = "" if isinstance(part, Box) else part.series
        if own != series:
            yield "</g>" if series else ""
            yield f'<g data-s="{escape(own)}">' if own else ""
            series = own
        yield _part(part)
    yield "</g>" if series else ""


def _part(part: Stroke | Sign | Words | Box) -> str:
    if isinstance(part, Stroke):
        return _stroke(part)
    if isinstance(part, Sign):
        return _sign(part)
    if isinstance(part, Words):
        return _words(part)
    return _closed(
        f'rect x="{_n(part.x)}" y="{_n(part.y)}" width="{_n(part.width)}" height="{_n(part.height)}" '
        f'fill="{part.colour}"', "rect", part.hover,
    )  # fmt: skip


def _closed(head: str, tag: str, hover: str) -> str:
    return f"<{head}><title>{escape(hover, quote=False)}</title></{tag}>" if hover else f"<{head}/>"


NUDGE = 1e-6
"""Pixels. Names that stand a fixed distance from an edge lie on the half of a tenth, where the last bits of a linear
algebra library would choose the digit: with this, every machine writes the same page."""


def _n(value: float) -> str:
    return f"{value + NUDGE:.1f}".removesuffix(".0")


def _way(points: Iterable[Point]) -> str:
    # As `_n` of each number: one replacement in the whole way is three times faster than a call for each.
    ends = list(points)
    if len(ends) == 2 and _n(ends[0][1]) == _n(ends[1][1]):  # level lines are the most, and half as long like this
        return f"M{_n(ends[0][0])} {_n(ends[0][1])}H{_n(ends[1][0])}"
    way = "L".join([f"{x + NUDGE:.1f} {y + NUDGE:.1f}" for x, y in ends])
    return "M" + way.replace(".0 ", " ").replace(".0L", "L").removesuffix(".0")


def _faded(opacity: float) -> str:
    return "" if opacity == 1 else f' opacity="{opacity:g}"'


def _stroke(part: Stroke) -> str:
    if part.fill:
        return f'<path d="{_way(part.points)}Z" fill="{part.colour}"{_faded(part.opacity)}/>'
    dash = f' stroke-dasharray="{part.dash}"' if part.dash else ""
    width = "" if part.width == 1 else f' stroke-width="{part.width:g}"'  # 1 is what SVG takes where none is said
    return _closed(
        f'path d="{_way(part.points)}" fill="none" stroke="{part.colour}"{width}{dash}'
        f"{_faded(part.opacity)}", "path", part.hover,
    )  # fmt: skip


def _sign(part: Sign) -> str:
    radius, look = part.size / 2, _look(part.symbol, part.colour, part.line)
    pieces = outline(part.symbol)
    if not pieces:
        head = f'circle cx="{_n(part.x)}" cy="{_n(part.y)}" r="{_n(radius)}" {look}{_faded(part.opacity)}'
        return _closed(head, "circle", part.hover) + _dot(part)
    close = "" if bare(part.symbol) in LINES else "Z"
    ways = "".join(_way((part.x + radius * x, part.y + radius * y) for x, y in piece) + close for piece in pieces)
    return _closed(f'path d="{ways}" {look}{_faded(part.opacity)}', "path", part.hover)


@lru_cache(maxsize=512)
def _look(symbol: str, colour: str, line: float) -> str:
    """How a mark is filled and outlined."""
    if "-open" not in symbol and bare(symbol) not in LINES:
        return f'fill="{colour}"'
    # A ring with a dot shows what lies under it, every other open mark hides its line.
    clear = bare(symbol) in LINES or symbol.endswith("-open-dot")
    return f'fill="{"none" if clear else "var(--page,#fff)"}" stroke="{colour}" stroke-width="{line or 1.5:g}"'


def _dot(part: Sign) -> str:
    """The dot inside a mark whose symbol has one."""
    if not part.symbol.endswith("-dot"):
        return ""
    fill = part.colour if "-open" in part.symbol else "var(--page,#fff)"
    return f'<circle cx="{_n(part.x)}" cy="{_n(part.y)}" r="{_n(part.size / 7)}" fill="{fill}"/>'


def _words(part: Words) -> str:
    turn = f' transform="rotate({part.angle:g} {_n(part.x)} {_n(part.y)})"' if part.angle else ""
    anchor = "" if part.anchor == "start" else f' text-anchor="{part.anchor}"'
    colour = f' fill="{part.colour}"' if part.colour else ""
    text = "".join(
        f'<tspan font-weight="600">{escape(words, quote=False)}</tspan>' if bold else escape(words, quote=False)
        for words, bold in part.runs
    )
    # The middle of small letters lies about a third of the size above the line.
    size = "" if part.size == USUAL else f' font-size="{part.size:g}"'
    return f'<text x="{_n(part.x)}" y="{_n(part.y + 0.35 * part.size)}"{size}{anchor}{colour}{turn}>{text}</text>'
