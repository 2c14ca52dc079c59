"""What a study has spent: trials, tokens, FLOPs and device time, by optimizer, phase and coordinate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tuneopt.search.outcome import Outcome
from tuneopt.search.space import Config
from tuneopt.search.standing import Standing
from tuneopt.spec import Regime, TrialSpec

START, JOINT, SEEDS, AHEAD = "start", "several at once", "other seeds", "launched ahead"
"""What a trial is spent on where it is no change of one coordinate: starts, combinations, reruns, wrong guesses."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one optimizer's trials of one phase have spent on one coordinate, or on what stands for one.

    Every trial is counted once, in the first phase that needs it. ``device_seconds`` is the wall time of the trials
    times their devices; ``tokens`` and ``flops`` are those of the full budgets.
    """

    optimizer: str
    phase: str
    coordinate: str
    trials: int
    diverged: int
    tokens: int
    flops: float
    device_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def spent(
    standings: Mapping[str, Standing],
    outcomes: Mapping[str, Outcome],
    seconds: Mapping[str, float],
    guesses: Mapping[str, str] | None = None,
) -> tuple[Spent, ...]:
    """The budget record of the ended trials, by optimizer, phase and coordinate in the order in which they began.

    ``guesses`` names the sweep for which a trial was launched ahead; it counts where no sweep needed it.
    """
    rows: dict[tuple[str, str, str], list[tuple[str, Regime]]] = {}
    seen: set[str] = set()

    def count(standing: Standing, trial: str, purpose: str) -> None:
        if trial in outcomes and trial not in seen:
            seen.add(trial)
            key = (standing.task.optimizer, standing.task.phase, purpose)
            rows.setdefault(key, []).append((trial, standing.task.sweep.regime))

    for standing in standings.values():
        for spec, coordinate in purposes(standing):
            count(standing, spec.id, coordinate)
    for trial, sweep in (guesses or {}).items():
        count(standings[sweep], trial, AHEAD)
    return tuple(
        Spent(
            *key,
            trials=len(held),
            diverged=sum(outcomes[trial].status == "diverged" for trial, _ in held),
            tokens=sum(regime.tokens for _, regime in held),
            flops=float(sum(regime.flops for _, regime in held)),
            device_seconds=sum(seconds.get(trial, 0.0) for trial, _ in held),
        )
        for key, held in rows.items()
    )


def purposes(standing: Standing) -> Iterator[tuple[TrialSpec, str]]:
    """Every trial of a sweep with the coordinate it is spent on."""
    sweep, descent = standing.task.sweep, standing.state.descent
    centres = [sweep.space.start, *(move.config for move in descent.path)]
    allowed = set(standing.trials)
    for spec in standing.state.needed:
        if spec.id not in allowed:
            continue
        config = spec.hyperparameters
        if spec.seed != sweep.seed:
            yield spec, SEEDS
        elif config == sweep.space.start:
            yield spec, START
        else:
            yield spec, _changed(config, centres)


def _changed(config: Config, centres: list[Config]) -> str:
    for centre in centres:
        names = [name for (name, value), (_, other) in zip(config, centre, strict=True) if value != other]
        if len(names) == 1:
            return names[0]
    return JOINT
