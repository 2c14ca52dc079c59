"""Further runs of the baseline, so that every rival's D_eff lies between two of its budgets.

A study's regimes are chosen before any loss is known, and a rival that is faster than the baseline ends below its
longest run. When a scale's sweeps have all ended, the baseline is swept at the ratios that `bracketing_ratios` names,
as in Phase II: over what scales, begun at the nearest winner. Where that falls short it goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tuneopt.search.bracketing import bracketing_ratios
from tuneopt.search.standing import Standing, Task
from tuneopt.search.study.study import Study
from tuneopt.spec import Regime

BRACKET = "bracket"
"""The phase of the tasks here."""

FURTHEST = 4.0
"""Factor beyond a scale's longest and shortest ratio that is gone at most: its one longest run then costs as much as
the others of its sweeps together, and what is faster still is known to be more than twice as fast."""

SweepAt = Callable[[Sequence[Standing], Regime], Task]
"""The baseline's sweep in a further regime, given how its sweeps elsewhere stand."""


def brackets(
    study: Study, core: Sequence[Task], regimes: Sequence[Regime], standings: Mapping[str, Standing], sweep_at: SweepAt
) -> Iterator[Task]:
    """The tasks that bracket the baseline ``study.bracket`` at each scale of ``regimes``; they only grow.

    ``core`` are the sweeps of Phases I and II. A scale's begin when every optimizer's sweeps there have ended.
    """
    baseline = study.bracket
    if baseline is None:
        return
    for scale in dict.fromkeys(regime.scale for regime in regimes):
        line, rivals = _ended(study, core, [one for one in regimes if one.scale == scale], standings)
        if line is None:
            continue
        planned = [one.task.sweep.regime.ratio for one in line]
        least, most = min(planned) / FURTHEST, max(planned) * FURTHEST
        while True:
            known = {one.task.sweep.regime.ratio: loss for one in line if (loss := _loss(one)) is not None}
            asked = {min(max(ratio, least), most) for ratio in bracketing_ratios(known, rivals, study.tolerance)}
            there = {one.task.sweep.regime.ratio for one in line}
            tasks = [sweep_at(line, Regime(scale, ratio, regimes[0].corpus)) for ratio in sorted(asked - there)]
            yield from tasks
            fresh = [standings.get(task.id) for task in tasks]
            if not tasks or not all(one is not None and one.finished for one in fresh):
                break
            line += [one for one in fresh if one is not None]


def _loss(standing: Standing) -> float | None:
    """The report loss (nats) of what a sweep ended on, the mean over its seeds."""
    best = standing.state.best
    return None if best is None else best.report_loss


def _ended(
    study: Study, core: Sequence[Task], regimes: Sequence[Regime], standings: Mapping[str, Standing]
) -> tuple[list[Standing] | None, list[float]]:
    """How the baseline stands in ``regimes`` of one scale, and the rivals' losses; None while a sweep there goes on.

    Of several attempts at a regime the last counts.
    """
    last: dict[tuple[str, Regime], Standing | None] = {}
    for task in core:
        last[task.optimizer, task.sweep.regime] = standings.get(task.id)
    line: list[Standing] = []
    rivals: list[float] = []
    for name in study.optimizers:
        for regime in regimes:
            standing = last.get((name, regime))
            if standing is None or not standing.finished:
                return None, []
            loss = _loss(standing)
            if name == study.bracket:
                line.append(standing)
            elif loss is not None:
                rivals.append(loss)
    return line, rivals
