"""One colour and one marker for each optimizer, the same on every page.

The colours were chosen by computation: each has a contrast of 3:1 or more against both page backgrounds, and the
nearest two lie 0.075 apart in OKLab for normal, protanopic and deuteranopic vision (Machado et al. 2009). Markers
differ as well, so that no distinction rests on colour alone.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Look(NamedTuple):
    """A CSS colour and a plotly marker symbol."""

    colour: str
    symbol: str


LOOKS = {
    "adamw": Look("#5f6671", "circle"),
    "nadamw": Look("#aa8a67", "circle-dot"),
    "mars": Look("#fb4c22", "triangle-up"),
    "cautious": Look("#6e5ef7", "triangle-down"),
    "lion": Look("#905702", "pentagon"),
    "adam_mini": Look("#099b0e", "hexagon"),
    "sophia": Look("#c525a2", "star"),
    "muon": Look("#0874b3", "square"),
    "scion": Look("#119fcd", "diamond"),
    "kron": Look("#cc065c", "cross"),
    "soap": Look("#10a694", "diamond-tall"),
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

_MORE = ("hourglass", "bowtie", "star-square", "star-diamond", "diamond-wide", "hexagon2", "octagon")


def look(optimizer: str) -> Look:
    """The look of an optimizer; one that is not known keeps a colour of the palette, picked by its name.

    By its name and not by its place, so that it looks the same on every page; two unknown names may share a colour, and
    then only seldom a symbol.
    """
    if optimizer in LOOKS:
        return LOOKS[optimizer]
    number = int.from_bytes(hashlib.sha256(optimizer.encode()).digest()[:4], "big")
    colours = [known.colour for known in LOOKS.values()]
    return Look(colours[number % len(colours)], _MORE[number % len(_MORE)])


def hollow(symbol: str) -> str:
    """The outline of a marker, by plotly's name for it."""
    return symbol.replace("-dot", "-open-dot") if symbol.endswith("-dot") else f"{symbol}-open"


def position(optimizer: str) -> tuple[int, str]:
    """A sort key: the known optimizers in their families' order, then others by name."""
    names = list(LOOKS)
    return (names.index(optimizer) if optimizer in names else len(names), optimizer)
