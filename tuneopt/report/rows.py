"""Rows under lane headings: the layout of every figure that lists named things, readable at any width.

A heading has a row of its own inside the plot, so that long names never squeeze the data on a narrow screen.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuneopt.report.drawing import Drawing
from tuneopt.report.text import plain

ROW = 19
"""Pixels of a row: a line of text with air around it."""


LONGEST = 22
"""Letters of a row's label."""

MOST_ROWS = 120
"""Rows that one figure draws: more are unreadable, and drawing them takes a browser seconds."""


def spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of ``count`` places, evenly spaced, both ends among them."""
    if count <= limit:
        return list(range(count))
    if limit < 2:
        return list(range(limit))
    return sorted({round(index * (count - 1) / (limit - 1)) for index in range(limit)})


def fitting(sizes: Sequence[int]) -> list[int]:
    """The lanes to draw, evenly spaced, so that their rows (``sizes``) stay within `MOST_ROWS`."""
    for count in range(len(sizes), 1, -1):
        chosen = spread(len(sizes), count)
        if sum(sizes[place] for place in chosen) <= MOST_ROWS:
            return chosen
    return list(range(min(len(sizes), 1)))


def height(lanes: Sequence[tuple[str, Sequence[str]]]) -> int:
    """Pixels that the lanes need, axis and its title included."""
    return ROW * max(sum(len(labels) + 1 for _, labels in lanes), 3) + 58


def lay_out(
    drawing: Drawing,
    lanes: Sequence[tuple[str, Sequence[str]]],
    beside: Sequence[Sequence[str]] = (),
    head: str = "",
) -> list[list[int]]:
    """Draw headings, stripes and labels for (heading, row labels) lanes; returns the vertical places of each lane.

    ``beside`` holds a text for the right end of each row, lane by lane, and ``head`` what stands above them.
    """
    places: list[list[int]] = []
    row = 0
    for number, (heading, labels) in enumerate(lanes):
        if number % 2 == 0:
            drawing.stripe(row - 0.5, row + len(labels) + 0.5)
        drawing.note(f"<b>{plain(heading)}</b>", x=0, xref="paper", xanchor="left", xshift=4, y=row)
        places.append([row + 1 + index for index in range(len(labels))])
        row += len(labels) + 1
    own = _labels(places, [[shortened(label) for label in labels] for _, labels in lanes])
    end = max(row, 3) - 0.5
    drawing.up.update(range=[end, -0.6], tickmode="array", tickvals=list(own), ticktext=list(own.values()))
    if beside:
        heads = {each[0] - 1: plain(head) for each in places if head}
        drawing.column(heads | _labels(places, beside))
    return places


def shortened(name: str) -> str:
    """A name that leaves a phone room for the data beside it; the whole of it is in the CSV and in the tables."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"


def _labels(places: Sequence[Sequence[int]], texts: Sequence[Sequence[str]]) -> dict[int, str]:
    """The texts by place."""
    return {
        place: plain(text)
        for own, lane in zip(places, texts, strict=True)
        for place, text in zip(own, lane, strict=True)
    }
