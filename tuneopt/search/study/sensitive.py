"""Which coordinates scale: those with no single value that is near-optimal in every regime of Phase I.

The value shared by the others is the one whose worst loss over the regimes is smallest.
Source: Wen et al., arXiv 2509.02046, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneopt.search.space import LadderSpace
from tuneopt.search.sweep import SweepState
from tuneopt.spec import Value


@dataclass(frozen=True, slots=True)
class Verdict:
    """One coordinate over the regimes of Phase I.

    ``excess`` holds, for each value that every regime's star has finished, how far its loss lies above the lowest of
    that star's values, by regime in nats. ``near`` are the values that are near-optimal in all of them, the best
    first; there are none exactly when the coordinate is ``sensitive``. ``shared`` is the value that other regimes take.
    """

    coordinate: str
    sensitive: bool
    near: tuple[Value, ...]
    shared: Value
    excess: Mapping[Value, tuple[float, ...]]


def verdicts(space: LadderSpace, states: Sequence[SweepState], threshold: float) -> tuple[Verdict, ...]:
    """The verdict on every coordinate that ``space`` varies, in its order.

    ``states`` are the ended sweeps of Phase I, ``threshold`` the nats within which a value is near-optimal; in a regime
    whose tolerance is larger, the tolerance counts, because differences below it are noise. A sweep without a finished
    incumbent says nothing and is left out.
    """
    told = [state for state in states if state.descent.incumbent_loss is not None]
    bars = [max(threshold, state.tolerance) for state in told]
    return tuple(_verdict(space, axis.name, told, bars) for axis in space.axes if not axis.held)


def _verdict(space: LadderSpace, name: str, states: Sequence[SweepState], bars: Sequence[float]) -> Verdict:
    axis = space.by_name[name]
    lines = [_line(space, name, state) for state in states]
    common = [value for value in lines[0] if all(value in line for line in lines)] if lines else []
    excess = {value: tuple(line[value] for line in lines) for value in common}
    near = [value for value, over in excess.items() if all(each <= bar for each, bar in zip(over, bars, strict=True))]
    near.sort(key=lambda value: (max(excess[value]), sum(excess[value]), value != axis.start))
    fallback = min(excess, key=lambda value: (max(excess[value]), sum(excess[value])), default=axis.start)
    return Verdict(name, bool(lines) and not near, tuple(near), near[0] if near else fallback, excess)


def _line(space: LadderSpace, name: str, state: SweepState) -> dict[Value, float]:
    """The finished values of one coordinate around the incumbent, in nats above the lowest of them."""
    descent = state.descent
    assert descent.incumbent_loss is not None, "only sweeps with an incumbent are asked"
    losses = {space.value(descent.incumbent, name): descent.incumbent_loss}
    for change in descent.star:
        if change.coordinate == name and change.loss is not None:
            losses[change.value] = change.loss
    lowest = min(losses.values())
    return {value: loss - lowest for value, loss in losses.items()}
