"""The first screen: which optimizer, at which scale, by how much, and how sure; as data that ``--json`` prints too.

It is read from the document of the report, so that page and JSON cannot disagree. Its rule is that optimizers which
noise cannot tell apart are named together: a headline never has a lone winner that is not one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuneopt.analysis.names import optimizer_name, place_name, scale_name
from tuneopt.report.drawing import spread
from tuneopt.report.figures.speedups import LESS_THAN_A_LAW
from tuneopt.report.palette import position
from tuneopt.report.text import listed, plural

MOST_ROWS, MOST_COLUMNS = 8, 8
"""Scales and ratios that the first screen shows; the rankings below have all."""

NAMED = 3
"""Optimizers that a headline counts one by one."""


@dataclass(frozen=True)
class Place:
    """The answer in one regime: who leads, and by how much over the baseline.

    ``leaders`` is the best tie group, lowest loss first; empty where no noise is known, and then ``lowest`` is who
    measured the lowest loss. ``speedup`` and ``interval`` are texts: the range over the leaders, and from the lowest to
    the highest end of their intervals; empty where there is no speedup. It is ``sure`` where all rest on a law.
    """

    corpus: str
    scale: str
    ratio: float
    leaders: tuple[str, ...]
    lowest: str
    compared: int
    speedup: str
    interval: str
    sure: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Who is named: the leaders, or who measured the lowest loss."""
        return self.leaders or (self.lowest,)


@dataclass(frozen=True)
class Answer:
    """The headline, and the answer in each regime with several optimizers."""

    headline: str
    places: tuple[Place, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = [{**asdict(place), "leaders": list(place.leaders)} for place in self.places]
        return {"headline": self.headline, "places": plain}


@dataclass(frozen=True)
class Grid:
    """The answers by scale (rows) and ratio (columns), None where there is none; ``hidden`` counts what is left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Place | None, ...]], ...]
    hidden: int


def answer(document: Mapping[str, Any]) -> Answer:
    """The answer that a report's document holds. Regimes with one optimizer have none: there is nothing to compare."""
    rankings = document["rankings"]
    speedups = {(row["corpus"], row["scale"], row["ratio"], row["optimizer"]): row for row in document["speedups"]}
    places = tuple(_place(one, speedups, document["baseline"]) for one in rankings if len(one["order"]) > 1)
    optimizers = {name for ranking in rankings for name in ranking["order"]}
    return Answer(_headline(places, len(optimizers), len(rankings)), places)


def _place(ranking: Mapping[str, Any], speedups: Mapping[tuple[Any, ...], Mapping[str, Any]], baseline: str) -> Place:
    """The answer in one regime.

    Speedups are those of the leaders; the baseline among them has none over itself. One that rests on no law is not
    shown but makes the place unsure, which the page marks with an asterisk.
    """
    order, groups = ranking["order"], ranking["tie_groups"] or [None] * len(ranking["order"])
    leaders = tuple(name for name, group in zip(order, groups, strict=True) if group == 1)
    regime = (ranking["corpus"], ranking["scale"], ranking["ratio"])
    rows = [speedups[(*regime, name)] for name in leaders or order[:1] if (*regime, name) in speedups]
    speedup, interval = _amount([row for row in rows if row["optimizer"] != baseline and "no law" not in row["flags"]])
    sure = not any(LESS_THAN_A_LAW & set(row["flags"]) for row in rows)
    return Place(*regime, leaders, order[0], len(order), speedup, interval, sure)


def _amount(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The range of speedups, such as 1.24\u20131.27\u00d7, and the widest ends of their intervals.

    Of several leaders no single speedup is the answer, for they cannot be told apart.
    """
    if not rows:
        return "", ""
    least, most = (f"{pick(row['speedup'] for row in rows):.2f}" for pick in (min, max))
    sign = "\u2265\u00a0" if any("lower bound" in row["flags"] for row in rows) else ""
    span = f"{sign}{least}\u00d7" if least == most else f"{sign}{least}\u2013{most}\u00d7"
    if any(row["low"] is None for row in rows):
        return span, ""
    high = "open" if any(row["high"] is None for row in rows) else f"{max(row['high'] for row in rows):.2f}"
    return span, f"[{min(row['low'] for row in rows):.2f}, {high}]"


def _headline(places: Sequence[Place], optimizers: int, regimes: int) -> str:
    """Who leads, with whom it ties, and where.

    From the strongest statement to the weakest: one group that leads everywhere, one optimizer that is always in the
    leading group, nobody who is.
    """
    if not places:
        return f"{plural(optimizers, 'optimizer')} in {plural(regimes, 'regime')}: nothing to compare yet"
    known = [place for place in places if place.leaders]
    counts = _counts(known or places)
    if not known:
        if len(places) == 1:
            where = f"at {place_name(places[0].scale, places[0].ratio)}"
            return f"{optimizer_name(places[0].lowest)} has the lowest loss measured {where}, the noise being unknown"
        first = ", ".join(f"{optimizer_name(name)} in {count}" for name, count in counts[:NAMED])
        return f"Lowest loss measured, the noise being unknown: {first} of {len(places)} regimes"
    where = {1: "in the one regime", 2: "in both regimes"}.get(len(known), f"in all {len(known)} regimes")
    if len(places) == 1:
        where = f"at {place_name(places[0].scale, places[0].ratio)}"
    elif len(known) < len(places):
        where += " with several optimizers and known noise"
    elif len(known) < regimes:
        where += " with several optimizers"
    if len({frozenset(place.leaders) for place in known}) == 1:
        names = sorted(known[0].leaders, key=position)
        return f"{listed(map(optimizer_name, names))} {'tie for' if len(names) > 1 else 'has'} the lowest loss {where}"
    always = [name for name, count in counts if count == len(known)]
    others = [f"{optimizer_name(name)} in {count}" for name, count in counts if name not in always]
    if not always:
        first = f"{optimizer_name(counts[0][0])} leads or ties in {counts[0][1]} of {len(known)} regimes"
        return f"No optimizer is best everywhere: {listed([first, *others[1:NAMED]])}"
    if len(always) > 1:
        who = listed(map(optimizer_name, sorted(always, key=position)))
        return f"{who} tie for the lowest loss {where}, with {listed(others[:NAMED])}"
    alone = sum(len(place.leaders) == 1 for place in known)
    first = f"alone in {alone}, " if alone else ""
    return f"{optimizer_name(always[0])} is in the leading group {where}: {first}tied with {listed(others[:NAMED])}"


def _counts(places: Sequence[Place]) -> list[tuple[str, int]]:
    """In how many places each name leads, most often first; among equals in the palette's order."""
    counts: dict[str, int] = {}
    for place in places:
        for name in place.names:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], position(item[0])))


def grid(answered: Answer, scales: Sequence[str]) -> Grid:
    """The answers as a table; ``scales`` are the scales' names, smallest first. What has no room is left out evenly."""
    several = len({place.corpus for place in answered.places}) > 1
    by_regime = {(place.corpus, place.scale, place.ratio): place for place in answered.places}
    rows = sorted({regime[:2] for regime in by_regime}, key=lambda key: (key[0], scales.index(key[1])))
    ratios = sorted({place.ratio for place in answered.places})
    shown = [ratios[at] for at in spread(len(ratios), MOST_COLUMNS)]
    drawn = []
    for corpus, scale in [rows[at] for at in spread(len(rows), MOST_ROWS)]:
        name = f"{corpus} {scale_name(scale)}".strip() if several else scale_name(scale)
        drawn.append((name, tuple(by_regime.get((corpus, scale, ratio)) for ratio in shown)))
    here = sum(place is not None for _, own in drawn for place in own)
    return Grid(tuple(f"{ratio:g}x" for ratio in shown), tuple(drawn), len(answered.places) - here)
