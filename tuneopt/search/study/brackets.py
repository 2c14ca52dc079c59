"""Further runs of the baseline, so that every rival's D_eff lies between two of its budgets.

A study's regimes are chosen before any loss is known, and a rival that is faster than the baseline ends below its
longest run. When a scale's sweeps have all ended, the baseline is swept at the ratios that `bracketing_ratios` names,
as in Phase II: over what scales, begun at the nearest winner. Where that falls short it goes on from there.

A speedup is D_eff / D, and D_eff is where the baseline's loss over its budgets meets a rival's. Inside the budgets
that the baseline was trained with it is interpolated between two runs. Beyond them it is a guess about a law, and one
further run of the baseline settles it (docs/analysis.md). How far out that run has to be is itself a guess, so it is
asked for a doubling or two at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tuneopt.search.standing import Standing, Task
from tuneopt.search.study.study import Study
from tuneopt.spec import Regime

USUAL_EXPONENT = 0.4
"""Exponent B of L(D) = alpha D^-B + beta by which losses beyond the longest run are guessed. Loss laws of language
models have 0.3 to 0.5 (Hoffmann et al., arXiv 2203.15556; Wen et al., arXiv 2509.02046)."""

DOUBLINGS = 2
"""Doublings of the budget that are asked for at once: further out the guess is worth less than what it costs."""


def bracketing_ratios(
    baseline: Mapping[float, float], rivals: Iterable[float], margin: float = 0.0
) -> tuple[float, ...]:
    """The data-to-model ratios at which the baseline has still to run at one scale; none where all is bracketed.

    ``baseline`` holds its tuned losses (nats) by ratio, ``rivals`` the losses of the others at the scale, whatever
    their ratio. The longest run must end ``margin`` nats or more under every rival's loss, the shortest as far above.
    Ratios are the shortest halved and the longest doubled, the cheapest first. One ratio alone is always doubled, for
    it shows no slope. Nothing is asked for without a baseline, without rivals, or where the baseline does not improve
    from its second longest run to its longest: more of the same would not bracket anything.
    """
    losses = list(rivals)
    if not baseline or not losses:
        return ()
    ratios = sorted(baseline)
    if len(ratios) == 1:
        return (2 * ratios[0],)
    ends = []
    for edge, inner, goal, way in (
        (ratios[0], ratios[1], max(losses) + margin, -1),
        (ratios[-1], ratios[-2], min(losses) - margin, 1),
    ):
        reached = baseline[edge]
        # Nats that one unit of log D brings at the edge: the mean over the last two runs, moved from their middle.
        apart = abs(math.log(edge / inner))
        mean = way * (baseline[inner] - reached) / apart
        slope = mean * math.exp(-way * USUAL_EXPONENT * apart / 2)
        if way * (reached - goal) <= 0 or slope <= 0:
            continue
        doublings = 0
        while doublings < DOUBLINGS and way * (guess(reached, slope, way * doublings) - goal) > 0:
            doublings += 1
        ends.append(edge * 2.0 ** (way * doublings))
    return tuple(ends)


def guess(loss: float, slope: float, doublings: float) -> float:
    """The loss (nats) so many doublings of the budget from a run that ended at ``loss``, negative for halvings.

    ``slope`` is what one unit of log D brings there; it changes as in a power law of `USUAL_EXPONENT`.
    """
    exponent = USUAL_EXPONENT
    return loss + slope * math.expm1(-exponent * doublings * math.log(2)) / exponent


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
