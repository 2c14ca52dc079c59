"""Rows under lane headings: the layout of every figure that lists named things, readable at any width.

A heading has a row of its own inside the plot, so that long names never squeeze the data on a narrow screen.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuneopt.report.drawing import Drawing
from tuneopt.report.text import plain

ROW = 19
"""Pixels of a row: a line of text with air around it."""


def height(lanes: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Pixels that the lanes need, axis and its title included."""
    return ROW * max(sum(len(labels) + 1 for _, labels in lanes), 3) + 58


def lay_out(drawing: Drawing, lanes: Sequence[tuple[str, Sequence[str]]]) -> list[list[int]]:
    """Draw headings, stripes and row labels for (heading, row labels) lanes; returns each lane's vertical places."""
    places: list[list[int]] = []
    ticks: dict[int, str] = {}
    row = 0
    for number, (heading, labels) in enumerate(lanes):
        if number % 2 == 0:
            bottom = row + len(labels) + 0.5
            drawing.stripe(row - 0.5, bottom)
        drawing.note(x=0, xref="paper", xanchor="left", xshift=4, y=row, text=f"<b>{plain(heading)}</b>")
        own = [row + 1 + index for index in range(len(labels))]
        ticks |= {place: plain(label) for place, label in zip(own, labels, strict=True)}
        places.append(own)
        row += len(labels) + 1
    drawing.up.update(
        range=[max(row, 3) - 0.5, -0.6], tickmode="array", tickvals=list(ticks), ticktext=list(ticks.values())
    )
    return places


def column(drawing: Drawing, places: Sequence[int], texts: Sequence[str]) -> None:
    """Write a text to the right of each row, outside the plot, where no mark can be under it."""
    for place, text in zip(places, texts, strict=True):
        drawing.note(x=1, xref="paper", xanchor="left", xshift=5, y=place, text=plain(text), font={"size": 11})


def heads(drawing: Drawing, places: Sequence[Sequence[int]], text: str, right: int) -> None:
    """Write what the column holds at the right end of every heading row; ``right`` is the column's width in pixels."""
    for own in places:
        drawing.note(
            x=1, xref="paper", xanchor="right", xshift=right, y=own[0] - 1, text=plain(text),
            font={"size": 11},
        )  # fmt: skip
