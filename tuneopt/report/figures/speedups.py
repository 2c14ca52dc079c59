"""Speedups over AdamW, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.report.compare import Comparison
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import hollow, look
from tuneopt.report.rows import fitting, height, lay_out, spread
from tuneopt.report.text import percent_text

TOGETHER = 45
"""Rows that one figure of all scales holds; of more, each scale gets its own."""

MOST_FIGURES = 8

PUBLISHED_BAND = (1.0, 1.4)
"""Where the study of arXiv 2509.02046 found every optimizer's speedup over a well-tuned AdamW."""


@dataclass(frozen=True)
class SpeedupPoint:
    """A speedup with its interval (None where it is open or no noise is known); flags as the analysis gives them."""

    optimizer: str
    speedup: float
    low: float | None
    high: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True)
class SpeedupsInfo:
    """The speedups of every regime where the baseline has a law; ``level`` is the intervals' coverage.

    ``regimes`` counts those that a figure cannot hold as well.
    """

    baseline: str
    level: float
    lanes: tuple[tuple[str, tuple[SpeedupPoint, ...]], ...]
    regimes: int
    where: str = ""

    @property
    def title(self) -> str:
        """What is shown."""
        return f"Speedup over {self.baseline}{self.where}"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f" ({len(self.lanes)} of {self.regimes} regimes are drawn)" if len(self.lanes) < self.regimes else ""
        return (
            f"At a speedup of 1.2, {self.baseline} needs 1.2 times the tokens for the same loss; bars are "
            f"{percent_text(self.level)} intervals, the shaded band is the 1.0 to 1.4 that Wen et al. "
            "(arXiv 2509.02046) found, and an asterisk marks what rests on less than the law within its budgets"
            f"{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per optimizer and regime."""
        return ("regime", "optimizer", "speedup", "low", "high", "flags"), [
            (label, point.optimizer, point.speedup, point.low, point.high, "; ".join(point.flags))
            for label, points in self.lanes
            for point in points
        ]


def speedups_infos(comparison: Comparison) -> list[SpeedupsInfo]:
    """The speedups of a comparison, the baseline's own left out; one figure for all scales, or one for each.

    Scales are drawn apart where one figure would be taller than a screen or two.
    """
    document = comparison.document
    lanes: dict[tuple[str, str], list[tuple[str, tuple[SpeedupPoint, ...]]]] = {}
    for regime in comparison.rankings:
        points = [
            SpeedupPoint(row["optimizer"], row["speedup"], row["low"], row["high"], tuple(row["flags"]))
            for (place, name), row in comparison.speedups.items()
            if place == regime and name != document["baseline"]
        ]
        points.sort(key=lambda point: (-point.speedup, point.optimizer))
        if points:
            lanes.setdefault(regime[:2], []).append((comparison.label(regime), tuple(points)))
    groups = list(lanes.values())
    if sum(len(points) for own in groups for _, points in own) <= TOGETHER:
        groups = [[lane for own in groups for lane in own]] if groups else []
        return [_info(comparison, groups[0])] if groups else []
    names = [f"{corpus} {scale}" if comparison.several_corpora else scale for corpus, scale in lanes]
    return [_info(comparison, groups[at], f" at {names[at]}") for at in spread(len(groups), MOST_FIGURES)]


def _info(
    comparison: Comparison, lanes: Sequence[tuple[str, tuple[SpeedupPoint, ...]]], where: str = ""
) -> SpeedupsInfo:
    chosen = tuple(lanes[place] for place in fitting([len(points) for _, points in lanes]))
    return SpeedupsInfo(comparison.document["baseline"], comparison.document["level"], chosen, len(lanes), where)


def draw_speedups(info: SpeedupsInfo) -> Drawing:
    """A lane per regime, a row per optimizer; an interval that is open above ends in an arrow."""
    lanes = [(label, [point.optimizer for point in points]) for label, points in info.lanes]
    drawing = Drawing(height(lanes), f"speedup over {info.baseline} (tokens/tokens)")
    drawing.band(*PUBLISHED_BAND)
    drawing.rule(1)
    left, right = _range(info)
    beside = [[_beside(point) for point in points] for _, points in info.lanes]
    placed = lay_out(drawing, lanes, beside, f"speedup [{percent_text(info.level)}]")
    rows: dict[str, list[tuple[int, SpeedupPoint]]] = {}
    for (_, points), places in zip(info.lanes, placed, strict=True):
        for point, place in zip(points, places, strict=True):
            rows.setdefault(point.optimizer, []).append((place, point))
    for optimizer, found in rows.items():
        seen = look(optimizer)
        known = [(place, point.low, point.high) for place, point in found if point.low is not None]
        ends = [(place, low, right if high is None or high > right else high, high) for place, low, high in known]
        drawing.scatter(
            x=[x for _, low, end, _ in ends for x in (low, end, None)],
            y=[y for place, *_ in ends for y in (place, place, None)],
            mode="lines+markers",
            hoverinfo="skip",
            opacity=0.6,
            line={"color": seen.colour, "width": 3},
            marker={
                "symbol": [mark for *_, end, high in ends
                           for mark in ("line-ns", "line-ns" if high == end else "triangle-right", "line-ns")],
                "size": 9,
                "color": seen.colour,
                "line": {"width": 2, "color": seen.colour},
            },
            cliponaxis=False,
        )  # fmt: skip
        doubtful = ["interpolated" in point.flags for _, point in found]
        drawing.scatter(
            x=[min(point.speedup, right) for _, point in found],
            y=[place for place, _ in found],
            mode="markers",
            marker={
                "symbol": [hollow(seen.symbol) if open_ else seen.symbol for open_ in doubtful],
                "size": 11,
                "color": seen.colour,
                "opacity": 1,
                "line": {"width": [2 * open_ for open_ in doubtful]},
            },
            text=[f"{_beside(point)} {', '.join(point.flags)}" for _, point in found],
            hovertemplate="%{text}<extra></extra>",
            cliponaxis=False,
        )
    drawing.across.update(range=[left, right], tickformat=".2~f", nticks=5, tickangle=0)
    return drawing


def _range(info: SpeedupsInfo) -> tuple[float, float]:
    """From the lowest interval to the highest, but not beyond twice the largest speedup: some are open above."""
    every = [point for _, points in info.lanes for point in points]
    largest = max(1.5, *(point.speedup for point in every if "lower bound" not in point.flags), 1.5)
    ends = [point.high if point.high is not None else point.speedup for point in every]
    starts = [point.low if point.low is not None else point.speedup for point in every]
    return 0.97 * min(0.9, *starts, 0.9), 1.03 * min(max([1.5, *ends]), 2 * largest)


def interval_text(speedup: float, low: float | None, high: float | None) -> str:
    """A speedup with its interval, if there is one."""
    return f"{speedup:.2f}" if low is None else f"{speedup:.2f} [{low:.2f}, {_end(high)}]"


def _beside(point: SpeedupPoint) -> str:
    doubt = "*" if {"extrapolated", "interpolated", "lower bound", "no law"} & set(point.flags) else ""
    if point.low is None:
        return f"{point.speedup:.2f}{doubt}"
    return f"{point.speedup:.2f}{doubt} [{point.low:.2f}, {_end(point.high)}]"


def _end(high: float | None) -> str:
    return "open" if high is None else f"{high:.2f}"
