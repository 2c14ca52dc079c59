"""The finish of a sweep: further seeds where they decide, until the certificate sees as far as it was asked to.

When the search has ended, its incumbent is the best of many noisy runs. Wave by wave, further seeds go to the incumbent
and to the changes around it that may still be better by more than the asked resolution, each run to where it brings the
resolution down most (`tuneopt.search.belief`). So does the combination that the model of all trials holds best. What
turns out better by a good part of the asked resolution becomes the incumbent, once it has run with every seed of the
sweep; where the search completes stars, the one around it is then completed too.

Like the search, it is replayed from its beginning over finished trials: a wave is decided on the waves before it alone,
so that neither the order of ends nor a kill changes what is asked next. Losses are nats per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tuneopt.constants import DIFFERENCE_95
from tuneopt.search.belief import Belief, Resolution, Runs
from tuneopt.search.noise import Spread
from tuneopt.search.plan import Outcome
from tuneopt.search.replaying import Remember, forgetful
from tuneopt.search.space import Config, LadderSpace

Asked = tuple[Config, int]
"""A run: a configuration and a seed."""

WAVE, SHARE = 8, 8
"""Runs of one wave, and the part of all runs before it that a wave may be where that is more. With fewer, many slots
idle; with more, the last of them are spent on what the first have settled."""

MOVE = 0.25
"""Parts of the asked resolution that a configuration must be expected to gain to become the incumbent. Below that it
would change nothing that the certificate says, and cost another star."""

MOST_MOVES = 5
"""Moves of one finish: every one may cost a star."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Where the finish stands.

    ``asked`` holds every run that it has needed so far, ``pending`` those of them that have not ended: none at the end.
    ``path`` holds the incumbents that it moved to. ``spread`` is the noise by all runs, and ``needed`` about how many
    further ones would bring the ``resolution`` down to the asked one.
    """

    incumbent: Config
    asked: tuple[Asked, ...]
    pending: tuple[Asked, ...]
    path: tuple[Config, ...]
    waves: int
    spread: Spread
    resolution: Resolution
    needed: int | None
    means: Mapping[Config, float | None]
    """Losses of the search's and the finish's configurations over all seeds that they ran with."""


class Look(NamedTuple):
    """What one wave is decided on: who leads enough to take over, where to run next, and what is known so far."""

    leader: Config | None
    next: tuple[Config, ...]
    resolution: Resolution
    spread: Spread


@dataclass
class Finishing:
    """One replay of a finish.

    ``runs`` are the search's trials by configuration and seed, in the order in which it asked for them; a loss is None
    where it cannot be compared. ``outcome`` looks a run up, ``gave_up`` says that it never will end. ``spread`` gives
    the noise by all runs; ``seeds`` are those that an incumbent runs with, the search's own first. ``most`` runs are
    spent to reach ``resolution``. ``stars`` says that stars are completed; ``missing`` names what the search gave up.
    """

    space: LadderSpace
    runs: dict[Config, dict[int, float | None]]
    outcome: Callable[[Asked], Outcome | None]
    gave_up: Callable[[Asked], bool]
    spread: Callable[[Runs], Spread]
    seeds: Sequence[int]
    resolution: float
    most: int
    stars: bool
    feasible: Callable[[Config], bool]
    missing: Container[Config]
    remember: Remember = forgetful
    _latest: tuple[tuple[object, ...], Belief] | None = None
    _held: tuple[Spread, object] | None = None  # the noise and all runs as they are now, None once a run came in

    def run(self, incumbent: Config) -> Finish:
        """Replay from ``incumbent``, where the search ended, up to the first wave that is not settled, or the end."""
        asked: dict[Asked, None] = {}
        path: list[Config] = []
        pending: tuple[Asked, ...] = ()
        waves = spent = 0
        while True:
            # A wave grows with what was spent: early runs decide where later ones go, later ones change little.
            look = self._look(incumbent, [incumbent, *path], min(max(WAVE, spent // SHARE), self.most - spent))
            wave: list[Asked] = []
            if look.leader is not None:
                # A leader first runs with all seeds of an incumbent. It is one only if it still leads when they are in;
                # then its own star is completed, as a certificate is about the star of what it names.
                had = self._had(look.leader, asked)
                wave = [(look.leader, seed) for seed in self.seeds if seed not in had]
                if not wave:
                    incumbent = look.leader
                    path.append(incumbent)
                    star = self.space.star(incumbent) if self.stars else ()
                    configs = [config for _, _, config in star if self.feasible(config) and config not in self.runs]
                    wave = [(config, self.seeds[0]) for config in configs if config not in self.missing]
                    if not wave:  # its star has run already: look again from there
                        continue
            elif look.next:
                wave = self._with_seeds(look.next, asked)
                spent += len(wave)
            if not wave:
                break
            asked.update(dict.fromkeys(wave))
            waves += 1
            # A wave is taken in as a whole or not at all: half of it would lead another way than a replay goes.
            found = {one: self.outcome(one) for one in wave}
            pending = tuple(one for one, outcome in found.items() if outcome is None and not self.gave_up(one))
            if pending or not any(found.values()):  # where nothing comes back, nothing is learned by asking on
                break
            for (config, seed), outcome in found.items():
                if outcome is not None:
                    self.runs.setdefault(config, {})[seed] = outcome.loss
            self._held = None
        return Finish(
            incumbent=incumbent,
            asked=tuple(asked),
            pending=pending,
            path=tuple(path),
            waves=waves,
            spread=look.spread,
            resolution=look.resolution,
            needed=self.remember(
                ("needed", *self._key(incumbent)), lambda: self._belief(incumbent).needed(self.resolution)
            ),
            means={config: _mean(seeds.values()) for config, seeds in self.runs.items()},
        )

    def _look(self, incumbent: Config, left: Sequence[Config], count: int) -> Look:
        """What the runs so far say of ``incumbent``, and where the next ``count`` should go."""

        def work() -> Look:
            belief = self._belief(incumbent)
            # ``left`` holds where it has been: a finish that came back would go round.
            leader = self._leader(belief, left) if len(left) <= MOST_MOVES else None
            further = belief.bound > self.resolution and count > 0 and leader is None
            # What no number of seeds reaches is not begun: they would tell nothing that the resolution asks for.
            further = further and belief.needed(self.resolution) is not None
            return Look(leader, tuple(belief.allocate(count)) if further else (), belief.resolution, belief.spread)

        return self.remember((*self._key(incumbent), tuple(left), count), work)

    def _key(self, incumbent: Config) -> tuple[object, ...]:
        """All that a belief follows from."""
        if self._held is None:  # made once a wave: a tuple over all runs is long
            held = tuple((config, *sorted(seeds.items())) for config, seeds in self.runs.items())
            self._held = (self.spread(self.runs), held)
        return incumbent, *self._held

    def _belief(self, incumbent: Config) -> Belief:
        """What all runs say of ``incumbent``; the latest is kept, for the end of a finish asks the same again."""
        key = self._key(incumbent)
        if self._latest is None or self._latest[0] != key:
            known = Belief(
                self.space,
                self.runs,
                incumbent,
                self.spread(self.runs),
                seed=self.seeds[0],
                feasible=self.feasible,
                missing=self.missing,
                combine=MOVE * self.resolution,
            )
            self._latest = (key, known)
        return self._latest[1]

    def _leader(self, belief: Belief, left: Container[Config]) -> Config | None:
        """The configuration that is expected to gain most, where that is enough to move."""
        bar = belief.loss(belief.incumbent) - MOVE * self.resolution
        # The posterior may hold best what lies beyond a steep slope. A run that noise does not excuse contradicts it.
        most = belief.measured(belief.incumbent) + DIFFERENCE_95 * belief.spread.sigma
        better = [
            (belief.loss(config), config)
            for config in belief.configs[1:]
            if config in belief.losses
            and config not in left
            and None not in self.runs[config].values()  # one seed of it diverged
            and belief.measured(config) < most
        ]
        loss, config = min(better, key=lambda each: each[0], default=(math.inf, None))
        return config if loss < bar else None

    def _had(self, config: Config, asked: Iterable[Asked]) -> set[int]:
        """The seeds that a configuration has run with, or that were given up."""
        return self.runs.get(config, {}).keys() | {seed for one, seed in asked if one == config}

    def _with_seeds(self, configs: Iterable[Config], asked: Iterable[Asked]) -> list[Asked]:
        """Each configuration with the first seed that it has not had."""
        wave: dict[Asked, None] = {}
        for config in configs:
            had, seed = self._had(config, (*asked, *wave)), self.seeds[0]
            while seed in had:
                seed += 1
            wave[config, seed] = None
        return list(wave)


def _mean(losses: Iterable[float | None]) -> float | None:
    """The mean over seeds; None where a run cannot be compared."""
    known = [loss for loss in losses if loss is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(list(losses)) else None
