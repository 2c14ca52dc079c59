"""The order of optimizers in each regime, and which of them cannot be told apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tuneopt.analysis.best import Result
from tuneopt.analysis.noise import Noise, NoiseModel
from tuneopt.analysis.runs import RegimeKey


@dataclass(frozen=True, slots=True)
class Ranking:
    """Optimizers of one regime, lowest loss (nats) first.

    ``groups`` numbers each optimizer's tie group, 1 for the best: a group is its leader and all that follow it within
    the noise's threshold, and the next optimizer leads the next group. None where no noise is known.
    """

    regime: RegimeKey
    order: tuple[str, ...]
    losses: tuple[float, ...]
    groups: tuple[int, ...] | None
    noise: Noise | None

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


def significant(first: Result, second: Result, noise: Noise | None) -> bool:
    """Whether two results of one regime differ by more than noise explains (False where no noise is known)."""
    return noise is not None and abs(first.loss - second.loss) > noise.threshold(first.runs, second.runs)


def _rank(regime: RegimeKey, members: list[Result], noise: Noise | None) -> Ranking:
    ordered = sorted(members, key=lambda result: (result.loss, result.optimizer))
    groups: list[int] = []
    leader = ordered[0]
    for result in ordered:
        if groups and significant(leader, result, noise):
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
    )
