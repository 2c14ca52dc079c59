"""Where rankings flip: the order of the optimizers by ratio or by model size, as a bump chart.

A line for each optimizer, from its place in one regime to its place in the next; two lines that cross are a flip.
Vertical bars join optimizers that noise cannot tell apart: a crossing inside a bar may be chance. Flips beyond noise
are bold, from the regime where the first order was last sure to the one where the second is.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuneopt.analysis.names import optimizer_name, place_name, ratio_name, ratio_span, scale_name
from tuneopt.analysis.ranking import Flip, Ranking, same_ratios
from tuneopt.analysis.runs import RegimeKey
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, Mark, spread
from tuneopt.reporting.palette import BAND, look, stands_out
from tuneopt.reporting.panels import Label, Panel, Panels
from tuneopt.reporting.text import drawn_of, listed, plain, plural

MOST_PANELS = 6
MOST_PLACES = 8
"""Panels of a figure, and regimes along a panel."""

MOST_NAMED_TWICE = 3
"""Panels that have room for names at both ends of their lines, side by side on a page."""

MOST_LINES = 24
"""Optimizers of a panel; of more, those that flip beyond noise and the best."""

ROW = 19
"""Pixels between two places of a ranking: a line of text."""


@dataclass(frozen=True)
class RegimeLine:
    """Regimes in order along one scale (or one ratio), each with its ranking, and the flips between them.

    ``stops`` are (name on the axis, ranking).
    """

    title: str
    stops: tuple[tuple[str, Ranking], ...]
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class FlipsInfo(Info):
    """Claim: which orders of optimizers hold from regime to regime, and which change by more than noise explains.

    ``by`` is what runs along the axis, ``ratio`` or ``size``. Significance is that of the flips' family
    (`tuneopt.analysis.ranking`), bars are the tie groups of each regime. ``every`` counts the lines that there is no
    room for as well, and ``few`` names the regimes of a line where less than half of its optimizers ran,
    ``broken`` the results that count for no flip, being far above all others.
    """

    by: str
    lines: tuple[RegimeLine, ...]
    every: int
    baseline: str
    few: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    columns = ("corpus", "scale", "ratio", "optimizer", "place", "report_loss_nats", "tie_group")

    def _title(self) -> str:
        sure = [flip for line in self.lines for flip in line.flips if flip.significant]
        unsure = sum(len(line.flips) for line in self.lines) - len(sure)
        what = "the data budget" if self.by == "ratio" else "model size"
        if all(ranking.groups is None for line in self.lines for _, ranking in line.stops):
            pairs = (
                f"{plural(unsure, 'pair')} change{'s' if unsure == 1 else ''} places" if unsure else "No order changes"
            )
            return f"{pairs} with {what}, the noise being unknown"
        if not sure:
            within = f"; {plural(unsure, 'flip')} within it" if unsure else ""
            return f"No order changes with {what} beyond noise{within}"
        where = [line.title for line in self.lines if any(flip.significant for flip in line.flips)]
        places = f", all at {where[0]}" if len(where) == 1 < len(self.lines) else ""
        more = f"; {unsure} more within noise" if unsure else ""
        return f"The order changes with {what}: {plural(len(sure), 'flip')} beyond noise{places}{more}"

    def _reading(self) -> str:
        known = all(ranking.groups is not None for line in self.lines for _, ranking in line.stops)
        bars = "A grey bar joins optimizers that noise cannot tell apart." if known else (
            "Where the noise is not known there are no bars, and any crossing may be chance.")  # fmt: skip
        most = max(len(ranking.order) for line in self.lines for _, ranking in line.stops)
        cut = f" The {MOST_LINES} of {most} optimizers that matter most are drawn." if most > MOST_LINES else ""
        few = f" Where few of them ran is left out: {listed(self.few)}." if self.few else ""
        few += f" Broken, and no flip: {listed(self.broken)}." if self.broken else ""
        return (
            f"The lowest loss is on top. {bars} Bold lines are flips beyond noise"
            f"{drawn_of(len(self.lines), self.every, 'panels')}.{cut}{few}"
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (*ranking.regime, name, place + 1, ranking.losses[place],
             None if ranking.groups is None else ranking.groups[place])
            for line in self.lines
            for _, ranking in line.stops
            for place, name in enumerate(ranking.order)
        ]  # fmt: skip


def flips_info(
    rankings: Sequence[Ranking],
    flips: Sequence[Flip],
    scales: Sequence[str],
    by: str,
    baseline: str,
    far: Iterable[tuple[RegimeKey, str]] = (),
) -> FlipsInfo | None:
    """The rankings along ratios or along sizes; None where no line has two regimes with several optimizers.

    ``far`` are the results that the flips leave out as broken (`tuneopt.analysis.winner.broken`). Lines with a flip
    beyond noise come before others where there is no room for all.
    """
    several = len({ranking.regime.corpus for ranking in rankings}) > 1
    rankings = [ranking for ranking in rankings if len(ranking.order) > 1]
    groups: dict[tuple[str, float], list[Ranking]] = {}
    for ranking, line in zip(rankings, _lines(rankings, scales, by), strict=True):
        groups.setdefault((ranking.regime.corpus, line), []).append(ranking)
    kind = "ratio" if by == "ratio" else "scale"
    lines: list[RegimeLine] = []
    few: list[str] = []
    for (corpus, _), own in sorted(groups.items()):
        seen = Counter(name for ranking in own for name in ranking.order)
        if sum(count > 1 for count in seen.values()) < 2:
            continue  # no two optimizers meet twice: there is no order that could change
        own.sort(key=lambda one: (scales.index(one.regime.scale), one.regime.ratio))
        # Places among a few are no places among all: a line to them would rise though nothing changed.
        most = max(len(ranking.order) for ranking in own)
        few += [place_name(*one.regime[1:]) for one in own if 2 * len(one.order) < most]
        own = [ranking for ranking in own if 2 * len(ranking.order) >= most]
        first = own[0].regime
        title = scale_name(first.scale) if by == "ratio" else ratio_span([one.regime.ratio for one in own])
        here = {one.regime for one in own}
        changed = tuple(flip for flip in flips if flip.kind == kind and {flip.regime, flip.earlier} <= here)
        shown = [own[at] for at in spread(len(own), MOST_PLACES)]
        stops = tuple(
            (ratio_name(one.regime.ratio) if by == "ratio" else scale_name(one.regime.scale), one) for one in shown
        )
        lines.append(RegimeLine(f"{corpus} {title}" if several else title, stops, changed))
    if not lines:
        return None
    sure = [at for at, line in enumerate(lines) if any(flip.significant for flip in line.flips)]
    rest = [at for at in range(len(lines)) if at not in sure]
    kept = sorted((sure + rest)[:MOST_PANELS])
    drawn = {ranking.regime for at in kept for _, ranking in lines[at].stops}
    odd = [f"{optimizer_name(name)} at {place_name(*one[1:])}" for one, name in sorted(far) if one in drawn]
    return FlipsInfo(by, tuple(lines[at] for at in kept), len(lines), baseline, tuple(few), tuple(odd))


def _lines(rankings: Sequence[Ranking], scales: Sequence[str], by: str) -> list[float]:
    """What each ranking's line is called by: its scale's number, or the lowest of the ratios that are about its own."""
    if by == "ratio":
        return [float(scales.index(ranking.regime.scale)) for ranking in rankings]
    lowest = {regime: line[0][1] for line in same_ratios(ranking.regime for ranking in rankings) for regime, _ in line}
    return [lowest[ranking.regime] for ranking in rankings]


def draw_flips(info: FlipsInfo) -> Panels:
    """Places downwards, bars of tie groups under thin lines, bold lines where a flip is beyond noise.

    The baseline is dashed. Names stand at both ends, for a reader comes from either. Where panels are
    many, a row of them has room for the names at the right ends alone.
    """
    most = min(max(len(ranking.order) for line in info.lines for _, ranking in line.stops), MOST_LINES)
    up = (most + 0.3, 0.4)
    x = "tokens / (20 \u00d7 parameters)" if info.by == "ratio" else "model size (parameters)"
    both = len(info.lines) <= MOST_NAMED_TWICE
    return Panels([_panel(line, info, up, both) for line in info.lines], x, "", up, tall=ROW * most + 12)


def _shown(line: RegimeLine) -> set[str]:
    """The optimizers of a line that are drawn: all, or those of flips beyond noise and the best mean places."""
    places: dict[str, list[int]] = {}
    for _, ranking in line.stops:
        for place, name in enumerate(ranking.order):
            places.setdefault(name, []).append(place)
    sure = {name for flip in line.flips if flip.significant for name in flip.pair}
    ordered = sorted(places, key=lambda name: (name not in sure, sum(places[name]) / len(places[name])))
    return set(ordered[:MOST_LINES])


def _panel(line: RegimeLine, info: FlipsInfo, up: tuple[float, float], both: bool) -> Panel:
    drawing = Drawing(0, "", "")
    kept = _shown(line)
    orders = [[name for name in ranking.order if name in kept] for _, ranking in line.stops]
    for at, (_, ranking) in enumerate(line.stops):
        groups: dict[int, list[int]] = {}
        for name, group in zip(ranking.order, ranking.groups or (), strict=bool(ranking.groups)):
            if name in kept:
                groups.setdefault(group, []).append(orders[at].index(name) + 1)
        for own in groups.values():
            if len(own) > 1:
                drawing.bar(at, min(own) - 0.3, max(own) + 0.3, 0.09, BAND)
    bold = _bold(line)
    names = sorted(dict.fromkeys(name for order in orders for name in order), key=lambda name: bool(bold.get(name)))
    for name in names:
        colour, front = look(name).colour, stands_out(name)
        dash = "5px,3px" if name == info.baseline else "solid"
        ways = [(at, order.index(name) + 1) for at, order in enumerate(orders) if name in order]
        thin = [[start, end] for start, end in itertools.pairwise(ways)]
        thick = [pair for pair in thin if any(first <= pair[0][0] and pair[1][0] <= last
                                              for first, last in bold.get(name, ()))]  # fmt: skip
        drawing.lines([pair for pair in thin if pair not in thick], colour, 1.8 if front else 1.2, dash)
        drawing.lines(thick, colour, 4.2, dash)
        marks = [Mark(at, place, _words(line, name, at), "circle", 8 if front else 6.5) for at, place in ways]
        drawing.marks(marks, colour, name=name)
        if not both and ways[-1][0] < len(orders) - 1:  # it ends early: its name stands where it ends
            drawing.note(plain(optimizer_name(name)), x=ways[-1][0], y=ways[-1][1], yanchor="bottom", yshift=3,
                         font={"size": 10, "color": colour})  # fmt: skip
    drawing.across.update(
        range=[-0.12, len(line.stops) - 0.88], tickmode="array", tickvals=list(range(len(line.stops))),
        ticktext=[name for name, _ in line.stops], showgrid=False, tickfont={"size": 11},
    )  # fmt: skip
    drawing.up.update(showgrid=False, showticklabels=False, tickmode="array", tickvals=[])
    labels = []
    for left, at in ((True, 0), (False, len(orders) - 1)):
        labels += [
            Label(
                at,
                place,
                optimizer_name(name),
                look(name).colour,
                name,
                stands_out(name) or name == info.baseline,
                left,
            )
            for place, name in enumerate(orders[at], start=1)
            if both or not left
        ]
    return Panel(line.title, drawing, labels)


def _bold(line: RegimeLine) -> Mapping[str, list[tuple[int, int]]]:
    """For each optimizer the spans of stops, first and last, over which it flips beyond noise."""
    where = {ranking.regime: at for at, (_, ranking) in enumerate(line.stops)}
    bold: dict[str, list[tuple[int, int]]] = {}
    for flip in line.flips:
        if flip.significant and flip.regime in where and flip.earlier in where:
            for name in flip.pair:
                bold.setdefault(name, []).append((where[flip.earlier], where[flip.regime]))
    return bold


def _words(line: RegimeLine, name: str, at: int) -> str:
    """What a mark says: place, loss above the lowest, and with whom it ties."""
    ranking = line.stops[at][1]
    place = ranking.order.index(name)
    behind = ranking.losses[place] - ranking.losses[0]
    group = ranking.group_of(name)
    tied = sum(one == group for one in ranking.groups or ()) - 1 if group is not None else 0
    more = f"\ntied with {plural(tied, 'other')}" if tied else ""
    where = place_name(ranking.regime.scale, ranking.regime.ratio)
    gap = "the lowest loss" if math.isclose(behind, 0.0) else f"{behind:.4f} nats above the lowest"
    return f"{optimizer_name(name)} is number {place + 1} at {where}\n{gap}{more}"
