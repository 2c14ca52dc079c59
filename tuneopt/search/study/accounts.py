"""What one run of a study did, as the ledger keeps it: an account for each sweep, and one for what all of them share.

A trial stands in one account, that of the first sweep that needs it, and its busy seconds with it. The wall seconds,
and the busy seconds of trials that did not end, are the run's own. So sums over accounts are what the run took.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tuneopt.search.standing import Standing


@dataclass(frozen=True, slots=True)
class Took:
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
    took: Took,
    *,
    run: Collection[str],
    reused: Collection[str],
    failed: Mapping[str, str],
    guesses: Mapping[str, str],
    interrupted: bool,
) -> list[dict[str, Any]]:
    """The accounts of a run, the shared one first; a sweep on which nothing was done has none.

    ``study`` is the study's id, ``run`` the trials that ended in this run, ``guesses`` the sweep for which a trial was
    launched ahead.
    """
    owners = _owners(standings, guesses)
    ran: dict[str, list[str]] = {}
    for trial in sorted(run):
        if trial in owners:
            ran.setdefault(owners[trial], []).append(trial)
    found: list[dict[str, Any]] = []
    for sweep, standing in standings.items():
        mine = ran.get(sweep, [])
        lost = {trial: why for trial, why in failed.items() if owners.get(trial) == sweep}
        if mine or lost:
            found.append(
                {
                    "sweep": sweep,
                    "study": study,
                    "run": mine,
                    "reused": [trial for trial in standing.trials if trial in reused],
                    "failed": lost,
                    "slots": took.slots,
                    "busy_seconds": sum(took.busy.get(trial, 0.0) for trial in mine),
                    "interrupted": interrupted,
                }
            )
    shared = {
        "study": study,
        "sweeps": [account["sweep"] for account in found],
        "slots": took.slots,
        "wall_seconds": took.wall_seconds,
        "busy_seconds": took.busy_seconds - sum(account["busy_seconds"] for account in found),
        "interrupted": interrupted,
    }
    return [shared, *found]


def _owners(standings: Mapping[str, Standing], guesses: Mapping[str, str]) -> dict[str, str]:
    """The sweep that a trial counts for: the first that needs it, else the one for which it was launched ahead."""
    owners: dict[str, str] = {}
    for sweep, standing in standings.items():
        for trial in standing.trials:
            owners.setdefault(trial, sweep)
    for trial, sweep in guesses.items():
        owners.setdefault(trial, sweep)
    return owners
