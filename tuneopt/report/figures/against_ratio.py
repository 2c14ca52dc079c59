"""Distance to the best optimizer against the data-to-model ratio: where lines cross, the ranking flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.analysis.ranking import Ranking
from tuneopt.constants import TOLERANCE
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.figures.grouped import MOST_PLACES, Spot, draw_groups
from tuneopt.report.figures.star import scale_edge
from tuneopt.report.palette import MUTED, position
from tuneopt.report.rows import spread
from tuneopt.report.text import change_text


@dataclass(frozen=True)
class Distance:
    """How far an optimizer's loss lies above the lowest of its regime, in nats; ``tied`` with the lowest."""

    corpus: str
    scale: str
    ratio: float
    optimizer: str
    nats: float
    tied: bool | None


@dataclass(frozen=True)
class AgainstRatioInfo:
    """The distances at every scale with two ratios or more; ``threshold`` is a difference that noise explains."""

    distances: tuple[Distance, ...]
    threshold: float | None
    hidden: int

    title = "Distance to the lowest loss, by ratio and scale"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        noise = ", and below the dashed line a distance is within noise" if self.threshold is not None else ""
        hidden = f" ({self.hidden} regimes are not drawn)" if self.hidden else ""
        return (
            "Zero is the lowest loss of a regime; where two lines cross, the ranking of the two flips between ratios"
            f"{noise}{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per optimizer and regime."""
        columns = ("corpus", "scale", "ratio", "optimizer", "above_lowest_nats", "tied_with_lowest")
        return columns, [
            (each.corpus, each.scale, each.ratio, each.optimizer, each.nats, each.tied) for each in self.distances
        ]


def against_ratio_info(rankings: Sequence[Ranking], scales: Sequence[str]) -> AgainstRatioInfo | None:
    """The distances of all rankings; None where no scale has two ratios. ``scales`` are names, smallest first."""
    order = {scale: place for place, scale in enumerate(scales)}
    groups: dict[tuple[str, str], list[Ranking]] = {}
    for ranking in rankings:
        if len(ranking.order) > 1:
            groups.setdefault((ranking.regime.corpus, ranking.regime.scale), []).append(ranking)
    lines = sorted((key for key, found in groups.items() if len(found) > 1), key=lambda key: (key[0], order[key[1]]))
    if not lines:
        return None
    room = max(2, MOST_PLACES // len(lines))
    found = []
    thresholds = []
    hidden = 0
    for key in lines:
        every = sorted(groups[key], key=lambda ranking: ranking.regime.ratio)
        drawn = [every[place] for place in spread(len(every), room)]
        hidden += len(every) - len(drawn)
        for ranking in drawn:
            found += _distances(ranking)
            if ranking.span is not None:
                thresholds.append(ranking.span)
    return AgainstRatioInfo(tuple(found), max(thresholds, default=None), hidden)


def _distances(ranking: Ranking) -> list[Distance]:
    groups: Sequence[int | None] = ranking.groups or [None] * len(ranking.order)
    own = [
        Distance(*ranking.regime, name, loss - ranking.losses[0], None if group is None else group == 1)
        for name, loss, group in zip(ranking.order, ranking.losses, groups, strict=True)
    ]
    return sorted(own, key=lambda each: position(each.optimizer))


def draw_against_ratio(info: AgainstRatioInfo) -> Drawing:
    """One line for each optimizer in each group of ratios; distances beyond the scale stand at its upper edge."""
    several = len({each.corpus for each in info.distances}) > 1
    spots = [
        Spot(
            group=f"{each.corpus} {each.scale}" if several else each.scale,
            place=f"{each.ratio:g}x",
            optimizer=each.optimizer,
            value=each.nats,
            low=None,
            high=None,
            hover=f"{each.optimizer} at {each.scale}/{each.ratio:g}x: {change_text(each.nats)} nats"
            + (", tied with the lowest" if each.tied else ""),
            sure=each.tied is not None,
        )
        for each in info.distances
    ]
    drawing = Drawing(440, "data-to-model ratio, by scale", "loss above the lowest (nats/token)", legend=True)
    edge = scale_edge([each.nats for each in info.distances], info.threshold or TOLERANCE)
    draw_groups(drawing, spots, 1.12 * edge, -0.06 * edge)
    drawing.level(0)
    if info.threshold is not None:
        drawing.level(info.threshold, MUTED, "dash")
    drawing.up.update(tickformat=".4~g")
    return drawing
