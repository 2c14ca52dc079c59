"""Equal budgets: what an optimizer with fewer trials than another spends the rest on.

In each regime every optimizer gets as many trials as the one whose sweep took most. The rest goes first into a finer
grid around the certified incumbent, then into further starts, drawn from the grid by the regime and the round. When
that finds another configuration than the certified one, the last trials rerun it with the same fresh seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tuneopt.search.axis import Axis
from tuneopt.search.space import Config
from tuneopt.search.standing import Standing, Task
from tuneopt.search.study.begin import hold, start
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError, Regime, Value

if TYPE_CHECKING:
    from tuneopt.search.study.planner import StudyPlan

PHASE = "match"
"""The phase of the tasks here."""

ROUNDS = 40
"""Further starts before a space that holds nothing new is left with fewer trials."""

DRAWS = 20
"""Attempts to draw a start that can run."""

Standings = Mapping[str, Standing]


def matching(plan: StudyPlan, core: Sequence[Task], standings: Standings) -> list[Task]:
    """The tasks that even out the budgets, given the study's own; a regime's begin when all its sweeps have ended."""
    places: dict[Regime, dict[str, list[Standing | None]]] = {}
    for task in core:
        here = places.setdefault(task.sweep.regime, {})
        here.setdefault(task.optimizer, []).append(standings.get(task.id))
    found: list[Task] = []
    for here in places.values():
        ended = {name: [each for each in held if each and each.finished] for name, held in here.items()}
        if len(here) < len(plan.study.optimizers) or any(len(ended[name]) < len(here[name]) for name in here):
            continue
        spent = {name: frozenset(trial for each in held for trial in each.trials) for name, held in ended.items()}
        most = max(map(len, spent.values()))
        for name, held in ended.items():
            found += _rounds(plan, held[-1], spent[name], most - len(spent[name]), standings)
    return found


def _rounds(
    plan: StudyPlan, core: Standing, counted: frozenset[str], short: int, standings: Standings
) -> Iterator[Task]:
    """The tasks of one optimizer in one regime; the next follows when the last has ended and trials are left."""
    incumbent = core.state.descent.incumbent
    if short <= 0 or core.state.descent.incumbent_loss is None:
        return
    kept, left = core.task.sweep.replicates - 1, short
    best: tuple[float, Sweep, Config] | None = None
    for number in range(ROUNDS + 1):
        if left <= 0 or (best is not None and left <= kept < short):
            break
        sweep = plan.remember(
            f"match {number}", core.task.id, (core.state.descent,), partial(_round, plan, core, number)
        )
        if sweep is None:
            continue
        task = Task(sweep, PHASE, left - kept if left > kept else left, counted)
        yield task
        standing = standings.get(task.id)
        if standing is None or not standing.finished:
            return
        left -= len(set(standing.trials) - counted)
        counted |= set(standing.trials)
        loss = standing.state.descent.incumbent_loss
        if loss is not None and standing.state.descent.incumbent != incumbent and (best is None or loss < best[0]):
            best = (loss, sweep, standing.state.descent.incumbent)
    if best is not None and left > 0:
        _, sweep, config = best
        again = plan.remember("match", core.task.id, (config,), partial(_rerun, sweep, config, kept + 1))
        yield Task(again, PHASE, left, counted)


def _round(plan: StudyPlan, core: Standing, number: int) -> Sweep | None:
    """Round 0 refines the grid around the incumbent, each later one begins elsewhere; None when nothing can run."""
    sweep, descent = core.task.sweep, core.state.descent
    # Where Phase II had nothing left to vary, the whole space is what a further trial can explore.
    plane = sweep.space if any(not axis.held for axis in sweep.space.axes) else plan.study.spaces[core.task.optimizer]
    space = start(plane, dict(descent.incumbent))
    if all(axis.held for axis in space.axes):
        return None
    once = replace(sweep, replicates=1, tolerance_floor=max(sweep.tolerance_floor, core.state.tolerance))
    if number == 0:
        return replace(once, space=replace(space, axes=tuple(map(finer, space.axes))))
    draw = random.Random(f"{core.task.id}/{number}")
    for _ in range(DRAWS):
        values = {axis.name: draw.choice(axis.values) for axis in space.axes if not axis.held}
        try:
            return replace(once, space=space.begin_at(values))
        except InputError:
            continue
    return None


def _rerun(sweep: Sweep, config: Config, replicates: int) -> Sweep:
    """One configuration of a sweep alone, with all the seeds."""
    held = hold(sweep.space, {axis.name: sweep.space.value(config, axis.name) for axis in sweep.space.axes})
    return replace(sweep, space=held, replicates=replicates)


def finer(axis: Axis) -> Axis:
    """The axis with the values half-way from its start to the two beside it, on the scale in which its grid is even."""
    if axis.held or not axis.numeric:
        return axis
    place = axis.values.index(axis.start)
    beside = [*axis.values[max(0, place - 1) : place], *axis.values[place + 1 : place + 2]]
    between = [middle for other in beside if (middle := _between(axis, other)) is not None]
    return axis.over((*axis.values, *between), axis.start)


def _between(axis: Axis, other: Value) -> Value | None:
    one, two = float(axis.start), float(other)
    if axis.extend == "complement" and max(one, two) < 1:
        middle = 1 - math.sqrt((1 - one) * (1 - two))
    elif min(one, two) > 0:
        middle = math.sqrt(one * two)
    else:
        middle = (one + two) / 2
    value: Value = round(middle) if axis.whole else float(f"{middle:.3g}")
    return None if value in axis.values else value
