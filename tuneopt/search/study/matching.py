"""Equal budgets: what an optimizer with fewer trials than another spends the rest on.

In each regime every optimizer gets as many trials as the one whose sweep took most. The rest goes first into a finer
grid around the certified incumbent, then into further starts, drawn from the grid by the sweep's id and their number.
When that finds another configuration than the certified one, the last trials rerun it with the same fresh seeds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tuneopt.search.axis import Axis
from tuneopt.search.space import Config
from tuneopt.search.standing import Standing, Task
from tuneopt.search.study.study import Study
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError, Regime, Value

MATCH = "match"
"""The phase of the tasks here."""

STARTS = 40
"""Further starts before a space that holds nothing new is left with fewer trials."""

ANY = 1000.0
"""A resolution in nats that every star has."""

DRAWS = 20
"""Attempts to draw a start that can run."""

Remember = Callable[[str, str, tuple[object, ...], Callable[[], Any]], Any]
"""`StudyPlan.remember`: the result of some work under a name, redone only when what it rests on was replaced."""


def matching(
    study: Study, core: Sequence[Task], standings: Mapping[str, Standing], remember: Remember
) -> Iterator[Task]:
    """The tasks that even out the budgets, given the study's own; a regime's begin when all its sweeps have ended."""
    places: dict[Regime, dict[str, list[Standing | None]]] = {}
    for task in core:
        here = places.setdefault(task.sweep.regime, {})
        here.setdefault(task.optimizer, []).append(standings.get(task.id))
    for here in places.values():
        # Until every optimizer's sweep here has ended, nobody knows what the largest budget is.
        ended = {name: [each for each in sweeps if each and each.finished] for name, sweeps in here.items()}
        if len(here) < len(study.optimizers) or any(len(ended[name]) < len(here[name]) for name in here):
            continue
        spent = {name: frozenset(trial for each in sweeps for trial in each.trials) for name, sweeps in ended.items()}
        most = max(map(len, spent.values()))
        for name, sweeps in ended.items():
            short = most - len(spent[name])
            if short > 0 and sweeps[-1].state.descent.incumbent_loss is not None:
                yield from _further(study, sweeps[-1], spent[name], short, standings, remember)


def _further(
    study: Study,
    core: Standing,
    counted: frozenset[str],
    short: int,
    standings: Mapping[str, Standing],
    remember: Remember,
) -> Iterator[Task]:
    """The tasks of one optimizer in one regime; the next follows when the last has ended and trials are left.

    ``counted`` are the trials that its sweeps took, ``short`` how many it may still take. A quota for each task
    makes budgets equal to the trial; what an earlier task ran is reused and not counted again.
    """
    incumbent = core.state.descent.incumbent
    # Trials kept for the other seeds of what may be found; where only those are left, exploring stops.
    kept, left = core.task.sweep.replicates - 1, short
    best: tuple[float, Sweep, Config] | None = None
    for number in range(STARTS + 1):
        if left <= 0 or (best is not None and left <= kept < short):
            break
        sweep = remember(f"match {number}", core.task.id, (core.state.descent,), partial(_sweep, study, core, number))
        if sweep is None:
            continue
        task = Task(sweep, MATCH, left - kept if left > kept else left, counted)
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
        alone = sweep.space.pin({axis.name: sweep.space.value(config, axis.name) for axis in sweep.space.axes})
        again = remember("match", core.task.id, (config,), lambda: replace(sweep, space=alone, replicates=kept + 1))
        yield Task(again, MATCH, left, counted)


def _sweep(study: Study, core: Standing, number: int) -> Sweep | None:
    """Sweep 0 refines the grid around the incumbent, each later one begins elsewhere; None when nothing can run."""
    sweep, descent = core.task.sweep, core.state.descent
    # Where Phase II had nothing left to vary, the whole space is what a further trial can explore.
    plane = sweep.space if sweep.space.varied else study.spaces[core.task.optimizer]
    space = plane.restart(dict(descent.incumbent))
    if not space.varied:
        return None
    # One seed, at the noise that the core sweep measured: replicates of another start would only measure it again. And
    # no further seeds for a certificate: what is evened out is the number of configurations that were looked at.
    once = replace(
        sweep, replicates=1, tolerance_floor=max(sweep.tolerance_floor, core.state.tolerance), resolution=ANY
    )
    if number == 0:
        return replace(once, space=replace(space, axes=tuple(map(finer, space.axes))))
    draw = random.Random(f"{core.task.id}/{number}")
    for _ in range(DRAWS):
        values = {axis.name: draw.choice(axis.values) for axis in space.varied}
        try:
            return replace(once, space=space.begin_at(values))
        except InputError:
            continue
    return None


def finer(axis: Axis) -> Axis:
    """The axis with the values half-way from its start to both neighbours, on the scale in which its grid is even."""
    if axis.pinned or not axis.numeric:
        return axis
    place = axis.values.index(axis.start)
    values: list[Value] = list(axis.values)
    for other in (*axis.values[max(0, place - 1) : place], *axis.values[place + 1 : place + 2]):
        one, two = float(axis.start), float(other)
        if axis.extend == "complement" and max(one, two) < 1:
            middle = 1 - math.sqrt((1 - one) * (1 - two))
        elif min(one, two) > 0:
            middle = math.sqrt(one * two)
        else:
            middle = (one + two) / 2
        # Three digits: a name that people can read and type again. A middle that rounds to a neighbour adds nothing.
        between: Value = round(middle) if axis.whole else float(f"{middle:.3g}")
        if between not in axis.values:
            values.append(between)
    return axis.over(values, axis.start)
