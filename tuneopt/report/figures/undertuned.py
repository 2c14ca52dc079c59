"""What a badly tuned baseline would have manufactured: the speedup that the tuned baseline shows over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.analysis.runs import RegimeKey
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.figures.speedups import PUBLISHED_BAND, interval_text
from tuneopt.report.palette import look
from tuneopt.report.rows import fitting, height, lay_out
from tuneopt.report.text import change_text, percent_text, plain

if TYPE_CHECKING:
    from tuneopt.analysis.fairness import Undertuned


@dataclass(frozen=True)
class UndertunedInfo:
    """The under-tuned baselines that were run, by regime."""

    baseline: str
    level: float
    lanes: tuple[tuple[RegimeKey, tuple[Undertuned, ...]], ...]
    regimes: int

    @property
    def title(self) -> str:
        """What is shown."""
        return f"Speedup that an under-tuned {self.baseline} would manufacture"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f" ({len(self.lanes)} of {self.regimes} regimes are drawn)" if len(self.lanes) < self.regimes else ""
        return (
            f"Each row is {self.baseline} tuned less than its rivals; a mark at 1.3 means that any optimizer no better "
            f"than the tuned {self.baseline} would have been reported as 1.3 times faster{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per under-tuned configuration."""
        columns = ("corpus", "scale", "ratio", "kind", "what", "gpt3_value", "status", "loss_nats", "regret_nats",
                   "manufactured_speedup", "low", "high", "trial")  # fmt: skip
        return columns, [
            (*regime, each.kind, each.what, each.gpt3, each.status, each.loss, each.regret, each.manufactured,
             each.low, each.high, each.trial)
            for regime, own in self.lanes
            for each in own
        ]  # fmt: skip


def undertuned_info(found: Sequence[Undertuned], baseline: str, level: float) -> UndertunedInfo | None:
    """The under-tuned baselines whose cost is known; None without one."""
    regimes: dict[RegimeKey, list[Undertuned]] = {}
    for each in found:
        if each.status in ("trial", "diverged"):
            regimes.setdefault(each.regime, []).append(each)
    lanes = [(regime, tuple(own)) for regime, own in regimes.items()]
    chosen = tuple(lanes[place] for place in fitting([len(own) for _, own in lanes]))
    return UndertunedInfo(baseline, level, chosen, len(lanes)) if chosen else None


def draw_undertuned(info: UndertunedInfo) -> Drawing:
    """A lane per regime, a row per way to tune too little; what diverged stands at the right edge."""
    several = len({regime.corpus for regime, _ in info.lanes}) > 1
    lanes = [
        (regime.label if several else regime._replace(corpus="").label, [_name(each) for each in own])
        for regime, own in info.lanes
    ]
    drawing = Drawing(height(lanes), "manufactured speedup (tokens/tokens)")
    drawing.band(*PUBLISHED_BAND)
    drawing.rule(1)
    beside = [[_beside(each) for each in own] for _, own in info.lanes]
    placed = lay_out(drawing, lanes, beside, f"speedup [{percent_text(info.level)}]")
    known = [each.manufactured for _, own in info.lanes for each in own if each.manufactured is not None]
    right = min(1.08 * max([1.5, *known]), 4.0)
    seen = look(info.baseline)
    for (_, own), places in zip(info.lanes, placed, strict=True):
        for each, place in zip(own, places, strict=True):
            value = each.manufactured
            if value is not None:
                drawing.scatter(
                    x=[min(each.low or value, right), min(each.high or value, right)], y=[place] * 2, mode="lines",
                    line={"color": seen.colour, "width": 3}, opacity=0.5, hoverinfo="skip",
                )  # fmt: skip
            drawing.scatter(
                x=[right if value is None else min(value, right)], y=[place], mode="markers",
                marker={"symbol": _symbol(each, value, right), "size": 11, "color": seen.colour,
                        "line": {"width": 2 if value is None else 0, "color": seen.colour}},
                text=[plain(f"{_name(each)}: {_beside(each)}, {change_text(each.regret)} nats")],
                hovertemplate="%{text}<extra></extra>", cliponaxis=False,
            )  # fmt: skip
    drawing.across.update(range=[0.95, 1.01 * right], tickformat=".2~f", nticks=5, tickangle=0)
    return drawing


def _symbol(each: Undertuned, value: float | None, right: float) -> str:
    if value is None:
        return "x-thin"
    return "triangle-right" if value > right else "star" if each.gpt3 else "circle"


def _name(each: Undertuned) -> str:
    words = each.what.replace("learning_rate = ", "rate ")
    return f"{words} (GPT-3)" if each.gpt3 else words


def _beside(each: Undertuned) -> str:
    if each.manufactured is None:
        return "diverged" if each.status == "diverged" else change_text(each.regret)
    return interval_text(each.manufactured, each.low, each.high)
