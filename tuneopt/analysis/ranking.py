"""The order of optimizers in each regime: which cannot be told apart, and where two of them change places.

All pairs of a regime are one family: the chance that any two equal optimizers land in different tie groups is at most
`tuneopt.analysis.noise.FAMILY_RATE`, however many optimizers there are (Tukey-Kramer; Games-Howell where optimizers do
not share one sigma).

A family of flips is all pairs at all places of one line (the ratios of a scale, the scales at a ratio, the fractions of
one regime's training). The chance that a family holds any flip that noise invented and that is called significant is
at most the same rate: at each of its K places the pairs are judged by the studentized range at rate / K (Bonferroni
over places), and a flip needs both of its orders to pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from tuneopt.analysis.noise import FAMILY_RATE, Noise, NoiseModel, pair_span
from tuneopt.analysis.regimes import ONE_LINE, near
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.winner import Winner, by_regime


@dataclass(frozen=True, slots=True)
class Ranking:
    """Optimizers of one regime, lowest loss (nats) first.

    ``groups`` numbers each optimizer's tie group, 1 for the best: a group is its leader and all that follow it closer
    than the family's span, and the next optimizer leads the next group. Neighbours across a border may lie closer than
    the span: groups are told apart from their leaders. None where no noise is known. ``noise`` is the one bar for all
    optimizers of the regime, ``span`` the smallest difference (nats) that counts between single runs with that noise.
    """

    regime: RegimeKey
    order: tuple[str, ...]
    losses: tuple[float, ...]
    groups: tuple[int, ...] | None
    noise: Noise | None
    span: float | None = None

    @property
    def leaders(self) -> tuple[str, ...]:
        """The first tie group; empty where no noise is known."""
        if self.groups is None:
            return ()
        return tuple(name for name, group in zip(self.order, self.groups, strict=True) if group == 1)

    def group_of(self, optimizer: str) -> int | None:
        """The tie group of an optimizer of this regime, None where no noise is known."""
        return None if self.groups is None else self.groups[self.order.index(optimizer)]


def rankings(winners: Iterable[Winner], noise: NoiseModel) -> tuple[Ranking, ...]:
    """The ranking of every regime that has a result, in the order in which the regimes come."""
    ranked = []
    for regime, members in by_regime(winners).items():
        spread = noise.of(regime)
        ordered = sorted(members, key=lambda winner: (winner.loss, winner.optimizer))
        groups: list[int] = []
        leader = ordered[0]
        for winner in ordered:
            if significant(leader, winner, noise, len(ordered)):
                leader = winner
                groups.append(groups[-1] + 1)
            else:
                groups.append(groups[-1] if groups else 1)
        ranked.append(
            Ranking(
                regime=regime,
                order=tuple(winner.optimizer for winner in ordered),
                losses=tuple(winner.loss for winner in ordered),
                groups=None if spread is None else tuple(groups),
                noise=spread,
                span=None if spread is None else spread.span(1, 1, len(ordered)),
            )
        )
    return tuple(ranked)


def significant(first: Winner, second: Winner, noise: NoiseModel, compared: int = 2, rate: float = FAMILY_RATE) -> bool:
    """Whether two of ``compared`` results differ by more than noise explains (False where no noise is known).

    Each result has the noise of its own optimizer in its own regime.
    """
    one, other = noise.of(first.regime, first.optimizer), noise.of(second.regime, second.optimizer)
    if one is None or other is None:
        return False
    return abs(first.loss - second.loss) > pair_span(one, first.runs, other, second.runs, compared, rate)


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


_Pair = tuple[Winner, Winner]


def regime_flips(winners: Iterable[Winner], noise: NoiseModel) -> tuple[Flip, ...]:
    """Flips across the ratios of each scale, and across the scales (smallest first) at about equal ratios."""
    every = list(winners)
    about = {
        regime: number
        for number, line in enumerate(same_ratios(winner.regime for winner in every))
        for regime, _ in line
    }
    flips: list[Flip] = []
    for kind in ("ratio", "scale"):
        lines: dict[tuple[object, ...], list[Winner]] = defaultdict(list)
        for winner in every:
            lines[winner.regime[:2] if kind == "ratio" else (about[winner.regime],)].append(winner)
        for members in lines.values():
            if kind == "scale" and any(winner.parameters is None for winner in members):
                continue  # scales of unknown size have no order
            flips += _along(kind, members, noise)
    return tuple(flips)


def same_ratios(regimes: Iterable[RegimeKey]) -> list[list[tuple[RegimeKey, float]]]:
    """Lines of regimes of one corpus and about one ratio, each of another scale, with their ratios, lowest first."""
    corpora: dict[str, dict[RegimeKey, float]] = {}
    for regime in regimes:
        corpora.setdefault(regime.corpus, {})[regime] = regime.ratio
    return [line for own in corpora.values() for line in near(own.items(), ONE_LINE, lambda one: one.scale)]


def _along(kind: str, members: Sequence[Winner], noise: NoiseModel) -> list[Flip]:
    """The flips of all pairs along one line."""
    by_name: dict[str, dict[float, Winner]] = defaultdict(dict)
    for winner in members:
        by_name[winner.optimizer][winner.regime.ratio if kind == "ratio" else float(winner.parameters or 0)] = winner
    compared, stops = len(by_name), len({place for line in by_name.values() for place in line})
    flips = []
    for first, second in combinations(sorted(by_name), 2):
        places = sorted(by_name[first].keys() & by_name[second].keys())
        line = [(by_name[first][place], by_name[second][place]) for place in places]
        clear = [place for place, (a, b) in enumerate(line) if significant(a, b, noise, compared, FAMILY_RATE / stops)]
        for before, after, sure in _reversals(line, clear):
            ahead, behind = line[before] if _leads(line[before]) < 0 else line[before][::-1]
            start, end = line[before][0].regime, line[after][0].regime
            where = f"{start.label} -> {end.label}"
            flips.append(Flip(kind, (ahead.optimizer, behind.optimizer), where, sure, end, start))
    return flips


def _reversals(line: Sequence[_Pair], clear: Sequence[int]) -> list[tuple[int, int, bool]]:
    """Where a pair's order reverses: (place before, place after, significant).

    A significant reversal runs from one place where the order is ``clear`` to the next such place. The others lie
    between neighbours, and are left out where a significant one spans them.
    """
    reversals, covered = [], set[int]()
    for before, after in pairwise(clear):
        if _leads(line[before]) != _leads(line[after]):
            reversals.append((before, after, True))
            covered |= set(range(before, after))
    for before in range(len(line) - 1):
        if before not in covered and {_leads(line[before]), _leads(line[before + 1])} == {-1, 1}:
            reversals.append((before, before + 1, False))
    return sorted(reversals)


def _leads(pair: _Pair) -> int:
    """-1 where the first of a pair has the lower loss, 1 where the second has, 0 for equals."""
    first, second = pair[0].loss, pair[1].loss
    return int(first > second) - int(first < second)
