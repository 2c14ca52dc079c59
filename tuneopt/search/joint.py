"""The ``joint`` policy: explore around the start, jump to the predicted best combination, then certify.

1. Around the start only neighbouring values are tried: the certificate's star is owed at the end, not here.
2. A model of all trials so far (`effects`) predicts the best combination, changes below the tolerance included, since
   several of them add up. It is tried together with the next values in every direction that gained, and with a few
   rows in which all coordinates that are still close calls take turns: each row tells about each of them.
3. The incumbent moves to the trial that the model holds best, among those that beat it by more than the tolerance, and
   among those with a lower loss that the model, over all trials, puts more than the tolerance below it.
4. When no combination promises more, the star around the incumbent is completed. It feeds the model too; what it
   promises then is tried, `TESTS` times at most, before the certificate.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tuneopt.search.axis import Axis
from tuneopt.search.replaying import Replaying
from tuneopt.search.space import Config, LadderSpace
from tuneopt.spec import Value

LEAST = 0.1
"""Tolerances that a change must be predicted to gain to join a combination: a flat coordinate stays where it is."""

PROMISE = 0.4
"""Tolerances that a combination must promise to be tried before the star is complete."""

FINAL = 0.67
"""The same for a complete star, where a move costs another star."""

CLOSE = 1.3
"""Tolerances within which a value is a close call."""

CERTAIN = 1.01
"""Tolerances by which the model must put a trial below the incumbent: more than one, arithmetic's last digits aside."""

TESTS = 2
"""Combinations tried around one incumbent."""

RESCUES = 12
"""Spread-out configurations tried when the start and its whole star diverged."""

NOISE = 2.33
"""Standard deviations of one run in a tolerance: 1.645 sqrt(2), as a sweep sets its tolerance from the noise."""

OFFSET = 1.33
"""Prior standard deviation of a star's offset, in tolerances."""

EFFECT = 1000.0
"""Prior standard deviation of an effect, in those of a run: so wide that it only settles what nothing tells."""


class Effects:
    """The fitted effects, in nats per token; ``known`` are the values that some finished trial holds.

    ``losses`` are finished trials in the order in which they were asked for, ``centres`` the stars' incumbents.
    """

    def __init__(
        self, space: LadderSpace, losses: Mapping[Config, float], centres: Sequence[Config], tolerance: float
    ) -> None:
        self.space = space
        self.axes = tuple(axis for axis in space.axes if not axis.held)
        order = {name: place for place, (name, _) in enumerate(space.start)}
        places = [(axis.name, order[axis.name]) for axis in self.axes]
        column: dict[tuple[str, Value], int] = {}
        rows = np.array(
            [[column.setdefault((name, config[at][1]), len(column)) for name, at in places] for config in losses],
            dtype=np.intp,
        ).reshape(len(losses), len(places))
        self.known: dict[str, list[Value]] = {name: [] for name, _ in places}
        for name, value in column:
            self.known[name].append(value)
        values, stars = len(column), len(centres)
        x = np.zeros((len(rows), values + stars + 1))
        every = np.arange(len(rows))
        x[every[:, None], rows] = 1.0
        # A trial belongs to the star whose centre is the fewest coordinates away, the later of equals.
        middles = np.array([[column.get((name, each[at][1]), -1) for name, at in places] for each in centres], np.intp)
        away = (rows[:, None, :] != middles.reshape(1, stars, len(places))).sum(axis=2)
        x[every, values + stars - 1 - np.argmin(away[:, ::-1], axis=1)] = 1.0
        x[:, -1] = 1.0
        y = np.array(list(losses.values()))
        sigma = max(tolerance, 1e-9) / NOISE
        prior = np.full(x.shape[1], 1e-8)
        prior[:values] = EFFECT**-2
        prior[values:-1] = (sigma / (OFFSET * max(tolerance, 1e-9))) ** 2
        solved = np.linalg.solve(x.T @ x + np.diag(prior), x.T @ (y - y.min())) if len(y) else prior
        # Rounded, so that the last bits of a linear algebra library never choose a configuration.
        self.tolerance, self._places = tolerance, places
        self._level = float(solved[-1]) + float(y.min()) if len(y) else 0.0
        self._effect: dict[tuple[str, Value], float] = {
            key: round(effect, 9) for key, effect in zip(column, solved.tolist(), strict=False)
        }

    def of(self, name: str, value: Value) -> float:
        """The effect of one known value; only differences within a coordinate mean something."""
        return self._effect[name, value]

    def believed(self, config: Config, loss: float) -> float:
        """The loss of a finished trial as all trials together tell it, in nats; its own where the model misses it.

        The model misses where it is off by more than the tolerance: its coordinates interact there.
        """
        told = self._level + sum(self._effect[name, config[at][1]] for name, at in self._places)
        return told if abs(told - loss) <= self.tolerance else loss

    def gains(self, config: Config, least: float) -> list[tuple[float, str, Value]]:
        """By how much the best known value of each coordinate is better, where more than ``least``; largest first."""
        found = []
        for axis in self.axes:
            here = self.space.value(config, axis.name)
            if here in self.known[axis.name]:
                best = min(self.known[axis.name], key=lambda value: self.of(axis.name, value))
                gain = self.of(axis.name, here) - self.of(axis.name, best)
                if gain > least:
                    found.append((gain, axis.name, best))
        return sorted(found, key=lambda each: -each[0])


def descend_jointly(replay: Replaying) -> None:
    """Run the policy on a replay, up to the first wave that is not settled, or to the end."""
    start = replay.incumbent
    if not replay.ask([start, *_frontier(replay, start, [start], beyond=False)]):
        return
    if not _losses(replay) and not _rescue(replay):
        return
    centres, tests, mixed = [start], 0, False
    here = start
    while True:
        losses = _losses(replay)
        model = Effects(replay.space, losses, centres, replay.tolerance)
        ahead = _ahead(replay, losses, model)
        if ahead != here:
            here, tests = ahead, tests if ahead in centres else 0
            if here not in centres:
                centres.append(here)
                model = Effects(replay.space, losses, centres, replay.tolerance)
        if replay.loss(here) is None:
            return
        star = _star(replay, here)
        lacking = [config for config in star if config not in replay.asked]
        gains = model.gains(here, LEAST * replay.tolerance)
        together = _combine(replay, here, gains)
        promise = sum(gain for gain, _, _ in gains) / replay.tolerance if replay.tolerance else math.inf
        if promise > (PROMISE if lacking else FINAL) and together not in replay.asked and tests < TESTS:
            tests += 1
            rows, taking_turns = ([], set[str]()) if mixed else _mix(replay, model, together, centres)
            mixed = True
            if together not in centres:
                centres.append(together)
            probes = _frontier(replay, together, centres, skip=taking_turns)
            if not replay.ask([together, *probes, *rows]):
                return
            continue
        if here != replay.incumbent:
            replay.move("single" if _distance(here, replay.incumbent) == 1 else "joint", here)
        if not lacking:
            return
        # After a diverged start little is known around the incumbent: neighbours first, as around any start.
        probes = _frontier(replay, here, centres)
        if not replay.ask(probes if 2 * len(probes) >= len(star) and tests < TESTS else star):
            return


def _star(replay: Replaying, centre: Config) -> list[Config]:
    return [config for _, _, config in replay.space.star(centre) if replay.feasible(config)]


def _distance(one: Config, other: Config) -> int:
    return sum(mine != yours for mine, yours in zip(one, other, strict=True))


def _losses(replay: Replaying) -> dict[Config, float]:
    found = ((config, replay.loss(config)) for config in replay.asked)
    return {config: loss for config, loss in found if loss is not None}


def _ahead(replay: Replaying, losses: Mapping[Config, float], model: Effects) -> Config:
    """The trial to move to, or the incumbent; its loss is below the incumbent's in any case."""
    now = losses.get(replay.incumbent)
    better = {config: model.believed(config, loss) for config, loss in losses.items() if now is None or loss < now}
    if now is not None:
        bar = model.believed(replay.incumbent, now) - CERTAIN * replay.tolerance
        better = {config: each for config, each in better.items() if each < bar} or {
            config: each for config, each in better.items() if losses[config] < now - replay.tolerance
        }
    return min(better, key=better.__getitem__, default=replay.incumbent)


def _combine(replay: Replaying, here: Config, gains: Iterable[tuple[float, str, Value]]) -> Config:
    """``here`` with all gains; where that cannot run in the regime, what gained least stays as it is."""
    left = list(gains)
    while left:
        config = here
        for _, name, value in left:
            config = replay.space.change(config, name, value)
        if replay.feasible(config):
            return config
        left.pop()
    return here


def _seen(replay: Replaying, centres: Iterable[Config]) -> set[tuple[str, Value]]:
    """The values that something is known of: a finished trial, or a diverged one beside a centre that finished."""
    finished = [centre for centre in centres if replay.loss(centre) is not None]
    found: set[tuple[str, Value]] = set()
    for config in replay.asked:
        if replay.loss(config) is not None:
            found.update(config)
            continue
        for centre in finished:
            away = [one for one, other in zip(config, centre, strict=True) if one != other]
            if len(away) == 1:
                found.update(away)
    return found


def _neighbours(axis: Axis, value: Value) -> tuple[Value, ...]:
    """The values next to one, beyond an edge of the grid too; of a word, every other."""
    line = axis.line(value)
    if not axis.numeric:
        return line
    order = (*reversed(axis.below), *axis.values, *axis.above)
    place = order.index(value) if value in order else -2
    return tuple(each for each in (*order[max(place - 1, 0) : place], *order[place + 1 : place + 2]) if each in line)


def _frontier(
    replay: Replaying, centre: Config, centres: Iterable[Config], *, skip: Iterable[str] = (), beyond: bool = True
) -> list[Config]:
    """The changes of ``centre`` to neighbouring values that nothing is known of; ``beyond`` an edge too."""
    seen = _seen(replay, centres)
    found = []
    for axis in replay.space.axes:
        if axis.held or axis.name in skip:
            continue
        for value in _neighbours(axis, replay.space.value(centre, axis.name)):
            config = replay.space.change(centre, axis.name, value)
            if (axis.name, value) not in seen and (beyond or value in axis.values) and replay.feasible(config):
                found.append(config)
    return found


def _mix(
    replay: Replaying, model: Effects, together: Config, centres: Iterable[Config]
) -> tuple[list[Config], set[str]]:
    """Rows around ``together`` in which the close calls take turns, and the coordinates that do.

    Every value of a coordinate occurs about equally often; which row gets which follows from ``together`` alone.
    """
    order = random.Random(repr(together))
    seen, rows = _seen(replay, centres), (len(model.axes) - 1) // 2
    turns: dict[str, list[Value]] = {}
    for axis in model.axes:
        known = [value for value in axis.values if value in model.known[axis.name]]
        lowest = min((model.of(axis.name, value) for value in known), default=0.0)
        close = [value for value in known if model.of(axis.name, value) - lowest < CLOSE * replay.tolerance]
        if len(close) < 2:
            continue
        beside = [each for value in close for each in _neighbours(axis, value) if each in axis.values]
        close += [value for value in dict.fromkeys(beside) if value not in known and (axis.name, value) not in seen]
        first = order.randrange(len(close))
        turns[axis.name] = [close[(first + row) % len(close)] for row in range(rows)]
        order.shuffle(turns[axis.name])
    if len(turns) < 2:
        return [], set()
    found = []
    for row in range(rows):
        config = together
        for name, values in turns.items():
            config = replay.space.change(config, name, values[row])
        if config != together and replay.feasible(config):
            found.append(config)
    return found, set(turns)


def _rescue(replay: Replaying) -> bool:
    """After a diverged first wave: the whole star, then spread-out configurations; whether something finished."""
    if not replay.ask(_star(replay, replay.incumbent)):
        return False
    if not _losses(replay):
        order = random.Random(repr(replay.incumbent))
        columns = {axis.name: list(axis.values) * RESCUES for axis in replay.space.axes if not axis.held}
        for name, values in columns.items():
            columns[name] = values[:RESCUES]
            order.shuffle(columns[name])
        rows = []
        for row in range(RESCUES):
            config = replay.incumbent
            for name, values in columns.items():
                config = replay.space.change(config, name, values[row])
            if replay.feasible(config):
                rows.append(config)
        if not columns or not replay.ask(rows):
            return False
    return bool(_losses(replay))
