"""What can be said of tuned values: which stand on an edge, and which need tuning again when the regime changes.

A coordinate scales when no single value is near-optimal in every regime (Wen et al., arXiv 2509.02046, section 3). A
value counts against a coordinate only where it was run: where one is near-optimal wherever it was run, but was not run
everywhere, the table does not decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuneopt.analysis.runs import RegimeKey, TrainingRun
from tuneopt.analysis.sensitivity import Sensitivity, Star, value_order
from tuneopt.analysis.spaces import axes, on_ladder, searched
from tuneopt.analysis.winner import Winner
from tuneopt.constants import NEAR_OPTIMAL
from tuneopt.search.axis import is_number
from tuneopt.spec import Value


@dataclass(frozen=True, slots=True)
class Edge:
    """A winner's value with nothing tried beyond it: the optimum may lie further out.

    ``side`` is ``low`` or ``high``. ``tried`` counts the values of the coordinate that the optimizer's runs in the
    regime had; where that is 1, ``why`` says that the declared grid stands for what was tried.
    """

    optimizer: str
    regime: RegimeKey
    coordinate: str
    value: Value
    side: str
    tried: int
    why: str


def edges(winners: Sequence[Winner], runs: Iterable[TrainingRun]) -> tuple[Edge, ...]:
    """The edges of every winner. A value that means off, or stands on a declared bound, is an end and no edge."""
    tried: dict[tuple[str, RegimeKey], dict[str, set[Value]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for name, value in run.config:
            tried[run.optimizer, run.regime][name].add(value)
    every = []
    for winner in winners:
        here = tried[winner.optimizer, winner.regime]
        for name, value in winner.config:
            edge = _edge(winner, name, value, here[name])
            every += [] if edge is None else [edge]
    return tuple(every)


def _edge(winner: Winner, name: str, value: Value, tried: set[Value]) -> Edge | None:
    """The edge that a winner's value of one coordinate stands on; ``tried`` are all values run there."""
    known = axes(winner.optimizer, winner.regime.scale)
    axis = None if known is None else known.get(name)
    numbers = {float(other) for other in tried if is_number(other)}
    # What a declared space does not name was a setting, unless it was varied, as in a table that names it otherwise.
    if not is_number(value) or (known is not None and axis is None and len(numbers) < 2):
        return None
    # What was never varied has no edge, and beyond a declared bound there is nothing to try.
    if axis is not None and (axis.pinned or value in (axis.off, axis.low, axis.high)):
        return None
    why = "no value beyond it was run"
    if len(numbers) < 2:  # a table of tuned points alone, as papers publish them
        if axis is None or not axis.numeric:
            return None
        numbers = {float(other) for other in axis.values}
        # A model that is not the ladder's, or a value off the grid, was not tuned on what is declared.
        if float(value) not in numbers or on_ladder(winner.regime.scale, winner.parameters) is None:
            return None
        why = "it ends the declared grid, and the table does not say what was run beyond it"
    if min(numbers) < float(value) < max(numbers):
        return None
    side = "low" if float(value) <= min(numbers) else "high"
    return Edge(winner.optimizer, winner.regime, name, value, side, len(tried), why)


@dataclass(frozen=True, slots=True)
class CoordinateScaling:
    """One coordinate of an optimizer over the regimes of a corpus.

    ``tuned`` is its value in each regime's winner; ``near`` the near-optimal values where a star is known (the tuned
    value alone where none is). ``shared`` are the values near-optimal in every regime. ``scales`` is True when every
    value that was run fails somewhere, False when some value is good everywhere, None when the table cannot say: where
    a regime ran one value only, that value was compared with nothing. ``tried`` counts the values run in any regime.
    ``threshold`` is the largest difference (nats) that counted as near-optimal in a regime.
    """

    optimizer: str
    corpus: str
    coordinate: str
    regimes: int
    tuned: tuple[tuple[RegimeKey, Value], ...]
    near: tuple[tuple[RegimeKey, tuple[Value, ...]], ...]
    shared: tuple[Value, ...]
    scales: bool | None
    threshold: float
    tried: int = 0


def coordinate_scaling(winners: Iterable[Winner], stars: Sequence[Star]) -> tuple[CoordinateScaling, ...]:
    """Every tuned coordinate of every optimizer that has results in two regimes or more of a corpus."""
    known = {(star.optimizer, star.regime): {part.coordinate: part for part in star.sensitivities} for star in stars}
    groups: dict[tuple[str, str], list[Winner]] = defaultdict(list)
    for winner in winners:
        if winner.config:
            groups[winner.regime.corpus, winner.optimizer].append(winner)
    every = []
    for (corpus, optimizer), members in sorted(groups.items()):
        if len(members) < 2:
            continue
        names = [
            {*searched(optimizer, one.regime.scale, dict(one.config)), *known.get((optimizer, one.regime), {})}
            for one in members
        ]
        for name in sorted(set.intersection(*names)):
            parts = [known.get((optimizer, winner.regime), {}).get(name) for winner in members]
            own = [star.threshold for star in stars if star.optimizer == optimizer and star.regime.corpus == corpus]
            every.append(_scaling(name, members, parts, max(own, default=NEAR_OPTIMAL)))
    return tuple(every)


def _scaling(
    name: str, members: Sequence[Winner], parts: Sequence[Sensitivity | None], threshold: float
) -> CoordinateScaling:
    """One coordinate over ``members``, the winners of one optimizer; ``parts`` has its sensitivity where known."""
    tuned = [dict(winner.config)[name] for winner in members]
    near = [(value,) if part is None else part.near_optimal for value, part in zip(tuned, parts, strict=True)]
    run = [
        {value} if part is None else {*part.values, *part.diverged} for value, part in zip(tuned, parts, strict=True)
    ]
    every = dict.fromkeys(value for values in run for value in sorted(values, key=value_order))
    shared = [value for value in every if all(value in good for good in near)]
    # Good wherever it was run, but not run everywhere: such a value leaves the question open.
    undecided = not shared and any(
        all(value in good or value not in tried for good, tried in zip(near, run, strict=True)) for value in every
    )
    regimes = [winner.regime for winner in members]
    return CoordinateScaling(
        optimizer=members[0].optimizer,
        corpus=members[0].regime.corpus,
        coordinate=name,
        regimes=len(members),
        tuned=tuple(zip(regimes, tuned, strict=True)),
        near=tuple(zip(regimes, near, strict=True)),
        shared=tuple(sorted(shared, key=value_order)),
        scales=_scales(bool(shared), undecided, min(len(values) for values in run)),
        threshold=threshold,
        tried=len(every),
    )


def _scales(shared: bool, undecided: bool, fewest: int) -> bool | None:
    """Whether a coordinate scales; ``fewest`` values were run in a regime, and one alone is near-optimal of itself."""
    if shared:
        return False if fewest > 1 else None
    return None if undecided else True
