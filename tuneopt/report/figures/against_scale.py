"""Speedup against model scale, one group of scales for each data-to-model ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.analysis.speedup import Speedup
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.figures.grouped import MOST_PLACES, Spot, draw_groups
from tuneopt.report.figures.speedups import PUBLISHED_BAND, interval_text
from tuneopt.report.palette import MUTED, position
from tuneopt.report.rows import spread
from tuneopt.report.text import percent_text

DOUBTS = frozenset({"interpolated", "lower bound", "no law"})
"""Flags of a speedup that is drawn hollow."""


@dataclass(frozen=True)
class AgainstScaleInfo:
    """The speedups of optimizers other than the baseline, ordered by ratio, then scale (smallest first)."""

    baseline: str
    level: float
    speedups: tuple[Speedup, ...]
    ratios: int
    every_ratio: int

    @property
    def title(self) -> str:
        """What is shown."""
        return f"Speedup over {self.baseline} against model scale"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f", {self.ratios} of {self.every_ratio} ratios being drawn" if self.ratios < self.every_ratio else ""
        return (
            f"A line that falls to the right is an advantage that shrinks as models grow; thin bars are "
            f"{percent_text(self.level)} intervals, the dashed lines bound the 1.0 to 1.4 of Wen et al. (arXiv "
            f"2509.02046), and hollow marks rest on less than a law (click a name to hide it{hidden})."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per optimizer and regime."""
        return ("corpus", "ratio", "scale", "optimizer", "speedup", "low", "high", "flags"), [
            (*_where(each), each.optimizer, each.speedup, each.low, each.high, "; ".join(each.flags))
            for each in self.speedups
        ]


def _where(each: Speedup) -> tuple[str, float, str]:
    return each.regime.corpus, each.regime.ratio, each.regime.scale


def against_scale_info(
    speedups: Sequence[Speedup], scales: Sequence[str], baseline: str, level: float
) -> AgainstScaleInfo | None:
    """The speedups as a function of scale; None where no ratio has two scales.

    ``scales`` are the scale names, smallest first. Where there are several corpora, each is drawn apart only by its
    name in the group.
    """
    order = {scale: place for place, scale in enumerate(scales)}
    rivals = [each for each in speedups if each.optimizer != baseline]
    sizes: dict[tuple[str, float], set[str]] = {}
    for each in rivals:
        sizes.setdefault((each.regime.corpus, each.regime.ratio), set()).add(each.regime.scale)
    lines = sorted(key for key, found in sizes.items() if len(found) > 1)
    if not lines:
        return None
    widest = max(len(sizes[key]) for key in lines)
    kept = {lines[place] for place in spread(len(lines), max(1, MOST_PLACES // widest))}
    drawn = [each for each in rivals if (each.regime.corpus, each.regime.ratio) in kept]
    drawn.sort(key=lambda each: (each.regime.corpus, each.regime.ratio, order[each.regime.scale],
                                 position(each.optimizer)))  # fmt: skip
    return AgainstScaleInfo(baseline, level, tuple(drawn), len(kept), len(lines))


def draw_against_scale(info: AgainstScaleInfo) -> Drawing:
    """One line for each optimizer in each group of scales."""
    several = len({each.regime.corpus for each in info.speedups}) > 1
    spots = [
        Spot(
            group=f"{each.regime.corpus} {each.regime.ratio:g}x".strip() if several else f"{each.regime.ratio:g}x",
            place=each.regime.scale,
            optimizer=each.optimizer,
            value=each.speedup,
            low=each.low,
            high=each.high,
            hover=f"{each.optimizer} at {each.regime.label}: {interval_text(each.speedup, each.low, each.high)}",
            sure=not DOUBTS & set(each.flags),
        )
        for each in info.speedups
    ]
    drawing = Drawing(440, "model scale, by data-to-model ratio", f"speedup over {info.baseline} (tokens/tokens)",
                      legend=True)  # fmt: skip
    known = [each.speedup for each in info.speedups if not DOUBTS & set(each.flags)] or [1.0]
    ceiling = max(1.5, 1.08 * max(known))
    floor = max(min(0.9, 0.95 * min(each.speedup for each in info.speedups)), 0.0)
    draw_groups(drawing, spots, ceiling, floor)
    for edge in PUBLISHED_BAND:
        drawing.level(edge, MUTED, "solid" if edge == 1 else "dash")
    return drawing
