"""The first screen: which optimizer, at which scale, by how much, and how sure; as data that ``--json`` prints too.

It is read from the document of the report, so that page and JSON cannot disagree. Its rule is that optimizers which
noise cannot tell apart are named together: a headline never has a lone winner that is not one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tuneopt.analysis.names import optimizer_name, place_name, scale_name, speedup_decimals
from tuneopt.reporting.drawing import spread
from tuneopt.reporting.figures.speedups import NOT_MEASURED
from tuneopt.reporting.palette import position
from tuneopt.reporting.text import listed, plural

MOST_ROWS, MOST_COLUMNS = 8, 8
"""Scales and ratios that the first screen shows; the rankings below have all."""

NAMED = 3
"""Optimizers that a headline counts one by one."""

MOST_LEADERS = 6
"""Equals that a headline names; of more it gives the number."""


@dataclass(frozen=True)
class RegimeAnswer:
    """The answer in one regime: who leads, and by how much over the baseline.

    ``leaders`` is the best tie group, lowest loss first; empty where no noise is known, and then ``lowest`` is who
    measured the lowest loss. ``speedup`` and ``interval`` are texts: the range over the leaders, and an interval; of
    several leaders what all of their intervals lie within; empty where there is no speedup. It is ``sure`` where all
    rest on a law, and ``reached`` where the baseline's runs reach as far, be it only by two of them. ``broken`` are
    those of `names` whose loss lies so far below all others that it may be no loss of theirs. ``equals`` are all whose
    loss is that of ``lowest``.
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
    reached: bool = True
    broken: tuple[str, ...] = ()
    equals: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Who is named: the leaders, or who measured the lowest loss."""
        return self.leaders or self.equals


@dataclass(frozen=True)
class Answer:
    """The headline, and the answer in each regime with several optimizers."""

    headline: str
    places: tuple[RegimeAnswer, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = [
            {**asdict(place), "leaders": list(place.leaders), "equals": list(place.equals)} for place in self.places
        ]
        return {"headline": self.headline, "places": plain}


@dataclass(frozen=True)
class Grid:
    """The answers by scale (rows) and ratio (columns), None where there is none; ``hidden`` counts what is left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[RegimeAnswer | None, ...]], ...]
    hidden: int

    @property
    def places(self) -> tuple[RegimeAnswer, ...]:
        """The answers that are shown."""
        return tuple(place for _, cells in self.rows for place in cells if place is not None)

    @property
    def gains(self) -> bool:
        """Whether any speedup is shown; without one nothing need be said about speedups."""
        return any(place.speedup for place in self.places)

    @property
    def bounded(self) -> bool:
        """Whether any of these speedups has an interval."""
        return any(place.interval for place in self.places)

    @property
    def ranked(self) -> bool:
        """Whether the noise of any regime is known, so that there are groups."""
        return any(place.leaders for place in self.places)

    @property
    def who(self) -> str:
        """What the names in the cells are."""
        return "Best group" if self.ranked else "Lowest loss"

    @property
    def doubted(self) -> bool:
        """Whether any speedup that is shown rests on less than a measurement, and has an asterisk."""
        return any(place.speedup and not place.sure for place in self.places)

    def doubt(self, baseline: str) -> str:
        """What an asterisk says of the speedups that rest on less than a measurement; empty where none has one."""
        doubted = [place for place in self.places if place.speedup and not place.sure]
        far = any(not place.reached for place in doubted)
        few = any(place.reached for place in doubted)
        words = [f"extrapolated, no run of {baseline} reaches so far"] if far else []
        words += [f"on a law through {'two of its runs' if far else f'two runs of {baseline}'} alone"] if few else []
        return " or ".join(words)


def answer(document: Mapping[str, Any]) -> Answer:
    """The answer that a report's document holds. Regimes with one optimizer have none: there is nothing to compare."""
    rankings = document["rankings"]
    speedups = {(row["corpus"], row["scale"], row["ratio"], row["optimizer"]): row for row in document["speedups"]}
    places = tuple(_place(one, speedups, document["baseline"]) for one in rankings if len(one["order"]) > 1)
    optimizers = {name for ranking in rankings for name in ranking["order"]}
    if document.get("targets") and (not places or not document["speedups"]):
        return Answer(_race_headline(document["targets"]), places)
    headline = _one_headline(places[0], document["baseline"]) if len(places) == 1 else ""
    return Answer((headline or _headline(places, len(optimizers), len(rankings))) + _doubt(places), places)


def _doubt(places: Sequence[RegimeAnswer]) -> str:
    """What a headline adds where a loss that it counts is far below all others and may be broken."""
    doubted = [(place, name) for place in places for name in place.broken]
    if not doubted:
        return ""
    if len(doubted) > 1:
        names = sorted({name for _, name in doubted}, key=position)
        return f"; {len(doubted)} of these losses ({listed(map(optimizer_name, names))}) look broken"
    ((place, name),) = doubted
    several = len({one.corpus for one in places}) > 1
    where = f" at {place_name(place.scale, place.ratio, place.corpus if several else '')}"
    where = "" if len(places) == 1 else where
    return f"; the loss of {optimizer_name(name)}{where} looks broken"


def _one_headline(place: RegimeAnswer, baseline: str) -> str:
    """The answer where there is one regime: the speedup of who leads, with its interval; empty where there is none."""
    if not place.speedup or baseline in place.leaders:
        return ""
    names, where = [optimizer_name(name) for name in place.names], place_name(place.scale, place.ratio)
    each = "each " if len(names) > 1 else ""
    reach = "reaches" if len(names) == 1 else "reach"
    doubt = ", by a law through two runs of the baseline" if place.reached else ", by a law beyond the baseline's runs"
    doubt = "" if place.sure else doubt
    return (
        f"{listed(names)} {each}{reach} {optimizer_name(baseline)}'s loss with {place.speedup} fewer tokens "
        f"{place.interval} at {where}{doubt}".replace("  ", " ")
    )


def _place(
    ranking: Mapping[str, Any], speedups: Mapping[tuple[Any, ...], Mapping[str, Any]], baseline: str
) -> RegimeAnswer:
    """The answer in one regime.

    Speedups are those of the leaders; the baseline among them has none over itself. One that rests on no law is not
    shown but makes the place unsure, as an extrapolated one does; the page marks it with an asterisk.
    """
    order, groups = ranking["order"], ranking["tie_groups"] or [None] * len(ranking["order"])
    leaders = tuple(name for name, group in zip(order, groups, strict=True) if group == 1)
    regime = (ranking["corpus"], ranking["scale"], ranking["ratio"])
    # Of equal losses the alphabet decides who comes first: nobody is named without the others.
    equals = tuple(name for name, loss in zip(order, ranking["losses"], strict=True) if loss == ranking["losses"][0])
    named = leaders or equals
    rows = [speedups[(*regime, name)] for name in named if (*regime, name) in speedups]
    speedup, interval = _amount([row for row in rows if row["optimizer"] != baseline and "no law" not in row["flags"]])
    doubts = {flag for row in rows for flag in row["flags"]} & NOT_MEASURED
    sure, reached = not doubts, doubts <= {"interpolated"}
    broken = tuple(name for name in named if name in ranking["broken"])
    return RegimeAnswer(*regime, leaders, order[0], len(order), speedup, interval, sure, reached, broken, equals)


def _amount(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The range of speedups, such as 1.24\u20131.27\u00d7, and the widest ends of their intervals.

    Of several leaders no single speedup is the answer, for they cannot be told apart.
    """
    if not rows:
        return "", ""
    low = None if any(row["low"] is None for row in rows) else min(row["low"] for row in rows)
    high = None if any(row["high"] is None for row in rows) else max(row["high"] for row in rows)
    digits = speedup_decimals(low, high)
    least, most = (f"{pick(row['speedup'] for row in rows):.{digits}f}" for pick in (min, max))
    sign = "\u2265\u00a0" if any("lower bound" in row["flags"] for row in rows) else ""
    span = f"{sign}{least}\u00d7" if least == most else f"{sign}{least}\u2013{most}\u00d7"
    if low is None:
        return span, ""
    ends = f"[{low:.{digits}f}, {'open' if high is None else f'{high:.{digits}f}'}]"
    return span, ends if len(rows) == 1 else f"within {ends}"  # of several, no one interval is this wide


def _race_headline(targets: Sequence[Mapping[str, Any]]) -> str:
    """Who is first to the target in how many tasks, of those that somebody reaches."""
    races: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in targets:
        races.setdefault((row["corpus"], row["ruleset"], row["scale"], row["target"]), []).append(row)
    contested = [rows for rows in races.values() if len(rows) > 1]
    # A task with two targets, or by two sets of rules, is two races.
    task = "task" if len({(rows[0]["corpus"], rows[0]["scale"]) for rows in contested}) == len(contested) else "race"
    first = Counter(name for rows in contested if rows[0]["accepted"] for name in _fewest(rows))
    if len(contested) == 1 and first:
        return _one_race(contested[0])
    counts = sorted(first.items(), key=lambda item: (-item[1], position(item[0])))
    reached = sum(bool(rows[0]["accepted"]) for rows in contested)
    unsure = [rows for rows in contested if not rows[0]["accepted"] and _fewest(rows)]
    if len(contested) == len(unsure) == 1:
        return f"{_one_race(contested[0])}, by a margin that the rule does not accept"
    lacking = [row for rows in contested if not rows[0]["accepted"] for row in rows if row["loss"] is None]
    often = " in most studies" if any(row["lost"] < row["runs"] for row in lacking) else ""
    if contested and not reached:
        where = "the one task" if len(contested) == 1 else f"any of {len(contested)} {task}s"
        by_rule = " by the rule" if unsure else ""
        return f"No optimizer reaches the target{by_rule}{often} in {where}"
    if not reached:
        return f"{plural(len(races), 'race')} to a target: nothing to compare yet"
    close = sum(bool(rows[0]["ties"]) or len(_fewest(rows)) > 1 for rows in contested if rows[0]["accepted"])
    doubt = f" ({close} of these {reached} not told apart from the next)" if close else ""
    by_rule = " by the rule" if unsure else ""
    never = f", and in {len(contested) - reached} nobody reaches it{by_rule}{often}" if len(contested) > reached else ""
    return f"First to the target in {len(contested)} {task}s: {listed(_named(counts))}{doubt}{never}"


def _one_race(rows: Sequence[Mapping[str, Any]]) -> str:
    """Who is first in the one race that was run, and who cannot be told from it."""
    first = rows[0]
    aim = "the target" if first["target"] is None else f"{first['target']:g}" + (" nats" if first["loss"] else "")
    equals = _fewest(rows)
    if len(equals) > 1:
        who = listed(map(optimizer_name, equals)) if len(equals) <= NAMED else plural(len(equals), "optimizer")
        unit = "in the same time" if first["loss"] is None and first["seconds"] else "after equally many steps"
        return f"{who} reach {aim} at {scale_name(first['scale'])} {unit}"
    ties = first["ties"]
    few = len(ties) <= NAMED
    others = listed(map(optimizer_name, ties)) if few else plural(len(ties), "optimizer")
    doubt = f", not told from {others}" if ties else ""
    if first["loss"] and first["lost"]:
        doubt += f", where {first['lost']} of its {first['runs'] + first['lost']} runs diverged"
    need = first["steps"] or first["tokens"]
    # A rival that was only run longer may need as little as the first.
    if any(row["shortest"] and row["low"] is not None and row["low"] <= need for row in rows[1:]):
        doubt += ", of the lengths that were run"
    return f"{optimizer_name(first['optimizer'])} is first to {aim} at {scale_name(first['scale'])}{doubt}"


def _fewest(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who needs as few steps (tokens, seconds) to the target as the first: of equals nobody is first."""
    needs = [
        (row["optimizer"], (row["seconds"] if row["loss"] is None else None) or row["steps"] or row["tokens"])
        for row in rows
    ]
    return [name for name, need in needs if need is not None and need == needs[0][1]]


def _named(counts: Sequence[tuple[str, int]], most: int = NAMED, more: str = "optimizers") -> list[str]:
    """Names with their counts, about ``most`` of them; equals are named together or counted together, never cut apart.

    ``more`` is what those are called that are only counted, where none is named before them.
    """
    words: list[str] = []
    place = 0
    while place < len(counts):
        count = counts[place][1]
        equals = [name for name, other in counts if other == count]
        rest = len(counts) - place
        if rest > 1 and len(equals) > most - len(words):  # a single one is named: to count it takes as many words
            last = f"{count} each" if rest == len(equals) else f"{count} or fewer"
            words.append(f"{rest} {'others' if words else more} in {last}")
            break
        words += [f"{optimizer_name(name)} in {count}" for name in equals]
        place += len(equals)
    return words


def _headline(places: Sequence[RegimeAnswer], optimizers: int, regimes: int) -> str:
    """Who leads, with whom it ties, and where.

    From the strongest statement to the weakest: one group that leads everywhere, one optimizer that is always in the
    leading group, nobody who is.
    """
    if not regimes:
        return "No run has a final loss: nothing to compare yet"
    if not places:
        who = f"{plural(optimizers, 'optimizer')} in {plural(regimes, 'regime')}"
        return f"{who}: nothing to compare yet" if optimizers < 2 else f"{who}, no two in one: losses are not compared"
    known = [place for place in places if place.leaders]
    counts = _counts(known or places)
    if not known:
        if len(places) == 1:
            where = f"at {place_name(places[0].scale, places[0].ratio)}"
            names = sorted(places[0].equals, key=position)
            who = f"{listed(map(optimizer_name, names))} {'have' if len(names) > 1 else 'has'}"
            who = who if len(names) <= MOST_LEADERS else f"{len(names)} optimizers have"
            return f"{who} the lowest loss measured {where}, the noise being unknown"
        return f"Lowest loss measured, the noise being unknown: {', '.join(_named(counts))} of {len(places)} regimes"
    where = {1: "in the one regime", 2: "in both regimes"}.get(len(known), f"in all {len(known)} regimes")
    if len(places) == 1:
        where = f"at {place_name(places[0].scale, places[0].ratio)}"
    elif len(known) < len(places):
        where += " with several optimizers and known noise"
    elif len(known) < regimes:
        where += " with several optimizers"
    if len({frozenset(place.leaders) for place in known}) == 1:
        names = sorted(known[0].leaders, key=position)
        if len(names) > MOST_LEADERS:
            most = max(place.compared for place in known)
            of = "All" if len(names) == most else f"{len(names)} of"
            return f"{of} {most} optimizers tie for the lowest loss {where}"
        return f"{listed(map(optimizer_name, names))} {'tie for' if len(names) > 1 else 'has'} the lowest loss {where}"
    always = [name for name, count in counts if count == len(known)]
    others = _named([(name, count) for name, count in counts if name not in always], more="others")
    if not always:
        equals = [name for name, count in counts if count == counts[0][1]]
        if len(equals) > NAMED:
            first = f"{len(equals)} optimizers lead or tie in {counts[0][1]} of {len(known)} regimes each"
            rest = _named(counts[len(equals) :], 1, "others")
        else:
            first = f"{optimizer_name(counts[0][0])} leads or ties in {counts[0][1]} of {len(known)} regimes"
            rest = _named(counts[1:], NAMED - 1, "others")
        return f"No optimizer is best everywhere: {listed([first, *rest])}"
    if len(always) > 1:
        who = listed(map(optimizer_name, sorted(always, key=position)))
        who = who if len(always) <= MOST_LEADERS else f"{len(always)} optimizers"
        return f"{who} tie for the lowest loss {where}, with {listed(others)}"
    alone = sum(len(place.leaders) == 1 for place in known)
    first = f"alone in {alone}, " if alone else ""
    return f"{optimizer_name(always[0])} is in the leading group {where}: {first}tied with {listed(others)}"


def _counts(places: Sequence[RegimeAnswer]) -> list[tuple[str, int]]:
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
