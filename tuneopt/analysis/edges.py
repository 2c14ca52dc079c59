"""Tuned coordinates that still stand on an edge: the optimum may lie beyond what was tried."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuneopt.analysis.best import Result
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.spaces import axes
from tuneopt.search.axis import is_number
from tuneopt.spec import Value


@dataclass(frozen=True, slots=True)
class Edge:
    """A chosen value with nothing tried beyond it.

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


def edges(results: Sequence[Result], runs: Iterable[Run]) -> tuple[Edge, ...]:
    """The edges of every result. A value that means off, or stands on a declared bound, is an end and no edge."""
    tried: dict[tuple[str, RegimeKey], dict[str, set[Value]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for name, value in run.config:
            tried[run.optimizer, run.regime][name].add(value)
    found = []
    for result in results:
        here = tried[result.optimizer, result.regime]
        for name, value in result.config:
            edge = _edge(result, name, value, here[name])
            if edge is not None:
                found.append(edge)
    return tuple(found)


def _edge(result: Result, name: str, value: Value, tried: set[Value]) -> Edge | None:
    known = axes(result.optimizer, result.regime.scale)
    axis = None if known is None else known.get(name)
    if not is_number(value) or (known is not None and axis is None):
        return None
    if axis is not None and (axis.held or value in (axis.off, axis.low, axis.high)):
        return None
    numbers = {float(each) for each in tried if is_number(each)}
    why = "no value beyond it was run"
    if len(numbers) < 2:
        if axis is None or not axis.numeric:
            return None
        numbers = {float(each) for each in axis.values}
        why = "it ends the declared grid, and the table does not say what was run beyond it"
    if min(numbers) < float(value) < max(numbers):
        return None
    side = "low" if float(value) <= min(numbers) else "high"
    return Edge(result.optimizer, result.regime, name, value, side, len(tried), why)
