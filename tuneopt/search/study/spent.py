"""What a study has spent, by optimizer, phase and coordinate, and what one run of it did, as the ledger keeps it.

Both count every trial once, for the first sweep that needs it, or for the sweep that it was launched ahead for: two
sweeps may share trials, and sums over rows or accounts must be what was paid.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tuneopt.search.plan import Outcome
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
    # Guesses last: a trial that a sweep came to need after all was no wrong guess.
    for trial, sweep in (guesses or {}).items():
        count(standings[sweep], trial, AHEAD)
    return tuple(
        Spent(
            *key,
            trials=len(trials),
            diverged=sum(outcomes[trial].status == "diverged" for trial, _ in trials),
            tokens=sum(regime.tokens for _, regime in trials),
            flops=float(sum(regime.flops for _, regime in trials)),
            device_seconds=sum(seconds.get(trial, 0.0) for trial, _ in trials),
        )
        for key, trials in rows.items()
    )


def purposes(standing: Standing) -> Iterator[tuple[TrialSpec, str]]:
    """Every trial of a sweep with the coordinate it is spent on."""
    # A change of one coordinate is told from a combination by what it is next to: the start, or an incumbent since.
    sweep = standing.task.sweep
    centres = [sweep.space.start, *(move.config for move in standing.state.descent.path)]
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
            away = ([one[0] for one, other in zip(config, centre, strict=True) if one != other] for centre in centres)
            yield spec, next((names[0] for names in away if len(names) == 1), JOINT)


@dataclass(frozen=True, slots=True)
class RunTimes:
    """What a run took: slots, seconds by the clock, and the seconds that each trial spent in training and evaluation.

    ``busy_seconds`` is the sum over all trials, those that did not end included.
    """

    slots: int
    wall_seconds: float
    busy: Mapping[str, float]
    busy_seconds: float


def accounts(
    study: str,
    standings: Mapping[str, Standing],
    times: RunTimes,
    *,
    run: Collection[str],
    reused: Collection[str],
    failed: Mapping[str, str],
    guesses: Mapping[str, str],
    interrupted: bool,
) -> list[dict[str, Any]]:
    """The accounts of a run, the shared one first; a sweep on which nothing was done has none.

    A trial stands in one account, and its busy seconds with it. The wall seconds, and the busy seconds of trials that
    did not end, are the shared account's: so sums over accounts are what the run took. Its ``plan`` holds every sweep
    of the study, worked on or not (`tuneopt.ledger.browse.superseded`). ``study`` is the study's id, ``run`` the trials
    that ended in this run, ``guesses`` the sweep for which a trial was launched ahead.
    """
    owners: dict[str, str] = {}
    for sweep, standing in standings.items():
        for trial in standing.trials:
            owners.setdefault(trial, sweep)
    owners = {**guesses, **owners}  # what a sweep needs is its own, whoever guessed it first
    ran: dict[str, list[str]] = {}
    for trial in sorted(run):
        if trial in owners:
            ran.setdefault(owners[trial], []).append(trial)
    own: list[dict[str, Any]] = []
    for sweep, standing in standings.items():
        mine = ran.get(sweep, [])
        lost = {trial: why for trial, why in failed.items() if owners.get(trial) == sweep}
        if mine or lost:
            own.append(
                {
                    "sweep": sweep,
                    "study": study,
                    "run": mine,
                    "reused": [trial for trial in standing.trials if trial in reused],
                    "failed": lost,
                    "slots": times.slots,
                    "busy_seconds": sum(times.busy.get(trial, 0.0) for trial in mine),
                    "interrupted": interrupted,
                }
            )
    shared = {
        "study": study,
        "sweeps": [account["sweep"] for account in own],
        "plan": list(standings),
        "slots": times.slots,
        "wall_seconds": times.wall_seconds,
        # Not below 0 by rounding: the same seconds are added up in two orders.
        "busy_seconds": max(0.0, times.busy_seconds - sum(account["busy_seconds"] for account in own)),
        "interrupted": interrupted,
    }
    return [shared, *own]
