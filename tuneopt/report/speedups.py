"""Speedups over AdamW, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

from tuneopt.report.compare import Comparison
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import look
from tuneopt.report.rows import fitting, height, lay_out
from tuneopt.report.text import percent_text

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

    @property
    def title(self) -> str:
        """What is shown."""
        return f"Speedup over {self.baseline}"

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


def speedups_info(comparison: Comparison) -> SpeedupsInfo | None:
    """The speedups of a comparison, the baseline's own left out; None where there is none."""
    document = comparison.document
    lanes = []
    for regime in comparison.rankings:
        rows = [row for (place, name), row in comparison.speedups.items()
                if place == regime and name != document["baseline"]]  # fmt: skip
        points = [
            SpeedupPoint(row["optimizer"], row["speedup"], row["low"], row["high"], tuple(row["flags"])) for row in rows
        ]
        if points:
            lanes.append(
                (comparison.label(regime), tuple(sorted(points, key=lambda point: (-point.speedup, point.optimizer))))
            )
    chosen = fitting([len(points) for _, points in lanes])
    drawn = tuple(lanes[place] for place in chosen)
    return SpeedupsInfo(document["baseline"], document["level"], drawn, len(lanes)) if lanes else None


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
        hollow = ["interpolated" in point.flags for _, point in found]
        drawing.scatter(
            x=[min(point.speedup, right) for _, point in found],
            y=[place for place, _ in found],
            mode="markers",
            marker={
                "symbol": [seen.symbol + "-open" * open_ for open_ in hollow],
                "size": 11,
                "color": seen.colour,
                "opacity": 1,
                "line": {"width": [2 * open_ for open_ in hollow]},
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


def _beside(point: SpeedupPoint) -> str:
    doubt = "*" if {"extrapolated", "interpolated", "lower bound", "no law"} & set(point.flags) else ""
    if point.low is None:
        return f"{point.speedup:.2f}{doubt}"
    return f"{point.speedup:.2f}{doubt} [{point.low:.2f}, {_end(point.high)}]"


def _end(high: float | None) -> str:
    return "open" if high is None else f"{high:.2f}"
