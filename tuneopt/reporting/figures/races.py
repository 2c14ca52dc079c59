"""Races to a target: what each optimizer needs, as a multiple of what the first one needs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tuneopt.analysis.names import optimizer_name, scale_name
from tuneopt.analysis.targets import ToTarget, races
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, Mark, fitting, height, lay_out
from tuneopt.reporting.palette import look
from tuneopt.reporting.text import count_text, drawn_of, duration_text, plural

FARTHEST = 4.0
"""Times the first one's need up to which the scale reaches: one hopeless optimizer would squeeze all others."""


@dataclass(frozen=True)
class RacePoint:
    """What an optimizer needs over what the first one needs, with bounds where they are known, and in words.

    ``equal`` says that the rule does not tell it from the first, ``sure`` that its runs are enough for the rule.
    """

    optimizer: str
    times: float
    low: float | None
    high: float | None
    needed: str
    equal: bool
    sure: bool


@dataclass(frozen=True)
class RaceLane:
    """A race and who reached its target, the first one first; ``never`` counts those who did not."""

    label: str
    points: tuple[RacePoint, ...]
    never: int


@dataclass(frozen=True)
class RacesInfo(Info):
    """Claim: who reaches a target with the fewest steps, tokens or seconds, and how much more the others need.

    ``total`` counts the races that the figure has no room for as well.
    """

    lanes: tuple[RaceLane, ...]
    total: int

    title = "What the target takes, over what the first one needs"
    columns = ("race", "optimizer", "times_the_first", "low", "high", "not_told_from_the_first", "accepted")

    def _reading(self) -> str:
        never = sum(lane.never for lane in self.lanes)
        missing = f". {plural(never, 'optimizer')} that did not reach it: no row" if never else ""
        return (
            "Left is better. Bars are the bounds of what would do, or the fastest and slowest study. Hollow: too few "
            "runs for the rule. An equals sign: not told from the first"
            f"{missing}{drawn_of(len(self.lanes), self.total, 'races')}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (lane.label, point.optimizer, point.times, point.low, point.high, point.equal, point.sure)
            for lane in self.lanes
            for point in lane.points
        ]


def needed_text(row: ToTarget) -> str:
    """What the target took, in words."""
    if row.loss is None and row.seconds is not None:
        return duration_text(row.seconds)
    if row.steps is not None:
        return f"{row.steps:,.0f} steps"
    return f"{count_text(row.tokens)} tokens" if row.tokens is not None else duration_text(row.seconds)


def races_info(rows: Iterable[ToTarget]) -> RacesInfo | None:
    """The races that at least two optimizers end; None without any. Those without room are left out evenly."""
    lanes, every = [], list(rows)
    several = len({row.corpus for row in every}) > 1
    for own in races(every):
        there = [(row, row.size) for row in own if row.size]
        if len(there) < 2:
            continue
        first, least = there[0]
        assert least is not None
        points = []
        for row, size in there:
            assert size is not None
            low, high = (None if bound is None else bound / least for bound in row.bounds)
            equal = row.optimizer in first.ties
            points.append(RacePoint(row.optimizer, size / least, low, high, needed_text(row), equal, row.accepted))
        aim = "the target" if first.target is None else f"{first.target:.6g}"
        rules = f", {first.ruleset}" if first.ruleset else ""
        place = f"{first.corpus if several else ''} {scale_name(first.scale)}".strip()
        lanes.append(RaceLane(f"{place} to {aim}{rules}", tuple(points), len(own) - len(there)))
    chosen = tuple(lanes[place] for place in fitting([len(lane.points) for lane in lanes]))
    return RacesInfo(chosen, len(lanes)) if chosen else None


def draw_races(info: RacesInfo) -> Drawing:
    """A lane for each race, a row for each optimizer in its colour; what it needed stands to the right.

    The scale is logarithmic: to need half and to need twice as much are equally far from the first.
    """
    lanes = [(lane.label, [optimizer_name(point.optimizer) for point in lane.points]) for lane in info.lanes]
    drawing = Drawing(height(lanes), "steps, tokens or seconds, over those of the first (log scale)")
    texts = [[f"= {point.needed}" if point.equal else point.needed for point in lane.points] for lane in info.lanes]
    placed = lay_out(drawing, lanes, texts, "needed")
    every = [point for lane in info.lanes for point in lane.points]
    edge = min(FARTHEST, 1.05 * max(max(point.times, point.high or 0.0) for point in every))
    start = max(0.25, min(1.0, *(point.low or 1.0 for point in every)) / 1.05)
    for lane, places in zip(info.lanes, placed, strict=True):
        for point, place in zip(lane.points, places, strict=True):
            colour, symbol = look(point.optimizer)
            if point.low is not None and point.high is not None and point.low < edge:
                drawing.bars([(max(point.low, start), min(point.high, edge), place)], colour, 3, 0.45)
            hover = f"{point.times:.2f} times the first: {point.needed}"
            mark = Mark(min(point.times, edge), place, hover, symbol if point.sure else f"{symbol}-open", 11)
            drawing.marks([mark], colour, cliponaxis=False)
    drawing.rule(1)
    steps = [tick for tick in (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4) if start <= tick <= edge]
    drawing.across.update(type="log", range=[math.log10(start), math.log10(edge)], tickmode="array",
                          tickvals=steps, ticktext=[f"{tick:g}" for tick in steps], tickangle=0)  # fmt: skip
    return drawing
