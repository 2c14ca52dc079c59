"""Where a study stands: phases, certificates, what is spent against its limits, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.standing import Standing
from tuneopt.search.study.budget import spent
from tuneopt.search.study.cost import limits_dict
from tuneopt.search.study.expect import Expected, expected
from tuneopt.search.study.left import Moment, device_seconds_left, seconds_left
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.results import finding_dict, results


def status_document(plan: StudyPlan, pool: SchedulerQueue, moment: Moment | None = None) -> dict[str, Any]:
    """What ``study status --json`` prints; ``moment`` is what is under way, if anything is."""
    moment = moment or Moment()
    standings = pool.standings
    held = results(plan, standings)
    expectations = expected(plan, standings)
    left = device_seconds_left(pool, standings, expectations, moment)
    return {
        "study": plan.study.name,
        "phase": phase(plan, standings, expectations),
        "finished": pool.finished,
        "phases": phases(plan, standings, expectations),
        "trials": {
            "ended": len(pool.outcomes),
            "running": len(moment.running),
            "expected": sum(each.trials for each in expectations),
            "reused": len(pool.reused),
            "diverged": pool.diverged,
        },
        "device_hours": pool.device_seconds / 3600,
        "limits": limits_dict(plan),
        "remaining_device_hours": None if left is None else left / 3600,
        "eta_seconds": 0.0 if pool.finished else seconds_left(plan, pool, standings, left, moment),
        "running": under_way(standings, moment),
        "results": [result.to_dict() for result in held],
        "findings": [finding_dict(name, plan.finding(name, standings)) for name in plan.study.optimizers],
        "budget": [row.to_dict() for row in spent(standings, pool.outcomes, pool.seconds, pool.guesses)],
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


def under_way(standings: Mapping[str, Standing], moment: Moment) -> list[dict[str, Any]]:
    """The running trials with what they belong to and how far they are; what no sweep needs yet was launched ahead."""
    found: dict[str, dict[str, Any]] = {
        trial: {"trial": trial, "optimizer": None, "phase": None, "scale": None, "ratio": None, "fraction": fraction}
        for trial, fraction in moment.running.items()
    }
    for standing in standings.values():
        regime = standing.task.sweep.regime
        for trial in standing.trials:
            if trial in found and found[trial]["optimizer"] is None:
                found[trial] |= {"optimizer": standing.task.optimizer, "phase": standing.task.phase,
                                 "scale": regime.scale.name, "ratio": regime.ratio}  # fmt: skip
    return list(found.values())


def phase(plan: StudyPlan, standings: Mapping[str, Standing], expectations: Sequence[Expected]) -> str:
    """The earliest phase in which something is left to do; ``done`` when nothing is."""
    left = [each.phase for each in expectations if each.remaining]
    left += [standing.task.phase for standing in standings.values() if not standing.finished]
    order = ("I", "II", "III", "match")
    return min(left, key=order.index) if left else "done"
