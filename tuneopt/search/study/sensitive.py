"""Which coordinates scale: those with no single value that is near-optimal in every regime of Phase I.

The others keep one value in every later regime: that of the winners where these agree, else the one whose worst loss
over the regimes is smallest. That is what makes Phase II affordable, where only the sensitive coordinates are swept.
Source: Wen et al., arXiv 2509.02046, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneopt.search.space import LadderSpace
from tuneopt.search.state import SweepState
from tuneopt.spec import Regime, Value

if TYPE_CHECKING:
    from tuneopt.search.prediction import Forecast  # needs numpy, and a verdict does not


@dataclass(frozen=True, slots=True)
class Verdict:
    """One coordinate over the regimes of Phase I.

    ``excess`` holds, for each value that every regime's star has finished, how far its loss lies above the lowest of
    that star's values, by regime in nats. ``near`` are the values that are near-optimal in all of them, the one that
    is taken first; there are none exactly when the coordinate is ``sensitive``. ``shared`` is the value that other
    regimes take.
    """

    coordinate: str
    sensitive: bool
    near: tuple[Value, ...]
    shared: Value
    excess: Mapping[Value, tuple[float, ...]]


@dataclass(frozen=True)
class PhaseFindings:
    """What the phases have shown of one optimizer so far: the verdicts of Phase I, the predictions by regime."""

    verdicts: tuple[Verdict, ...] = ()
    forecasts: Mapping[Regime, Forecast] | None = None

    @property
    def sensitive(self) -> tuple[str, ...]:
        """The scaling-sensitive coordinates, in the order of the space."""
        return tuple(verdict.coordinate for verdict in self.verdicts if verdict.sensitive)

    @property
    def shared(self) -> dict[str, Value]:
        """The value that every regime takes of each other coordinate."""
        return {verdict.coordinate: verdict.shared for verdict in self.verdicts if not verdict.sensitive}

    def to_dict(self, optimizer: str) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "optimizer": optimizer,
            "sensitive": list(self.sensitive),
            "shared": self.shared,
            "verdicts": [
                {
                    "coordinate": verdict.coordinate,
                    "sensitive": verdict.sensitive,
                    "near_optimal": list(verdict.near),
                    "shared": verdict.shared,
                }
                for verdict in self.verdicts
            ],
            "predictions": [
                {"scale": regime.scale.name, "ratio": regime.ratio, **forecast.to_dict()}
                for regime, forecast in (self.forecasts or {}).items()
            ],
        }


def verdicts(space: LadderSpace, states: Sequence[SweepState], threshold: float) -> tuple[Verdict, ...]:
    """The verdict on every coordinate that ``space`` varies, in its order.

    ``states`` are the ended sweeps of Phase I, ``threshold`` the nats within which a value is near-optimal; in a regime
    whose tolerance is larger, the tolerance counts, because differences below it are noise. A sweep without a finished
    incumbent says nothing and is left out.
    """
    finished = [state for state in states if state.descent.incumbent_loss is not None]
    bars = [max(threshold, state.tolerance) for state in finished]
    found = []
    for axis in space.varied:
        lines = [_line(space, axis.name, state) for state in finished]
        # A value that one regime has not finished says nothing about all of them; extended edges differ by regime.
        common = [value for value in lines[0] if all(value in line for line in lines)] if lines else []
        excess = {value: tuple(line[value] for line in lines) for value in common}
        near = [v for v, over in excess.items() if all(each <= bar for each, bar in zip(over, bars, strict=True))]
        # Values that look better than the winners' by less than noise are lucky ones. All of them together would be a
        # configuration that nobody ran, carried to every other regime: where the winners agree, their value stays.
        won = {space.value(state.descent.incumbent, axis.name) for state in finished}
        near.sort(key=lambda v: (won != {v}, max(excess[v]), sum(excess[v]), v != axis.start))
        fallback = min(excess, key=lambda value: (max(excess[value]), sum(excess[value])), default=axis.start)
        shared = near[0] if near else fallback
        found.append(Verdict(axis.name, bool(lines) and not near, tuple(near), shared, excess))
    return tuple(found)


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
