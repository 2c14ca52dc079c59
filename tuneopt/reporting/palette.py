"""One colour and one marker for each optimizer, the same in every figure of a page.

The colours were chosen by computation: each has a contrast of 3:1 or more against both page backgrounds, and the
nearest two lie 0.075 apart in OKLab for normal, protanopic and deuteranopic vision (Machado et al. 2009). Markers
differ as well, so that no distinction rests on colour alone.

The outlines of markers have plotly's names, and are points of a unit mark: radius 1 around the origin, y downwards.
Plotly scales its marks so that they look equally large; the factors here are about its own.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

from tuneopt.analysis.names import MATRIX


class MarkStyle(NamedTuple):
    """A CSS colour and a plotly marker symbol."""

    colour: str
    symbol: str


LOOKS = {
    "adamw": MarkStyle("#5f6671", "circle"),
    "nadamw": MarkStyle("#aa8a67", "circle-dot"),
    "mars": MarkStyle("#fb4c22", "triangle-up"),
    "cautious": MarkStyle("#6e5ef7", "triangle-down"),
    "lion": MarkStyle("#905702", "pentagon"),
    "adam_mini": MarkStyle("#099b0e", "hexagon"),
    "sophia": MarkStyle("#c525a2", "star"),
    "muon": MarkStyle("#0874b3", "square"),
    "scion": MarkStyle("#119fcd", "diamond"),
    "kron": MarkStyle("#cc065c", "cross"),
    "soap": MarkStyle("#10a694", "diamond-tall"),
}

LIGHT_PAGE, DARK_PAGE = "#ffffff", "#14171c"
"""The page backgrounds that the colours are made for."""

PLAIN = "#80868f"
MUTED = "rgba(128,134,145,0.55)"
FAINT = "rgba(128,134,145,0.28)"
BAND = "rgba(128,134,145,0.16)"
RULE = "rgba(128,134,145,0.22)"
BAD = "#d1495b"
"""Neutral tones that read on both backgrounds, and the one for diverged trials."""

CONTEXT = "#8a919b"
"""Optimizers that are drawn for comparison only, where there are too many for a colour each."""

MOST_COLOURS = 7
"""Optimizers that have a colour each on one page; a reader cannot follow more lines at once."""

_MORE = ("hourglass", "bowtie", "star-square", "star-diamond", "diamond-wide", "hexagon2", "octagon")

_PAGE: ContextVar[Mapping[str, MarkStyle] | None] = ContextVar("looks of the page that is being made", default=None)


def look(optimizer: str) -> MarkStyle:
    """The look of an optimizer on the page that is being made (`ranked`).

    Without a page a known optimizer has its own look. One that is not known has a colour of the palette, picked by its
    name; two of them may share it.
    """
    page = _PAGE.get()
    if page is not None and optimizer in page:
        return page[optimizer]
    if optimizer in LOOKS:
        return LOOKS[optimizer]
    number = int.from_bytes(hashlib.sha256(optimizer.encode()).digest()[:4], "big")
    colours = [known.colour for known in LOOKS.values()]
    return MarkStyle(colours[number % len(colours)], _MORE[number % len(_MORE)])


@contextmanager
def ranked(names: Sequence[str], baseline: str) -> Iterator[None]:
    """The looks of one page's optimizers, ``names`` with the best first, for as long as the context lasts.

    Few optimizers all have a colour. Of many, those that the page is about have one and the others are grey: matrix
    optimizers, and of the unknown ones the best (`MOST_COLOURS` together). No two coloured optimizers share a colour.
    The baseline is the ink of its palette entry, whatever its name.
    """
    token = _PAGE.set(looks(names, baseline))
    try:
        yield
    finally:
        _PAGE.reset(token)


def looks(names: Sequence[str], baseline: str) -> dict[str, MarkStyle]:
    """The look of each of ``names`` (best first), by the rule of `ranked`."""
    rivals = [name for name in dict.fromkeys(names) if name != baseline]
    coloured = rivals
    if len(rivals) > MOST_COLOURS:
        known = [name for name in rivals if name in MATRIX]
        unknown = [name for name in rivals if name not in {*LOOKS, *known}]
        coloured = (known + unknown)[:MOST_COLOURS] or rivals[:MOST_COLOURS]
    free = [own for name, own in LOOKS.items() if name not in {*coloured, "adamw"}]
    given = {baseline: LOOKS["adamw"]}
    for name in coloured:
        own = LOOKS.get(name)
        # A known name that is the palette's baseline, in a comparison against another one, needs a colour of its own.
        given[name] = free.pop() if own is None or name == "adamw" else own
    symbols = [own.symbol for own in LOOKS.values()] + list(_MORE)
    for number, name in enumerate(one for one in rivals if one not in given):
        given[name] = MarkStyle(CONTEXT, LOOKS[name].symbol if name in LOOKS else symbols[number % len(symbols)])
    return given


def stands_out(optimizer: str) -> bool:
    """Whether an optimizer stands out on its page: it has a colour, and is not the baseline."""
    return look(optimizer).colour not in (CONTEXT, LOOKS["adamw"].colour)


def hollow(symbol: str) -> str:
    """The outline of a marker, by plotly's name for it."""
    return symbol.replace("-dot", "-open-dot") if symbol.endswith("-dot") else f"{symbol}-open"


def position(optimizer: str) -> tuple[int, str]:
    """A sort key: the known optimizers in their families' order, then others by name."""
    names = list(LOOKS)
    return (names.index(optimizer) if optimizer in names else len(names), optimizer)


def shade(scale: Sequence[Sequence[Any]], share: float) -> str:
    """A colour between two of a scale of (share, rgba)."""
    (low, first), (high, second) = next(
        ((one, other) for one, other in itertools.pairwise(scale) if share <= other[0]), (scale[-2], scale[-1])
    )
    mix = (share - low) / ((high - low) or 1.0)
    ends = [[float(part) for part in re.findall(r"[\d.]+", colour)] for colour in (first, second)]
    red, green, blue, alpha = (one + mix * (other - one) for one, other in zip(*ends, strict=True))
    return f"rgba({red:.0f},{green:.0f},{blue:.0f},{alpha:.2f})"


Points = tuple[tuple[float, float], ...]


def _ring(count: int, turn: float = -90.0, radius: float = 1.0) -> Points:
    angles = [math.radians(turn + 360.0 * number / count) for number in range(count)]
    return tuple((round(radius * math.cos(angle), 3), round(radius * math.sin(angle), 3)) for angle in angles)


def _star(count: int, inner: float, turn: float = -90.0) -> Points:
    outer, within = _ring(count, turn, 1.2), _ring(count, turn + 180.0 / count, inner)
    return tuple(point for pair in zip(outer, within, strict=True) for point in pair)


_CROSS = tuple((0.9 * x, 0.9 * y) for x, y in (
    (-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4), (0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4),
    (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4),
))  # fmt: skip

_SHAPES: dict[str, tuple[Points, ...]] = {
    "square": (((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),),
    "diamond": (((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),),
    "diamond-tall": (((0, -1.4), (0.7, 0), (0, 1.4), (-0.7, 0)),),
    "diamond-wide": (((0, -0.7), (1.4, 0), (0, 0.7), (-1.4, 0)),),
    "cross": (_CROSS,),
    "triangle-up": (((0, -1.1), (1.1, 0.8), (-1.1, 0.8)),),
    "triangle-down": (((0, 1.1), (1.1, -0.8), (-1.1, -0.8)),),
    "triangle-right": (((1.1, 0), (-0.8, 1.1), (-0.8, -1.1)),),
    "pentagon": (_ring(5),),
    "hexagon": (_ring(6),),
    "hexagon2": (_ring(6, 0.0),),
    "octagon": (_ring(8, 22.5),),
    "star": (_star(5, 0.5),),
    "star-square": (_star(4, 0.55, -45.0),),
    "star-diamond": (_star(4, 0.55),),
    "hourglass": (((-1, -1), (1, -1), (-1, 1), (1, 1)),),
    "bowtie": (((-1, -1), (1, 1), (1, -1), (-1, 1)),),
    "x-thin": (((-0.9, -0.9), (0.9, 0.9)), ((-0.9, 0.9), (0.9, -0.9))),
    "line-ns": (((0, -1), (0, 1)),),
}

LINES = frozenset({"x-thin", "line-ns"})
"""Marks that are nothing but lines."""


@cache
def outline(symbol: str) -> tuple[Points, ...]:
    """The pieces of a mark's outline; empty for a circle. Raises KeyError for a symbol that nobody draws here."""
    base = bare(symbol)
    return () if base == "circle" else _SHAPES[base]


@cache
def bare(symbol: str) -> str:
    """The shape without its modifiers: ``circle`` of ``circle-open-dot``."""
    return symbol.replace("-open", "").replace("-dot", "")
