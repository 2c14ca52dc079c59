"""The order of optimizers in each regime, and which of them cannot be told apart.

All pairs of a regime are one family: the chance that any two equal optimizers land in different groups is at most
`tuneopt.analysis.noise.FAMILY_RATE` (Tukey-Kramer), however many optimizers there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tuneopt.analysis.best import Result
from tuneopt.analysis.noise import FAMILY_RATE, Noise, NoiseModel
from tuneopt.analysis.runs import RegimeKey


@dataclass(frozen=True, slots=True)
class Ranking:
    """Optimizers of one regime, lowest loss (nats) first.

    ``groups`` numbers each optimizer's tie group, 1 for the best: a group is its leader and all that follow it closer
    than the family's span, and the next optimizer leads the next group. Neighbours across a border may lie closer than
    the span: groups are told apart from their leaders. None where no noise is known. ``span`` is the smallest
    difference (nats) that counts between single runs.
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


def rankings(results: Iterable[Result], noise: NoiseModel) -> tuple[Ranking, ...]:
    """The ranking of every regime that has a result, in the order in which the regimes come."""
    regimes: dict[RegimeKey, list[Result]] = defaultdict(list)
    for result in results:
        regimes[result.regime].append(result)
    return tuple(_rank(regime, members, noise.of(regime)) for regime, members in regimes.items())


def significant(
    first: Result, second: Result, noise: Noise | None, compared: int = 2, rate: float = FAMILY_RATE
) -> bool:
    """Whether two of ``compared`` results differ by more than noise explains (False where no noise is known)."""
    return noise is not None and abs(first.loss - second.loss) > noise.span(first.runs, second.runs, compared, rate)


def _rank(regime: RegimeKey, members: list[Result], noise: Noise | None) -> Ranking:
    ordered = sorted(members, key=lambda result: (result.loss, result.optimizer))
    groups: list[int] = []
    leader = ordered[0]
    for result in ordered:
        if groups and significant(leader, result, noise, len(ordered)):
            leader = result
            groups.append(groups[-1] + 1)
        else:
            groups.append(groups[-1] if groups else 1)
    return Ranking(
        regime=regime,
        order=tuple(result.optimizer for result in ordered),
        losses=tuple(result.loss for result in ordered),
        groups=None if noise is None else tuple(groups),
        noise=noise,
        span=None if noise is None else noise.span(1, 1, len(ordered)),
    )
