"""The distance to the best by ratio and scale, in nats.

Groups of places stand next to each other on one horizontal axis, with one line for each optimizer in each group.

Encodings: colour and symbol are the optimizer's, a hollow mark is less sure than the others of its figure, and a thin
vertical bar is an interval. The optimizers of a place stand a little apart from each other, so that their intervals
can be told apart. A faint rule separates groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneopt.analysis.names import optimizer_name, place_name, scale_name
from tuneopt.analysis.ranking import Ranking
from tuneopt.constants import TOLERANCE
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, Mark, scale_edge, spread
from tuneopt.reporting.palette import FAINT, MUTED, hollow, look, position
from tuneopt.reporting.text import change_text, plain

GAP = 0.7
"""Empty room between two groups, in places."""

MOST_PLACES = 24
"""Places on the axis: more labels than these would lie over each other."""


@dataclass(frozen=True)
class Spot:
    """A value of one optimizer at one place; None at an end of the interval that is open or not known.

    ``group`` and ``place`` are the names under and above the plot, and ``sure`` is false for a hollow mark.
    """

    group: str
    place: str
    optimizer: str
    value: float
    low: float | None
    high: float | None
    hover: str
    sure: bool = True


def places_of(spots: Sequence[Spot]) -> Mapping[tuple[str, str], float]:
    """Where each (group, place) stands on the axis, in the order in which they come."""
    groups: dict[str, dict[str, None]] = {}
    for spot in spots:
        groups.setdefault(spot.group, {})[spot.place] = None
    places: dict[tuple[str, str], float] = {}
    at = 0.0
    for group, names in groups.items():
        for name in names:
            places[group, name] = at
            at += 1
        at += GAP
    return places


def draw_groups(drawing: Drawing, spots: Sequence[Spot], ceiling: float, floor: float) -> None:
    """Draw lines within groups, a mark for each value and thin bars for intervals.

    ``floor`` and ``ceiling`` are the vertical scale: bars are cut there, and a mark above stands at the ceiling.
    """
    places = places_of(spots)
    optimizers = sorted({spot.optimizer for spot in spots}, key=position)
    # All optimizers of a place together fill at most 0.62 of the room between two places.
    step = min(0.07, 0.62 / max(len(optimizers), 1))
    for number, optimizer in enumerate(optimizers):
        own = [spot for spot in spots if spot.optimizer == optimizer]
        colour, symbol = look(optimizer)
        shift = step * (number - (len(optimizers) - 1) / 2)
        x = [round(places[spot.group, spot.place] + shift, 4) for spot in own]
        ends = [[min(max(spot.value if end is None else end, floor), ceiling) for end in (spot.low, spot.high)]
                for spot in own]  # fmt: skip
        own_lines: dict[str, list[tuple[float, float]]] = {}
        for at, spot in zip(x, own, strict=True):
            own_lines.setdefault(spot.group, []).append((at, spot.value))
        bars = [[(at, end) for end in pair] for at, pair in zip(x, ends, strict=True)]
        drawing.lines(bars, colour, 1.5, opacity=0.45, legendgroup=optimizer, showlegend=False)
        drawing.lines(own_lines.values(), colour, 1.6, legendgroup=optimizer, showlegend=False)
        marks = [Mark(at, min(spot.value, ceiling), spot.hover, symbol if spot.sure else hollow(symbol), 8)
                 for at, spot in zip(x, own, strict=True)]  # fmt: skip
        drawing.marks(marks, colour, name=plain(optimizer_name(optimizer)), legendgroup=optimizer)
    drawing.up.update(range=[floor, ceiling])
    drawing.across.update(
        tickmode="array", tickvals=list(places.values()), ticktext=[plain(name) for _, name in places],
        range=[-0.6, max(places.values(), default=0.0) + 0.6], showgrid=False, tickfont={"size": 11},
        autotickangles=[0, -90],
    )  # fmt: skip
    groups: dict[str, list[float]] = {}
    for (group, _), at in places.items():
        groups.setdefault(group, []).append(at)
    for number, (group, at_all) in enumerate(groups.items()):
        drawing.note(f"<b>{plain(group)}</b>", x=sum(at_all) / len(at_all), y=1, yref="paper", yanchor="bottom",
                     font={"size": 12})  # fmt: skip
        if number:
            drawing.rule(at_all[0] - (1 + GAP) / 2, FAINT)
    if "legend" in drawing.layout:  # above the names of the groups
        drawing.layout["legend"]["y"] = 1.07


@dataclass(frozen=True)
class Distance:
    """How far an optimizer's loss lies above the lowest of its regime, in nats.

    ``tied`` says whether it is in the best tie group, None where the noise is not known.
    """

    corpus: str
    scale: str
    ratio: float
    optimizer: str
    nats: float
    tied: bool | None


@dataclass(frozen=True)
class AgainstRatioInfo(Info):
    """Claim: where two lines cross between ratios, the ranking of two optimizers flips.

    ``distances`` are those at every scale with two ratios or more, in nats above the lowest loss of the regime.
    ``threshold`` is the largest difference between two single runs that noise explains, over all regimes drawn, after
    the correction for the number of pairs (`tuneopt.analysis.ranking`): nothing below it is a difference. Where the
    noise is not known, marks are hollow. ``hidden`` regimes do not fit; ratios are left out evenly.
    """

    distances: tuple[Distance, ...]
    threshold: float | None
    hidden: int

    title = "Distance to the lowest loss, by ratio and scale"
    columns = ("corpus", "scale", "ratio", "optimizer", "above_lowest_nats", "tied_with_lowest")

    def _reading(self) -> str:
        noise = ", and below the dashed line a distance is within noise" if self.threshold is not None else ""
        hidden = f" ({self.hidden} regimes are not drawn)" if self.hidden else ""
        return (
            "Zero is the lowest loss of a regime; where two lines cross, the ranking of the two flips between ratios"
            f"{noise}{hidden}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [(one.corpus, one.scale, one.ratio, one.optimizer, one.nats, one.tied) for one in self.distances]


def against_ratio_info(rankings: Sequence[Ranking], scales: Sequence[str]) -> AgainstRatioInfo | None:
    """The distances of all rankings; None where no scale has two ratios. ``scales`` are names, smallest first.

    Regimes with one optimizer are left out, and so are scales with one ratio: neither has a line that could cross.
    """
    groups: dict[tuple[str, str], list[Ranking]] = {}
    for ranking in rankings:
        if len(ranking.order) > 1:
            groups.setdefault((ranking.regime.corpus, ranking.regime.scale), []).append(ranking)
    keys = sorted((key for key, own in groups.items() if len(own) > 1), key=lambda key: (key[0], scales.index(key[1])))
    if not keys:
        return None
    room = max(2, MOST_PLACES // len(keys))  # a line needs two places, whatever the room
    distances: list[Distance] = []
    thresholds: list[float] = []
    hidden = 0
    for key in keys:
        every = sorted(groups[key], key=lambda ranking: ranking.regime.ratio)
        drawn = [every[place] for place in spread(len(every), room)]
        hidden += len(every) - len(drawn)
        for ranking in drawn:
            tie_groups: Sequence[int | None] = ranking.groups or [None] * len(ranking.order)
            own = [
                Distance(*ranking.regime, name, loss - ranking.losses[0], None if group is None else group == 1)
                for name, loss, group in zip(ranking.order, ranking.losses, tie_groups, strict=True)
            ]
            distances += sorted(own, key=lambda one: position(one.optimizer))
            thresholds += [] if ranking.span is None else [ranking.span]
    return AgainstRatioInfo(tuple(distances), max(thresholds, default=None), hidden)


def draw_against_ratio(info: AgainstRatioInfo) -> Drawing:
    """Groups are scales, places are ratios: a reader looks for crossings along the training budget first.

    Distances beyond the scale stand at its upper edge: the worst optimizers would flatten the differences among the
    best. The dashed line is the threshold of noise; without one the scale is made for the tolerance of the paper.
    """
    several = len({one.corpus for one in info.distances}) > 1
    spots = [
        Spot(f"{one.corpus} {scale_name(one.scale)}" if several else scale_name(one.scale), f"{one.ratio:g}x",
             one.optimizer, one.nats, None, None,
             f"{optimizer_name(one.optimizer)} at {place_name(one.scale, one.ratio)}: {change_text(one.nats)} nats"
             f"{', tied with the lowest' if one.tied else ''}", one.tied is not None)
        for one in info.distances
    ]  # fmt: skip
    drawing = Drawing(440, "data-to-model ratio, by scale", "loss above the lowest (nats/token)", legend=True)
    edge = scale_edge([one.nats for one in info.distances], info.threshold or TOLERANCE)
    draw_groups(drawing, spots, 1.12 * edge, -0.06 * edge)
    drawing.level(0)
    if info.threshold is not None:
        drawing.level(info.threshold, MUTED, "dash")
    drawing.up.update(tickformat=".4~g")
    return drawing
