"""Comparisons on the simulator: plans for a budget, and what their worlds hold in truth."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

from tuneopt.api.comparing import comparison_plan
from tuneopt.api.comparison_results import ComparisonPlan, ComparisonResult
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.study.comparison import TUNING, rules_of
from tuneopt.search.study.surfaces import Surfaces

MINUTE = 1 / 60


@functools.cache
def planned(*rivals: str, minutes: float = 8, **about: Any) -> ComparisonPlan:
    """A plan on two slots with the step times of a known core; nothing is measured, and no ledger is there."""
    return comparison_plan(list(rivals), hours=minutes * MINUTE, slots=about.pop("slots", 2), ledger="nowhere", **about)


def trials_at_home(plan: ComparisonPlan, queue: SchedulerQueue) -> dict[str, int]:
    """Trials of each optimizer where the rivals meet the baseline, tuning and seeds together."""
    home = rules_of(plan.study).ratios[0]
    spent: dict[str, set[str]] = {}
    for standing in queue.standings.values():
        if standing.task.sweep.regime.ratio == home:
            spent.setdefault(standing.task.optimizer, set()).update(standing.trials)
    return {name: len(trials) for name, trials in spent.items()}


def true_losses(plan: ComparisonPlan, result: ComparisonResult) -> dict[tuple[str, float], float]:
    """What the tuned configurations end at without noise, by optimizer and ratio."""
    surfaces = Surfaces(plan.study)
    losses = {}
    for row in result.status["results"]:
        if row["phase"] != TUNING and row["best"]["config"] is not None:
            regime = plan.question.regime(row["ratio"])
            loss = surfaces.of(row["optimizer"], regime).true_loss(row["best"]["config"])
            assert loss is not None, "what won has not diverged"
            losses[row["optimizer"], row["ratio"]] = loss
    return losses


def true_speedup(plan: ComparisonPlan, result: ComparisonResult, rival: str) -> float:
    """D_eff / D of a rival as it was tuned, on straight lines in log D through the baseline as it was tuned."""
    rules, losses = rules_of(plan.study), true_losses(plan, result)
    line = sorted((ratio, loss) for (name, ratio), loss in losses.items() if name == rules.baseline)
    loss = losses[rival, rules.ratios[0]]
    pairs = list(itertools.pairwise(line))
    (low, high) = next((pair for pair in pairs if pair[1][1] <= loss), pairs[-1])
    share = (low[1] - loss) / (low[1] - high[1])
    return low[0] * math.exp(share * math.log(high[0] / low[0])) / rules.ratios[0]
