"""The ``model`` policy: few trials, each chosen for what it tells, and an end that states its resolution.

1. The start and its neighbouring values, except of coordinates whose usual effect drowns in the noise of one run: a
   single pair of runs says nothing about those.
2. After each wave, a `Posterior` over all trials, seen from the trial that it holds best: the incumbent.
3. The next wave holds the combination that the posterior expects to be lowest; single changes of it to values next to
   it that nothing is known of; and rows in which every coordinate takes each of its values as often as that value is
   lowest among the draws. Values that are ruled out cost nothing, and near ties are measured by all rows at once. After
   a start that lay far above the best, where the model is poor, neighbours of the best instead of rows.
4. The end: when trying on is expected to gain little and the resolution is about as fine as the tolerance, or after
   `MOST_WAVES`. The resolution is a high quantile, over the draws, of the gain of the *best* change in the incumbent's
   star. It counts measured and unmeasured changes alike, but not those that diverged, or lie
   beyond two failures in a row; what lies beyond one failure is tried first.

The star is not completed: that would take a third of the trials again to learn what the posterior tells already. The
constants were chosen on published stars of AdamW and Muon; figures, and where it fails, stand in docs/search.md.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneopt.constants import CONFIDENCE
from tuneopt.search.joint import rescue
from tuneopt.search.posterior import DIGITS, Places, Posterior, ceiling, noise_of, step_cost
from tuneopt.search.replaying import Replaying
from tuneopt.search.space import Config, LadderSpace
from tuneopt.search.variances import Floats
from tuneopt.spec import Value

DROWNED = 0.65
"""A coordinate whose usual step costs less than so many standard deviations of a run is not tried on its own."""

WAVE = 12
"""Rows and probes of a wave; what the probes leave over, but `LEAST_ROWS` at least, are rows."""

LEAST_ROWS = 8
"""With five rows where probes are many, and waves of eleven, near ties stay ties: Muon 93% instead of 97%."""

RIDGE = 0.5
"""Nats above the centre from which a value counts as failed like one that diverged, though its runs ended."""

REACH = 2
"""Grid steps from a value that has finished to the farthest that a row may try."""

FAR_START = 33.0
"""Tolerances (0.1 nats at the paper's scales) above the best from which a start counts as far away."""

GAIN = 0.72
"""Tolerances that trying on must be expected to gain. From 0.85 on Muon succeeded in 93 to 96% instead of 97."""

FINE = 1.6
"""Tolerances that the resolution may be at the end. At 1.45 AdamW took a fourth wave and was no better for it."""

MOST_WAVES = 6
"""Waves after which the search ends whatever it still hopes for; one more after a far start, two after a rescue."""

Allowed = Sequence[NDArray[np.bool_]]
"""By coordinate, (levels,): a switch for each level."""

Levels = list[tuple[int, int]]
"""Single levels, as the numbers of a coordinate and of the level's place."""


def descend_by_model(replay: Replaying) -> None:
    """Run the policy on a replay, up to the first wave that is not settled, or to the end."""
    space, start = replay.space, replay.incumbent
    # What drowns in the noise of single runs is tried in rows alone, where many runs tell of it at once.
    drowned = {axis.name for axis in space.varied if _drowned(replay, axis.name)}
    if len(drowned) == len(space.varied):
        drowned = set()
    if not replay.ask([start, *_around(replay, start, drowned)]):
        return
    if not replay.losses() and not rescue(replay):
        return
    if not space.varied:
        return
    first, most = replay.waves, MOST_WAVES + replay.waves - 1  # a rescue took waves of its own
    centre = min(replay.losses().items(), key=lambda each: each[1])[0]
    while True:
        # The decision follows from what stands in the key; a replay asks for those of all earlier waves again.
        key = ("model", replay.tolerance, replay.foreseen, replay.known(), replay.waves, centre, first, most)
        step = replay.remember(key, functools.partial(_step, replay, centre, drowned, first, most))
        centre, most, replay.resolution = step.centre, step.most, step.resolution
        if centre != replay.incumbent:
            distance = sum(mine != yours for mine, yours in zip(centre, replay.incumbent, strict=True))
            replay.move("single" if distance == 1 else "joint", centre)
        if not step.wave or not replay.ask(list(step.wave)):
            return


class _Step(NamedTuple):
    """What one wave is decided on: the centre, the last wave, what can be said of the star, and what to try next."""

    centre: Config
    most: int
    resolution: float
    wave: tuple[Config, ...]


def _step(replay: Replaying, centre: Config, drowned: set[str], first: int, most: int) -> _Step:
    """The decision after a wave; no further wave where the search ends."""
    losses, start = replay.losses(), replay.space.start
    posterior, centre = _believed(replay, centre)
    allowed, ruled_out, beyond = _fenced(replay, posterior)
    # The combination that is lowest on the mean surface, and the one that is lowest on each drawn surface: how much
    # these differ is what is not known yet.
    best = posterior.lowest(posterior.mean[None], allowed, posterior.middle)[0]
    points = posterior.lowest(posterior.draws, allowed, best)
    changes, gains = _gains(replay, posterior, ruled_out)
    resolution = ceiling(gains.max(axis=0), CONFIDENCE) if changes else 0.0
    over = _changed(replay, posterior, best, beyond)
    low = np.einsum("ij,ij->i", posterior.rows(points), posterior.draws)  # (draws,), each at its own lowest point
    here = posterior.draws @ posterior.rows(posterior.middle[None])[0]  # (draws,)
    # What trying on is expected to gain: the mean, over surfaces, of how much lower their lowest point is than the
    # centre.
    gain = round(float(np.mean(here - low)), DIGITS)
    enough = gain < GAIN * replay.tolerance and resolution <= FINE * replay.tolerance
    if replay.waves >= most or (enough and replay.waves > first and not over):
        return _Step(centre, most, resolution, ())
    ahead = _runnable(replay, posterior.config(best), centre)
    begun = losses.get(start)
    # A far start: effects around it say little about where the best are, so its neighbours are tried around the new
    # centre as they were around the start, and one more wave is allowed.
    if replay.waves == first and (begun is None or begun - min(losses.values()) > FAR_START * replay.tolerance):
        most += 1
        wave = [ahead, *over, *_around(replay, centre, drowned)]
    else:
        probes = _changed(replay, posterior, best, _unknown(posterior, best, allowed, losses, drowned))
        rows = _rows(replay, posterior, points, max(LEAST_ROWS, WAVE - len(probes)))
        wave = [ahead, *over, *probes, *rows]
    if all(config in replay.asked for config in wave):
        # Everything that is likely to be lowest has run; what is unlikely may still keep the resolution coarse.
        wave = _doubtful(changes, gains, FINE * replay.tolerance)
    if all(config in replay.asked for config in wave):
        wave = []
    return _Step(centre, most, resolution, tuple(wave))


def _drowned(replay: Replaying, name: str) -> bool:
    """Whether the usual effect of a coordinate drowns in the noise of one run, as expected before anything ran.

    Not in the noise as measured: the first wave runs before that is known, and a replay has to ask for the same.
    """
    axis = replay.space.by_name[name]
    return axis.numeric and step_cost(axis, replay.foreseen) < DROWNED * noise_of(replay.foreseen)


def _around(replay: Replaying, centre: Config, skip: set[str]) -> list[Config]:
    """The feasible changes of ``centre`` to neighbouring values, the coordinates ``skip`` left out."""
    space = replay.space
    found = (
        space.change(centre, axis.name, value)
        for axis in space.varied
        if axis.name not in skip
        for value in axis.neighbours(space.value(centre, axis.name))
    )
    return [config for config in found if replay.feasible(config)]


def _believed(replay: Replaying, centre: Config) -> tuple[Posterior, Config]:
    """The posterior seen from the trial that it holds best, and that trial."""
    losses = replay.losses()
    configs = list(losses)
    # The model is centred where it is asked to be good; a new centre can change the answer, rarely more than once.
    for _ in range(3):
        posterior = _posterior(replay.space, tuple(losses.items()), centre, replay.tolerance)
        fitted = np.round(posterior.rows(posterior.places(configs)) @ posterior.mean, DIGITS)
        best = configs[int(np.argmin(fitted))]
        if best == centre:
            break
        centre = best
    return _posterior(replay.space, tuple(losses.items()), centre, replay.tolerance), centre


@functools.lru_cache(maxsize=64)
def _posterior(
    space: LadderSpace, losses: tuple[tuple[Config, float], ...], centre: Config, tolerance: float
) -> Posterior:
    """The posterior, remembered: each replay of a search asks for those of its earlier waves again."""
    return Posterior(space, dict(losses), centre, tolerance)


def _fenced(replay: Replaying, posterior: Posterior) -> tuple[Allowed, Allowed, Levels]:
    """The levels that rows may hold, those that are ruled out, and those to be tried beyond a failure.

    A value is at fault where a trial diverged and it alone is in no trial that finished; it failed, too, where it costs
    more than `RIDGE`. What lies beyond one failure, seen from the centre, is tried once: a ridge can have a
    far side. Beyond two in a row it is taken to fail as well: so learning rates and batches do. Rows hold finished
    values and what is within `REACH` of them, nothing untried beyond a failure.
    """
    space, losses = replay.space, replay.losses()
    finished = [{space.value(config, axis.name) for config in losses} for axis in posterior.axes]
    faults: list[set[Value]] = [set() for _ in posterior.axes]
    for config in replay.asked:
        if replay.loss(config) is None and config in replay.outcomes:
            values = [space.value(config, axis.name) for axis in posterior.axes]
            suspects = [number for number, value in enumerate(values) if value not in finished[number]]
            if len(suspects) == 1:
                faults[suspects[0]].add(values[suspects[0]])
    allowed, ruled_out, beyond = [], [], []
    for number, (axis, levels) in enumerate(zip(posterior.axes, posterior.levels, strict=True)):
        places = np.arange(len(levels))  # a level is a value of the coordinate, a place its number in the line
        wrong = np.array([level in faults[number] for level in levels])
        open_to_rows, out = ~wrong, wrong.copy()
        if axis.numeric:
            held = np.array([place for place in places if levels[place] in finished[number]])
            cost = posterior.alone(number)
            if not _drowned(replay, axis.name):
                open_to_rows &= np.abs(places[:, None] - held[None, :]).min(axis=1) <= REACH
            centre = int(posterior.middle[number])
            # Away from the centre in both directions, until what is not known lies behind a failure.
            for line in (places[centre + 1 :], places[:centre][::-1]):
                failures = 0
                for at, place in enumerate(line):
                    if wrong[place] or (place in held and cost[place] > RIDGE):
                        failures += 1
                    elif place in held:
                        failures = 0
                    elif failures:
                        open_to_rows[line[at:]] &= np.isin(line[at:], held)
                        if failures == 1:
                            beyond.append((number, int(place)))
                        else:
                            out[line[at:]] |= ~np.isin(line[at:], held)
                        break
        allowed.append(open_to_rows)
        ruled_out.append(out)
    return allowed, ruled_out, beyond


def _gains(replay: Replaying, posterior: Posterior, ruled_out: Allowed) -> tuple[list[Config], Floats]:
    """The changes in the star of the centre that are not ruled out, and (changes, draws) what each would gain."""
    numbers = {axis.name: number for number, axis in enumerate(posterior.axes)}
    around = replay.around(centre=posterior.centre)
    star = [(numbers[name], config) for name, _, config in around if name in numbers]
    places = posterior.places([config for _, config in star])
    kept = [row for row, (number, _) in enumerate(star) if not ruled_out[number][places[row, number]]]
    here = posterior.rows(posterior.middle[None])  # (1, effects)
    return [star[row][1] for row in kept], (here - posterior.rows(places[kept])) @ posterior.draws.T


def _doubtful(changes: Sequence[Config], gains: Floats, bar: float) -> list[Config]:
    """The changes that are the best of the star on some drawn surface and gain more than ``bar`` nats there."""
    if not changes:
        return []
    best = np.argmax(gains, axis=0)[gains.max(axis=0) > bar]
    return [changes[row] for row in np.unique(best)]


def _unknown(
    posterior: Posterior, best: Places, allowed: Allowed, losses: dict[Config, float], skip: set[str]
) -> Levels:
    """The values next to those of the best combination that are in no finished trial.

    Without them a search that comes from afar stops a step early: the value after the last gain is in no row.
    """
    unknown = []
    for number, (axis, levels) in enumerate(zip(posterior.axes, posterior.levels, strict=True)):
        known = {posterior.space.value(config, axis.name) for config in losses}
        for place in (int(best[number]) - 1, int(best[number]) + 1):
            inside = axis.numeric and axis.name not in skip and 0 <= place < len(levels)
            if inside and allowed[number][place] and levels[place] not in known:
                unknown.append((number, place))
    return unknown


def _changed(replay: Replaying, posterior: Posterior, best: Places, levels: Levels) -> list[Config]:
    """The best combination with each of these levels, those that can run and have not been asked for."""
    changes = []
    for number, place in levels:
        changed = best.copy()
        changed[number] = place
        config = posterior.config(changed)
        if replay.feasible(config) and config not in replay.asked:
            changes.append(config)
    return changes


def _rows(replay: Replaying, posterior: Posterior, points: Places, count: int) -> list[Config]:
    """Configurations in which each level occurs as often as it does among the draws' lowest ``points``.

    Independent draws would leave near ties unbalanced: with ten rows, a level of even odds is in two or fewer of them
    once in twenty times, and ties among flat coordinates are what decides.
    """
    order = random.Random(repr((replay.space.start, replay.waves)))
    columns = []
    for number, levels in enumerate(posterior.levels):
        shares = np.cumsum(np.bincount(points[:, number], minlength=len(levels)))  # of all draws, an exact count
        offset = order.random()
        # Equally spaced marks over all draws, sorted by level (systematic sampling): a level with a share s of the
        # draws gets s * count rows, rounded up or down.
        marks = [(offset + row) / count * len(points) for row in range(count)]
        column = [int(np.searchsorted(shares, mark, side="right")) for mark in marks]
        order.shuffle(column)
        columns.append(column)  # each column is shuffled by itself, so that no two coordinates go together
    found = [posterior.config([column[row] for column in columns]) for row in range(count)]
    return [config for config in found if replay.feasible(config)]


def _runnable(replay: Replaying, config: Config, centre: Config) -> Config:
    """``config``; where it cannot run in the regime, with one value of the centre's back, or the centre."""
    if replay.feasible(config):
        return config
    for axis in replay.space.varied:
        changed = replay.space.change(config, axis.name, replay.space.value(centre, axis.name))
        if replay.feasible(changed):
            return changed
    return centre
