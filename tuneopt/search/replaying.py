"""One replay of a search over finished trials, as a policy sees it.

A policy is a function of a `Replaying`: it asks for waves and moves the incumbent, and stops at the first wave that has
not ended. `tuneopt.search.descent` starts it from the beginning each time; that is why nothing is ever kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tuneopt.search.space import Config, LadderSpace
from tuneopt.spec import Value

T = TypeVar("T")


class Remember(Protocol):
    """Gives the result of a piece of work that follows from ``key`` alone, done now or at an earlier replay."""

    def __call__(self, key: object, work: Callable[[], T], /) -> T:
        """That result."""


def forgetful(key: object, work: Callable[[], T], /) -> T:
    """A `Remember` that does all work anew."""
    return work()


class Losses(Protocol):
    """The outcomes by configuration, such as a dict: a loss in nats per token, or None if it diverged."""

    def __contains__(self, config: object, /) -> bool:
        """Whether the trial of ``config`` has ended."""

    def get(self, config: Config, /) -> float | None:
        """Its loss; None when it has not ended, and when it cannot be compared."""


@dataclass(frozen=True, slots=True)
class Move:
    """One step of the incumbent; ``changes`` holds (coordinate, value before, value after)."""

    kind: str
    changes: tuple[tuple[str, Value, Value], ...]
    config: Config
    loss_before: float | None
    loss: float
    wave: int


class Replaying:
    """One replay, as a policy sees it: looks outcomes up, counts waves, and remembers what is waited for.

    ``asked`` keeps the order in which configurations were first needed; ``decide`` is false while the noise is not yet
    measured, so that the first wave is asked for and nothing is decided on it; ``foreseen`` is the tolerance that was
    expected before anything ran, for choices that come before the noise. A policy that can tell sets
    ``resolution``: no single change of the incumbent is better by more, in nats, with `CONFIDENCE`. ``remember`` keeps
    costly decisions between replays of one search: every replay takes all of its earlier waves' again.
    """

    def __init__(
        self,
        space: LadderSpace,
        outcomes: Losses,
        tolerance: float,
        feasible: Callable[[Config], bool],
        missing: Container[Config],
        decide: bool,
        foreseen: float | None = None,
        remember: Remember = forgetful,
    ) -> None:
        self.remember = remember
        self.foreseen = tolerance if foreseen is None else foreseen
        self.space, self.outcomes, self.tolerance = space, outcomes, tolerance
        self.feasible, self.missing, self.decide = feasible, missing, decide
        self.incumbent = space.start
        self.asked: dict[Config, None] = {}
        self.pending: tuple[Config, ...] = ()
        self.path: list[Move] = []
        self.waves = 0
        self.resolution: float | None = None

    def loss(self, config: Config) -> float | None:
        """The loss of a finished trial; None for one that diverged, was given up, or is not there."""
        loss = self.outcomes.get(config)
        return loss if loss is not None and math.isfinite(loss) else None

    def losses(self) -> dict[Config, float]:
        """The finished trials in the order in which they were asked for; a model's columns may follow that order."""
        found = ((config, self.loss(config)) for config in self.asked)
        return {config: loss for config, loss in found if loss is not None}

    def known(self) -> tuple[tuple[Config, float | None, bool], ...]:
        """All that the trials asked for so far say: of each its loss, and whether it has ended, in order."""
        return tuple((config, self.loss(config), config in self.outcomes) for config in self.asked)

    def ask(self, configs: list[Config]) -> bool:
        """Require a wave; true when all of it has ended or was given up, and may be decided on.

        A policy returns as soon as this is false: deciding on a part of a wave would let the order in which trials
        finish choose the path.
        """
        fresh = [config for config in configs if config not in self.asked]
        self.waves += bool(fresh)  # what was asked for before costs no further wave
        self.asked.update(dict.fromkeys(fresh))
        self.pending = tuple(config for config in configs if config not in self.outcomes and config not in self.missing)
        return self.decide and not self.pending

    def around(
        self, names: Collection[str] | None = None, centre: Config | None = None
    ) -> list[tuple[str, Value, Config]]:
        """The feasible changes around ``centre``, the incumbent by default, of all coordinates or of some."""
        star = self.space.star(self.incumbent if centre is None else centre)
        return [each for each in star if (names is None or each[0] in names) and self.feasible(each[2])]

    def best(self, changes: list[tuple[str, Value, Config]]) -> Config | None:
        """The lowest of the changes that beat the incumbent by more than the tolerance; None where none does.

        Any finished change beats an incumbent that diverged. Of equal losses the first in star order wins, so that the
        path does not depend on the order in which trials finished.
        """
        now = self.loss(self.incumbent)
        bar = math.inf if now is None else now - self.tolerance
        losses = ((self.loss(config), config) for _, _, config in changes)
        better = [(loss, config) for loss, config in losses if loss is not None and loss < bar]
        return min(better, key=lambda each: each[0])[1] if better else None

    def move(self, kind: str, config: Config) -> None:
        """Make ``config`` the incumbent."""
        before, loss = self.incumbent, self.loss(config)
        assert loss is not None, "only a finished trial is moved to"
        changes = tuple((old[0], old[1], new[1]) for old, new in zip(before, config, strict=True) if old != new)
        self.path.append(Move(kind, changes, config, self.loss(before), loss, self.waves))
        self.incumbent = config
