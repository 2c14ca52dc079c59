"""How much each hyperparameter matters around a winner: the star as ablations.

A star is an incumbent and every change of one coordinate, here from whatever trials exist. Losses are on the select
split, as a sweep saw them. Units: nats per token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.runs import Config, RegimeKey, TrainingRun
from tuneopt.analysis.winner import Winner
from tuneopt.constants import NEAR_OPTIMAL
from tuneopt.search.axis import is_number
from tuneopt.spec import Value

Change = tuple[str, Value, float | None]
"""A coordinate, the value it was changed to, and the loss; None where the trial diverged or was not compared."""


def value_order(value: Value) -> tuple[bool, float, str]:
    """A sort key: numbers ascending, then switches and words by name."""
    number = is_number(value)
    return not number, float(value) if number else 0.0, str(value)


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
    parts = []
    for coordinate, tried in grouped.items():
        finished = [(incumbent[coordinate], loss), *((value, known) for value, known in tried if known is not None)]
        finished.sort(key=lambda pair: value_order(pair[0]))
        losses = [known for _, known in finished]
        parts.append(
            Sensitivity(
                coordinate=coordinate,
                incumbent=incumbent[coordinate],
                values=tuple(value for value, _ in finished),
                losses=tuple(losses),
                diverged=tuple(sorted((value for value, known in tried if known is None), key=value_order)),
                near_optimal=tuple(value for value, known in finished if known <= min(losses) + threshold),
                spread=max(losses) - min(losses),
                regret=max(losses) - loss,
            )
        )
    return tuple(sorted(parts, key=lambda part: (-part.spread, part.coordinate)))


@dataclass(frozen=True, slots=True)
class Star:
    """An optimizer's incumbent in a regime, its select loss (nats), and how much each coordinate matters around it.

    ``sensitivities`` is ordered by spread, the most sensitive coordinate first. ``threshold`` is what counts as
    near-optimal (nats): `NEAR_OPTIMAL`, or the difference that noise explains where that is larger.
    """

    optimizer: str
    regime: RegimeKey
    config: Config
    loss: float
    sensitivities: tuple[Sensitivity, ...]
    threshold: float = NEAR_OPTIMAL


def stars(
    winners: Iterable[Winner], runs: Sequence[TrainingRun], noise: NoiseModel, near: float | None = None
) -> tuple[Star, ...]:
    """The star of each winner that has at least one change of one coordinate among ``runs``.

    The incumbent is the winner's run on the seed that gives the largest star. ``near`` (nats) declares what counts as
    near-optimal.
    """
    groups: dict[tuple[str, RegimeKey], list[TrainingRun]] = defaultdict(list)
    for run in runs:
        groups[run.optimizer, run.regime].append(run)
    every = []
    for winner in winners:
        members = groups[winner.optimizer, winner.regime]
        by_trial = {run.trial: run for run in members}
        centres = [by_trial[trial] for trial in winner.trials if trial in by_trial and winner.config]
        if not centres or len(members) < 2:
            continue
        # A sweep tries changes on its own seed only; the winner's other seeds have no star, or a small one.
        changes, centre = max(((star(members, centre), centre) for centre in centres), key=lambda pair: len(pair[0]))
        if changes:
            spread = noise.of(winner.regime)
            threshold = near or max(NEAR_OPTIMAL, 0.0 if spread is None else spread.threshold())
            loss, _ = centre.losses
            parts = sensitivities(dict(centre.config), loss, changes, threshold)
            every.append(Star(winner.optimizer, winner.regime, centre.config, loss, parts, threshold))
    return tuple(every)


def star(runs: Sequence[TrainingRun], incumbent: TrainingRun) -> tuple[Change, ...]:
    """The changes of one coordinate around ``incumbent`` among ``runs`` of its optimizer, regime, seed and variant.

    By coordinate and value; the loss is None for a run that diverged or lacks its update check.
    """

    def place(run: TrainingRun) -> tuple[object, ...]:
        return run.optimizer, run.regime, run.seed, run.variant

    base = dict(incumbent.config)
    changes: dict[tuple[str, Value], float | None] = {}
    for run in runs:
        config = dict(run.config)
        if place(run) == place(incumbent) and config.keys() == base.keys():
            changed = [name for name in base if config[name] != base[name]]
            if len(changed) == 1:
                changes[changed[0], config[changed[0]]] = run.select_loss if run.status == "completed" else None
    ordered = sorted(changes, key=lambda key: (key[0], value_order(key[1])))
    return tuple((name, value, changes[name, value]) for name, value in ordered)
