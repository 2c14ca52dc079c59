"""Where the sweeps of later phases begin: spaces with coordinates held, and starts that can run in their regime."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from tuneopt.search.space import LadderSpace
from tuneopt.search.study.study import Study
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, Regime, Value, find_scale

_STEPWISE = ("warmup", "train_batch_size")
"""What can keep a start from running in a small regime, the first to be lowered first."""


def hold(space: LadderSpace, values: Mapping[str, Value]) -> LadderSpace:
    """The space with some coordinates held at one value each."""
    return replace(
        space,
        axes=tuple(axis.over((values[axis.name],), values[axis.name]) if axis.name in values else axis
                   for axis in space.axes),
    )  # fmt: skip


def start(space: LadderSpace, values: Mapping[str, Value]) -> LadderSpace:
    """The space with its varied coordinates beginning at ``values``, where those name them."""
    varied = {axis.name for axis in space.axes if not axis.held}
    return space.begin_at({name: value for name, value in values.items() if name in varied})


def sweep_in(study: Study, space: LadderSpace, regime: Regime, compile: bool) -> Sweep:
    """The study's sweep of a space in a regime; raises `InputError` for a start that cannot run there."""
    return Sweep(
        space,
        regime,
        study.seed,
        study.replicates,
        study.policy,
        study.precision,
        compile,
        study.evaluation,
        tolerance_floor=study.tolerance,
    )


def runnable(study: Study, space: LadderSpace, regime: Regime, compile: bool) -> Sweep:
    """As `sweep_in`; a start that does not fit the regime is lowered in warmup, then in batch size, until it does.

    Raises `InputError` when no value of these fits.
    """
    try:
        return sweep_in(study, space, regime, compile)
    except InputError as error:
        for name in _STEPWISE:
            axis = space.by_name.get(name)
            if axis is None:
                continue
            now = float(axis.start)
            for value in sorted((each for each in (*axis.below, *axis.values) if float(each) < now), key=float)[::-1]:
                lower = hold(space, {name: value}) if axis.held else space.begin_at({name: value})
                try:
                    return sweep_in(study, lower, regime, compile)
                except InputError:
                    continue
        raise error


def closeness(one: Regime, other: Regime) -> float:
    """How far two regimes are apart: doublings of the ratio, and twice those of the parameters.

    Parameters weigh more, because a learning rate that a larger model bears is bounded by its size first.
    """
    sizes = abs(math.log2(one.scale.parameters / other.scale.parameters))
    return 2 * sizes + abs(math.log2(one.ratio / other.ratio))


def regimes_of(study: Study, corpus: CorpusId, phase: str) -> tuple[Regime, ...]:
    """The regimes of a phase on a corpus."""
    return tuple(Regime(find_scale(scale), ratio, corpus) for scale, ratio in study.places(phase))
