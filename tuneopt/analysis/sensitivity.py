"""How much each hyperparameter matters around an incumbent: the star as ablations.

A star is an incumbent and every change of one coordinate. Units: nats per token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuneopt.analysis.runs import Run
from tuneopt.constants import NEAR_OPTIMAL
from tuneopt.spec import Value

Change = tuple[str, Value, float | None]
"""A coordinate, the value it was changed to, and the loss; None where the trial diverged or was not compared."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One coordinate of a star.

    ``values`` and ``losses`` hold the finished changes and the incumbent, ordered by value; ``diverged`` the values
    without a loss. ``spread`` is the largest loss minus the smallest, ``regret`` the largest loss over the
    incumbent's, ``near_optimal`` the values whose loss is within the threshold of the coordinate's lowest one.
    """

    coordinate: str
    incumbent: Value
    values: tuple[Value, ...]
    losses: tuple[float, ...]
    diverged: tuple[Value, ...]
    near_optimal: tuple[Value, ...]
    spread: float
    regret: float


def sensitivities(
    incumbent: Mapping[str, Value], loss: float, changes: Iterable[Change], threshold: float = NEAR_OPTIMAL
) -> tuple[Sensitivity, ...]:
    """The sensitivity of each coordinate that ``changes`` touch, the most sensitive first (by spread, then name).

    ``loss`` is the incumbent's. A coordinate all of whose changes diverged has spread 0 and comes with its
    ``diverged`` values.
    """
    grouped: dict[str, list[tuple[Value, float | None]]] = defaultdict(list)
    for coordinate, value, outcome in changes:
        grouped[coordinate].append((value, outcome))
    found = [_one(coordinate, incumbent[coordinate], loss, grouped[coordinate], threshold) for coordinate in grouped]
    return tuple(sorted(found, key=lambda item: (-item.spread, item.coordinate)))


def _one(
    coordinate: str, value: Value, loss: float, changes: list[tuple[Value, float | None]], threshold: float
) -> Sensitivity:
    finished = [(value, loss), *((other, outcome) for other, outcome in changes if outcome is not None)]
    finished.sort(key=lambda pair: _order(pair[0]))
    losses = [outcome for _, outcome in finished]
    return Sensitivity(
        coordinate=coordinate,
        incumbent=value,
        values=tuple(other for other, _ in finished),
        losses=tuple(losses),
        diverged=tuple(sorted((other for other, outcome in changes if outcome is None), key=_order)),
        near_optimal=tuple(other for other, outcome in finished if outcome <= min(losses) + threshold),
        spread=max(losses) - min(losses),
        regret=max(losses) - loss,
    )


def _order(value: Value) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def star(runs: Sequence[Run], incumbent: Run) -> tuple[Change, ...]:
    """The changes of one coordinate around ``incumbent`` among ``runs`` of its optimizer, regime, seed and variant.

    Losses are on the select split, as the sweep saw them; None for a run that diverged or lacks its proof.
    """
    base = dict(incumbent.config)
    found: dict[tuple[str, Value], float | None] = {}
    for run in runs:
        same = (run.optimizer, run.regime, run.seed, run.variant) == (
            incumbent.optimizer,
            incumbent.regime,
            incumbent.seed,
            incumbent.variant,
        )
        config = dict(run.config)
        if not same or config.keys() != base.keys():
            continue
        changed = [name for name in base if config[name] != base[name]]
        if len(changed) == 1:
            found[changed[0], config[changed[0]]] = run.select_loss if run.status == "completed" else None
    ordered = sorted(found, key=lambda key: (key[0], _order(key[1])))
    return tuple((name, value, found[name, value]) for name, value in ordered)
