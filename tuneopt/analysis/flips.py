"""Where two optimizers change places: across ratios, across scales and during training.

A family is all pairs at all places of one line (the ratios of a scale, the scales at a ratio, the fractions of one
regime's training). The chance that a family holds any flip that noise invented and that is called significant is at
most `tuneopt.analysis.noise.FAMILY_RATE`: at each of its K places the pairs are judged by the studentized range at
rate / K, and a flip needs both of its orders to pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from tuneopt.analysis.best import Result
from tuneopt.analysis.noise import FAMILY_RATE, NoiseModel
from tuneopt.analysis.ranking import significant
from tuneopt.analysis.runs import RegimeKey


@dataclass(frozen=True, slots=True)
class Flip:
    """A pair whose order reverses. ``kind`` is ``ratio``, ``scale`` or ``training``; ``pair`` has first what led first.

    ``where`` says between which two regimes, or up to which part of training. ``significant`` means that noise
    explains neither the first order nor the second. ``regime`` is where the flip ends, ``earlier`` where it starts
    (the same during training), ``fraction`` the part of training done when the first order was last seen. ``rate`` is
    the declared chance that the flip's family holds any invented significant flip.
    """

    kind: str
    pair: tuple[str, str]
    where: str
    significant: bool
    regime: RegimeKey
    earlier: RegimeKey
    fraction: float | None = None
    rate: float = FAMILY_RATE


def regime_flips(results: Iterable[Result], noise: NoiseModel) -> tuple[Flip, ...]:
    """Flips across the ratios of each scale, and across the scales (smallest first) at each ratio."""
    every = list(results)
    found: list[Flip] = []
    for kind in ("ratio", "scale"):
        lines: dict[tuple[object, ...], list[Result]] = defaultdict(list)
        for result in every:
            corpus, scale, ratio = result.regime
            lines[(corpus, scale) if kind == "ratio" else (corpus, ratio)].append(result)
        for members in lines.values():
            if kind == "scale" and any(result.parameters is None for result in members):
                continue  # scales of unknown size have no order
            found += _along(kind, members, noise)
    return tuple(found)


def _along(kind: str, members: Sequence[Result], noise: NoiseModel) -> list[Flip]:
    by_name: dict[str, dict[float, Result]] = defaultdict(dict)
    for result in members:
        by_name[result.optimizer][result.regime.ratio if kind == "ratio" else float(result.parameters or 0)] = result
    compared, stops = len(by_name), len({place for line in by_name.values() for place in line})
    found = []
    for first, second in combinations(sorted(by_name), 2):
        places = sorted(by_name[first].keys() & by_name[second].keys())
        line = [(by_name[first][place], by_name[second][place]) for place in places]
        clear = [
            place
            for place, (a, b) in enumerate(line)
            if significant(a, b, noise.of(a.regime), compared, FAMILY_RATE / stops)
        ]
        found += _pair(kind, line, clear)
    return found


def _pair(kind: str, line: list[tuple[Result, Result]], clear: list[int]) -> list[Flip]:
    """Significant reversals between the nearest ``clear`` places, and the others between neighbours."""
    found, covered = [], set[int]()
    for before, after in pairwise(clear):
        if _leads(line[before]) != _leads(line[after]):
            found.append((before, after, True))
            covered |= set(range(before, after))
    for before in range(len(line) - 1):
        if before not in covered and {_leads(line[before]), _leads(line[before + 1])} == {-1, 1}:
            found.append((before, before + 1, False))
    return [_flip(kind, line[before], line[after], sure) for before, after, sure in sorted(found)]


def _leads(pair: tuple[Result, Result]) -> int:
    first, second = pair[0].loss, pair[1].loss
    return int(first > second) - int(first < second)


def _flip(kind: str, before: tuple[Result, Result], after: tuple[Result, Result], sure: bool) -> Flip:
    ahead, behind = before if _leads(before) < 0 else before[::-1]
    start, end = before[0].regime, after[0].regime
    return Flip(kind, (ahead.optimizer, behind.optimizer), f"{start.label} -> {end.label}", sure, end, start)
