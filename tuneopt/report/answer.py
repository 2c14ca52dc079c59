"""The first screen: which optimizer, at which scale, by how much, and how sure; as data that ``--json`` prints too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuneopt.report.palette import position
from tuneopt.report.rows import spread
from tuneopt.report.text import listed, plural

MOST_ROWS, MOST_COLUMNS = 8, 8
"""Scales and ratios that the first screen shows; the rankings below have all."""


@dataclass(frozen=True)
class Place:
    """The answer in one regime: who leads, and by how much over the baseline.

    ``leaders`` is the best tie group, lowest loss first; empty where no noise is known, and then ``lowest`` is who
    measured the lowest loss. ``speedup`` and ``interval`` are texts: the range over the leaders, and from the lowest to
    the highest end of their intervals; empty where there is no speedup.
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
    """The answer that a report's document holds."""
    baseline = document["baseline"]
    speedups = {(*_key(row), row["optimizer"]): row for row in document["speedups"]}
    places = tuple(_place(ranking, speedups, baseline) for ranking in document["rankings"] if len(ranking["order"]) > 1)
    optimizers = sorted({name for ranking in document["rankings"] for name in ranking["order"]}, key=position)
    return Answer(_headline(places, optimizers, len(document["rankings"])), places)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["corpus"], row["scale"], row["ratio"]


def _place(ranking: Mapping[str, Any], speedups: Mapping[tuple[Any, ...], Mapping[str, Any]], baseline: str) -> Place:
    groups = ranking["tie_groups"]
    leaders = () if groups is None else tuple(
        name for name, group in zip(ranking["order"], groups, strict=True) if group == 1
    )  # fmt: skip
    named = leaders or tuple(ranking["order"][:1])
    rows = [speedups[key] for name in named if (key := (*_key(ranking), name)) in speedups]
    speedup, interval = _amount([row for row in rows if row["optimizer"] != baseline])
    return Place(
        corpus=ranking["corpus"],
        scale=ranking["scale"],
        ratio=ranking["ratio"],
        leaders=leaders,
        lowest=ranking["order"][0],
        compared=len(ranking["order"]),
        speedup=speedup,
        interval=interval,
        sure=not any({"interpolated", "lower bound", "no law"} & set(row["flags"]) for row in rows),
    )


def _amount(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The range of speedups, such as 1.24\u20131.27\u00d7, and the widest ends of their intervals."""
    rows = [row for row in rows if "no law" not in row["flags"]]
    if not rows:
        return "", ""
    least, most = min(row["speedup"] for row in rows), max(row["speedup"] for row in rows)
    sign = "\u2265\u00a0" if any("lower bound" in row["flags"] for row in rows) else ""
    span = f"{least:.2f}" if f"{least:.2f}" == f"{most:.2f}" else f"{least:.2f}\u2013{most:.2f}"
    if any(row["low"] is None for row in rows):
        return f"{sign}{span}\u00d7", ""
    high = "open" if any(row["high"] is None for row in rows) else f"{max(row['high'] for row in rows):.2f}"
    return f"{sign}{span}\u00d7", f"[{min(row['low'] for row in rows):.2f}, {high}]"


def _headline(places: Sequence[Place], optimizers: Sequence[str], regimes: int) -> str:
    """Who leads, with whom it ties, and where; never a lone winner that is not one."""
    if not places:
        return f"{plural(len(optimizers), 'optimizer')} in {plural(regimes, 'regime')}: nothing to compare yet"
    known = [place for place in places if place.leaders]
    if len(places) == 1:
        return _single(places[0])
    if not known:
        counts = _counts(places)
        first = ", ".join(f"{name} in {count}" for name, count in counts[:3])
        return f"Lowest loss measured, the noise being unknown: {first} of {len(places)} regimes"
    where = {1: "the one regime", 2: "both regimes"}.get(len(known), f"all {len(known)} regimes")
    if len(known) < len(places):
        where += " with several optimizers and known noise"
    elif len(known) < regimes:
        where += " with several optimizers"
    groups = {frozenset(place.leaders) for place in known}
    if len(groups) == 1:
        names = sorted(next(iter(groups)), key=position)
        return f"{listed(names)} {'tie for' if len(names) > 1 else 'has'} the lowest loss in {where}"
    counts = _counts(known)
    always = [name for name, count in counts if count == len(known)]
    if not always:
        (first, most), rest = counts[0], [f"{name} in {count}" for name, count in counts[1:3]]
        words = listed([f"{first} leads or ties in {most} of {len(known)} regimes", *rest])
        return f"No optimizer is best everywhere: {words}"
    others = [(name, count) for name, count in counts if name not in always]
    joined = listed([f"{name} in {count}" for name, count in others[:3]])
    if len(always) > 1:
        return f"{listed(sorted(always, key=position))} tie for the lowest loss in {where}, with {joined}"
    alone = sum(len(place.leaders) == 1 for place in known)
    first = f"alone in {alone}, " if alone else ""
    return f"{always[0]} is in the leading group in {where}: {first}tied with {joined}"


def _single(place: Place) -> str:
    where = f"at {place.scale}/{place.ratio:g}x"
    if not place.leaders:
        return f"{place.lowest} has the lowest loss measured {where}, the noise being unknown"
    names = sorted(place.leaders, key=position) if len(place.leaders) > 1 else list(place.leaders)
    return f"{listed(names)} {'tie for' if len(names) > 1 else 'has'} the lowest loss {where}"


def _counts(places: Sequence[Place]) -> list[tuple[str, int]]:
    """In how many places each name leads, most often first."""
    found: dict[str, int] = {}
    for place in places:
        for name in place.names:
            found[name] = found.get(name, 0) + 1
    return sorted(found.items(), key=lambda item: (-item[1], position(item[0])))


def grid(answered: Answer, scales: Sequence[str]) -> Grid:
    """The answers as a table; ``scales`` are the scales' names, smallest first."""
    several = len({place.corpus for place in answered.places}) > 1
    order = {name: number for number, name in enumerate(scales)}
    rows = sorted({(place.corpus, place.scale) for place in answered.places}, key=lambda key: (key[0], order[key[1]]))
    ratios = sorted({place.ratio for place in answered.places})
    shown = [ratios[at] for at in spread(len(ratios), MOST_COLUMNS)]
    kept = [rows[at] for at in spread(len(rows), MOST_ROWS)]
    found = {(place.corpus, place.scale, place.ratio): place for place in answered.places}
    drawn = tuple(
        (f"{corpus} {scale}".strip() if several else scale, tuple(found.get((corpus, scale, ratio)) for ratio in shown))
        for corpus, scale in kept
    )
    here = sum(place is not None for _, own in drawn for place in own)
    return Grid(tuple(f"{ratio:g}x" for ratio in shown), drawn, len(answered.places) - here)
