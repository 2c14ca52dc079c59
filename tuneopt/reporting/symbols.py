"""The outlines of marks by plotly's names for them, as points of a unit mark: radius 1 around the origin, y downwards.

Plotly scales its marks so that they look equally large; the factors here are about its own.
"""

from __future__ import annotations

import math
from functools import cache

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
