"""Where a study stands: phases, certificates, what is spent against its limits, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneopt.search.pool import Pool
from tuneopt.search.standing import Standing
from tuneopt.search.study.budget import spent
from tuneopt.search.study.cost import limits_dict
from tuneopt.search.study.expect import Expected, expected
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.results import finding_dict, results


def status_document(
    plan: StudyPlan, pool: Pool, running: Sequence[str] = (), slots: int | None = None
) -> dict[str, Any]:
    """What ``study status --json`` prints; ``running`` are the ids of the trials under way, on ``slots`` slots."""
    standings = pool.standings
    held = results(plan, standings)
    expectations = expected(plan, standings)
    left = seconds_left(plan, pool, expectations)
    return {
        "study": plan.study.name,
        "phase": phase(plan, standings, expectations),
        "finished": pool.finished,
        "phases": phases(plan, standings, expectations),
        "trials": {
            "ended": len(pool.outcomes),
            "running": len(running),
            "expected": sum(each.trials for each in expectations),
            "reused": len(pool.reused),
            "diverged": pool.diverged,
        },
        "device_hours": pool.device_seconds / 3600,
        "limits": limits_dict(plan),
        "remaining_device_hours": None if left is None else left / 3600,
        "eta_seconds": None if left is None or not slots else left / slots,
        "results": [result.to_dict() for result in held],
        "findings": [finding_dict(name, plan.finding(name, standings)) for name in plan.study.optimizers],
        "budget": [row.to_dict() for row in spent(standings, pool.outcomes, pool.seconds)],
    }  # fmt: skip


def phases(
    plan: StudyPlan, standings: Mapping[str, Standing], expectations: Sequence[Expected]
) -> list[dict[str, Any]]:
    """Each phase with its regimes, certificates and trials."""
    held = results(plan, standings)
    found = []
    for name in dict.fromkeys(each.phase for each in expectations):
        mine = [each for each in expectations if each.phase == name]
        certified = sum(result.certified and result.standing.finished for result in held if result.phase == name)
        found.append(
            {
                "name": name,
                "regimes": len({(each.optimizer, each.regime) for each in mine}),
                "certificates": certified,
                "trials": sum(each.trials for each in mine),
                "ended": sum(each.done for each in mine),
            }
        )
    return found


def phase(plan: StudyPlan, standings: Mapping[str, Standing], expectations: Sequence[Expected]) -> str:
    """The earliest phase in which something is left to do; ``done`` when nothing is."""
    left = [each.phase for each in expectations if each.remaining]
    left += [standing.task.phase for standing in standings.values() if not standing.finished]
    order = ("I", "II", "III", "match")
    return min(left, key=order.index) if left else "done"


def seconds_left(plan: StudyPlan, pool: Pool, expectations: Sequence[Expected]) -> float | None:
    """Device seconds of the trials still to come, at the pace per FLOP of those that ended; None before any has."""
    flops = sum(
        standing.task.sweep.regime.flops
        for standing in pool.standings.values()
        for trial in standing.trials
        if pool.seconds.get(trial)
    )
    took = sum(
        pool.seconds[trial]
        for standing in pool.standings.values()
        for trial in standing.trials
        if trial in pool.seconds
    )
    if not flops or took <= 0:
        return None
    return took / flops * sum(each.remaining * each.regime.flops for each in expectations)
