"""The ``joint`` policy: explore around the start, jump to the predicted best combination, then certify.

1. Around the start only neighbouring values are tried: the certificate's star is owed at the end, not here.
2. A model of all trials so far (`Effects`) predicts the best combination, changes below the tolerance included, since
   several of them add up. It is tried together with the next values in every direction that gained, and with a few
   rows in which all coordinates that are still close calls take turns: each row tells about each of them.
3. The incumbent moves to the trial that the model holds best, among those that beat it by more than the tolerance, and
   among those with a lower loss that the model, over all trials, puts more than the tolerance below it.
4. When no combination promises more, the star around the incumbent is completed. It feeds the model too; what it
   promises then is tried, `TESTS` times at most, before the certificate.

The constants were chosen on published stars of AdamW and Muon, with MARS and Scion looked at; figures, and what did not
help, stand in docs/search.md. Nothing here is random: what takes turns with what follows from a configuration.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tuneopt.search.replaying import Replaying
from tuneopt.search.space import Config, LadderSpace
from tuneopt.spec import Value

LEAST = 0.1
"""Tolerances that a change must be predicted to gain to join a combination: a flat coordinate stays where it is, while
gains of a tenth still add up (with moves that the model decides: Muon from 88% to 93% success)."""

PROMISE = 0.4
"""Tolerances that a combination must promise to be tried before the star is complete, at the cost of one trial."""

FINAL = 0.67
"""The same for a complete star, where a move costs another star."""

CLOSE = 1.3
"""Tolerances within which a value is a close call."""

CERTAIN = 1.01
"""Tolerances by which the model must put a trial below the incumbent: more than one, arithmetic's last digits aside.
From 0.7 on Muon's success rose by a point or two, but a certificate then no longer meant what it says."""

TESTS = 2
"""Combinations tried around one incumbent; a third took five more trials on Muon and found nothing."""

RESCUES = 12
"""Spread-out configurations tried when the start and its whole star diverged."""

NOISE = 2.33
"""Standard deviations of one run in a tolerance, as `tuneopt.constants.DIFFERENCE_95` sets it from the noise. Two
digits, on purpose: the prior rests on it, and another digit could choose other configurations than recorded sweeps."""

OFFSET = 1.33
"""Prior standard deviation of a star's offset, in tolerances; anything from 0.03 to 1.33 measured the same."""

EFFECT = 1000.0
"""Prior standard deviation of an effect, in those of a run: so wide that it only settles what nothing tells. A narrow
one shrinks large effects, and Muon then needs 92 trials where 64 do."""


class Effects:
    """What every value changes, in nats per token, estimated from all trials of a sweep at once.

    An additive model: the loss of a configuration is the sum of one effect per value, plus an offset of the star that
    the trial belongs to. Stars at several incumbents share coordinates, so each comparison of two values rests on all
    trials that differ in them and not on one pair; that halves its noise and unmasks an incumbent that was merely
    lucky. The offsets, with a prior of about the tolerance, absorb what additivity misses. The model proposes; trials
    decide.

    ``losses`` are finished trials in the order in which they were asked for, ``centres`` the stars' incumbents;
    ``known`` are the values that some finished trial holds, by coordinate.
    """

    def __init__(
        self, space: LadderSpace, losses: Mapping[Config, float], centres: Sequence[Config], tolerance: float
    ) -> None:
        self.space, self.axes = space, space.varied
        order = {name: place for place, (name, _) in enumerate(space.start)}
        places = [(axis.name, order[axis.name]) for axis in self.axes]
        column: dict[tuple[str, Value], int] = {}
        rows = np.array(  # (trials, coordinates): the column of each trial's value
            [[column.setdefault((name, config[at][1]), len(column)) for name, at in places] for config in losses],
            dtype=np.intp,
        ).reshape(len(losses), len(places))
        self.known: dict[str, list[Value]] = {name: [] for name, _ in places}
        for name, value in column:
            self.known[name].append(value)
        values, stars = len(column), len(centres)
        x = np.zeros((len(rows), values + stars + 1))  # one column per value, one per star, and the level
        every = np.arange(len(rows))
        x[every[:, None], rows] = 1.0
        # A trial belongs to the star whose centre is the fewest coordinates away, the later of equals.
        middles = np.array([[column.get((name, each[at][1]), -1) for name, at in places] for each in centres], np.intp)
        away = (rows[:, None, :] != middles.reshape(1, stars, len(places))).sum(axis=2)  # (trials, stars)
        x[every, values + stars - 1 - np.argmin(away[:, ::-1], axis=1)] = 1.0  # backwards: argmin takes the first
        x[:, -1] = 1.0
        y = np.array(list(losses.values()))
        # Ridge regression: each column's precision is in units of a run's, so the noise itself cancels for effects.
        # Without a prior the system would have no single solution, since columns of a coordinate add up to the level's.
        sigma = max(tolerance, 1e-9) / NOISE
        prior = np.full(x.shape[1], 1e-8)  # precisions; the level is left free
        prior[:values] = EFFECT**-2
        prior[values:-1] = (sigma / (OFFSET * max(tolerance, 1e-9))) ** 2
        solved = np.linalg.solve(x.T @ x + np.diag(prior), x.T @ (y - y.min())) if len(y) else prior
        self.tolerance, self._places = tolerance, places
        self._level = float(solved[-1]) + float(y.min()) if len(y) else 0.0
        # Rounded, so that the last bits of a linear algebra library never choose a configuration.
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
        fitted = self._level + sum(self._effect[name, config[at][1]] for name, at in self._places)
        return fitted if abs(fitted - loss) <= self.tolerance else loss

    def gains(self, config: Config, least: float) -> list[tuple[float, str, Value]]:
        """By how much the best known value of each coordinate is better, where more than ``least``; largest first."""
        found = []
        for axis in self.axes:
            here = self.space.value(config, axis.name)
            if here in self.known[axis.name]:  # of a value without a finished trial there is no effect to compare with
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
    if not replay.losses() and not rescue(replay):
        return
    # The centres of stars so far: the model gives each an offset. Tests count combinations tried around `here`.
    centres, tests, mixed = [start], 0, False
    here = start
    while True:
        losses = replay.losses()
        model = Effects(replay.space, losses, centres, replay.tolerance)
        ahead = _ahead(replay, losses, model)
        if ahead != here:
            # Coming back to a centre is no reason to test it again: the search would go round between two of them.
            here, tests = ahead, tests if ahead in centres else 0
            if here not in centres:
                centres.append(here)
                model = Effects(replay.space, losses, centres, replay.tolerance)
        if replay.loss(here) is None:
            return
        star = [config for _, _, config in replay.around(centre=here)]
        # Cheapest first: a combination of gains is one trial and may save a star; only then the rest of the star.
        lacking = [config for config in star if config not in replay.asked]
        gains = model.gains(here, LEAST * replay.tolerance)
        together = _combine(replay, here, gains)
        # Gains of an additive model add up, so this is by how much the combination should be lower.
        promise = sum(gain for gain, _, _ in gains) / replay.tolerance if replay.tolerance else math.inf
        if promise > (PROMISE if lacking else FINAL) and together not in replay.asked and tests < TESTS:
            tests += 1
            # Close calls take turns once in a sweep: again after the star they cost Muon 4 to 6 trials for nothing.
            rows, taking_turns = ([], set[str]()) if mixed else _mix(replay, model, together, centres)
            mixed = True
            if together not in centres:
                centres.append(together)
            probes = _frontier(replay, together, centres, skip=taking_turns)
            if not replay.ask([together, *probes, *rows]):
                return
            continue
        # Only now is it a move: a trial that another one overtook before its star was due left no trace in the path.
        if here != replay.incumbent:
            distance = sum(mine != yours for mine, yours in zip(here, replay.incumbent, strict=True))
            replay.move("single" if distance == 1 else "joint", here)
        if not lacking:
            return
        # After a diverged start little is known around the incumbent: neighbours first, as around any start.
        probes = _frontier(replay, here, centres)
        if not replay.ask(probes if 2 * len(probes) >= len(star) and tests < TESTS else star):
            return


def _ahead(replay: Replaying, losses: Mapping[Config, float], model: Effects) -> Config:
    """The trial to move to, or the incumbent; its loss is below the incumbent's in any case.

    That the loss falls with every move is why the search ends: over a finite set of values it cannot return.
    """
    now = losses.get(replay.incumbent)
    better = {config: model.believed(config, loss) for config, loss in losses.items() if now is None or loss < now}
    if now is not None:
        # First whom the model, that is all trials together, puts under the incumbent by more than a tolerance; if
        # nobody, whose own loss is that much lower, though the model does not believe it.
        bar = model.believed(replay.incumbent, now) - CERTAIN * replay.tolerance
        better = {config: each for config, each in better.items() if each < bar} or {
            config: each for config, each in better.items() if losses[config] < now - replay.tolerance
        }
    return min(better, key=better.__getitem__, default=replay.incumbent)


def _combine(replay: Replaying, here: Config, gains: Sequence[tuple[float, str, Value]]) -> Config:
    """``here`` with all gains; where that cannot run in the regime, what gained least stays as it is."""
    for count in range(len(gains), 0, -1):
        config = here
        for _, name, value in gains[:count]:
            config = replay.space.change(config, name, value)
        if replay.feasible(config):
            return config
    return here


def _seen(replay: Replaying, centres: Iterable[Config]) -> set[tuple[str, Value]]:
    """The values that something is known of: of a finished trial, or of a diverged one that is a single change away
    from a centre that finished. In any other diverged trial it is not known which of its values was at fault."""
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


def _frontier(
    replay: Replaying, centre: Config, centres: Iterable[Config], *, skip: Iterable[str] = (), beyond: bool = True
) -> list[Config]:
    """The changes of ``centre`` to neighbouring values that nothing is known of; ``beyond`` an edge too."""
    seen = _seen(replay, centres)
    found = []
    for axis in replay.space.varied:
        if axis.name in skip:
            continue
        for value in axis.neighbours(replay.space.value(centre, axis.name)):
            config = replay.space.change(centre, axis.name, value)
            if (axis.name, value) not in seen and (beyond or value in axis.values) and replay.feasible(config):
                found.append(config)
    return found


def _mix(
    replay: Replaying, model: Effects, together: Config, centres: Iterable[Config]
) -> tuple[list[Config], set[str]]:
    """Rows around ``together`` in which the close calls take turns, and the coordinates that do.

    Every value of a coordinate occurs about equally often. Which row gets which follows from ``together`` alone. The
    number of rows is half that of the coordinates: twice as many cost trials and raised no success.
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
        # And untried values next to close ones, or a search would never look past the edge of what it has tried.
        next_to = [each for value in close for each in axis.neighbours(value) if each in axis.values]
        close += [value for value in dict.fromkeys(next_to) if value not in known and (axis.name, value) not in seen]
        # In turns from a drawn beginning, then shuffled: equally often each, in an order of its own for each
        # coordinate.
        first = order.randrange(len(close))
        turns[axis.name] = [close[(first + row) % len(close)] for row in range(rows)]
        order.shuffle(turns[axis.name])
    # One coordinate alone is better tried by single changes.
    if len(turns) < 2:
        return [], set()
    return [config for config in _rows(replay, together, turns, rows) if config != together], set(turns)


def _rows(replay: Replaying, centre: Config, columns: Mapping[str, Sequence[Value]], count: int) -> list[Config]:
    """``centre`` with the values of each row of ``columns``, those that can run."""
    found = []
    for row in range(count):
        config = centre
        for name, values in columns.items():
            config = replay.space.change(config, name, values[row])
        if replay.feasible(config):
            found.append(config)
    return found


def rescue(replay: Replaying) -> bool:
    """After a diverged first wave: the whole star, then spread-out configurations; whether something finished.

    Starts that diverge in two coordinates at once are mended by no single change: that is what the second wave is for.
    """
    if not replay.ask([config for _, _, config in replay.around()]):
        return False
    if not replay.losses():
        order = random.Random(repr(replay.incumbent))
        columns: dict[str, list[Value]] = {}
        for axis in replay.space.varied:
            # As in a Latin hypercube: the values of a coordinate in turn, shuffled against those of the others.
            columns[axis.name] = (list(axis.values) * RESCUES)[:RESCUES]
            order.shuffle(columns[axis.name])
        if not columns or not replay.ask(_rows(replay, replay.incumbent, columns, RESCUES)):
            return False
    return bool(replay.losses())
