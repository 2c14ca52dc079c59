"""What optimizers cost: the run of each winner, the same comparison by other measures, and all that tuning has spent.

A speedup in tokens says how much more data the baseline needs for the same loss. What it needs in seconds or FLOPs is
that factor times the baseline's cost per token in the regime over the optimizer's own. Units: nats per token,
device-seconds, FLOPs, bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneopt.analysis.runs import RegimeKey, TrainingRun
from tuneopt.analysis.speedup import BASELINE, Speedup
from tuneopt.analysis.winner import Winner

MEASURES = ("loss", "seconds", "flops", "peak_bytes", "checkpoint_bytes")
"""What a result costs or gives as it stands: less is better."""

FACTORS = ("speedup_seconds", "speedup_flops")
"""What the baseline would pay for the same loss over what the optimizer pays: more is better."""


_Place = tuple[RegimeKey, str]


@dataclass(frozen=True, slots=True)
class Cost:
    """What the chosen configuration of an optimizer costs in a regime, a mean over its seeds; None: not measured.

    ``seconds`` are device-seconds of training without evaluation. ``speedup`` is that in tokens, ``speedup_seconds``
    and ``speedup_flops`` the baseline's cost for the same loss over the optimizer's own. ``ranks`` gives the place (1
    is best; equals share the better place) by each of `MEASURES` and `FACTORS` among the optimizers of the regime that
    were measured; the place by loss is that at equal tokens.
    """

    optimizer: str
    regime: RegimeKey
    loss: float
    tokens: float
    seconds: float | None
    flops: float | None
    peak_bytes: float | None
    checkpoint_bytes: float | None
    speedup: float | None
    speedup_seconds: float | None
    speedup_flops: float | None
    ranks: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A result's loss against its device-seconds; ``front``: nothing at its scale is as fast and has a lower loss."""

    optimizer: str
    regime: RegimeKey
    seconds: float
    loss: float
    front: bool
    trial: str


def costs(
    winners: Sequence[Winner], runs: Iterable[TrainingRun], speeds: Iterable[Speedup], baseline: str = BASELINE
) -> tuple[Cost, ...]:
    """The costs of every result, in their order."""
    by_trial = {run.trial: run for run in runs}
    fast = {(speed.regime, speed.optimizer): speed.speedup for speed in speeds}
    facts: dict[_Place, dict[str, float | None]] = {}
    for winner in winners:
        own: dict[str, float | None] = {"loss": winner.loss}
        members = [by_trial[trial] for trial in winner.trials if trial in by_trial]
        for name in MEASURES[1:]:
            values = [value for run in members if (value := getattr(run, name)) is not None]
            own[name] = sum(values) / len(values) if values else None
        facts[winner.regime, winner.optimizer] = own
    for (regime, optimizer), own in facts.items():
        base, speed = facts.get((regime, baseline), {}), fast.get((regime, optimizer))
        # D_eff / D in tokens, times the baseline's cost of a token over the optimizer's own. All runs of a regime have
        # one budget, so the ratio of what the runs cost is that of what a token costs.
        for factor in FACTORS:
            name = factor.removeprefix("speedup_")
            theirs, ours = base.get(name), own[name]
            own[factor] = speed * theirs / ours if speed is not None and theirs and ours else None
    return tuple(
        Cost(
            optimizer=optimizer,
            regime=regime,
            tokens=winner.tokens,
            speedup=fast.get((regime, optimizer)),
            ranks=tuple((name, _rank(facts, (regime, optimizer), name)) for name in (*MEASURES, *FACTORS)),
            **own,  # type: ignore[arg-type]
        )
        for winner, ((regime, optimizer), own) in zip(winners, facts.items(), strict=True)
    )


def _rank(facts: Mapping[_Place, Mapping[str, float | None]], place: _Place, name: str) -> int | None:
    """The place by one measure among those of the regime that have it; equals share the better place."""
    value, sign = facts[place][name], -1 if name in FACTORS else 1
    if value is None:
        return None
    others = [own[name] for (regime, _), own in facts.items() if regime == place[0]]
    return 1 + sum(sign * other < sign * value for other in others if other is not None)


def pareto(winners: Sequence[Winner], costs: Iterable[Cost]) -> tuple[ParetoPoint, ...]:
    """The results whose seconds are known, over all ratios, by corpus and scale and then by seconds."""
    trials = {(winner.regime, winner.optimizer): winner.trials[0] for winner in winners}
    scales: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    for cost in costs:
        if cost.seconds is not None:
            scales[cost.regime[:2]].append(cost)
    found = []
    for members in scales.values():
        lowest = float("inf")  # walking from fast to slow, a result is on the front when it has the lowest loss so far
        for cost in sorted(members, key=lambda each: (each.seconds or 0.0, each.loss, each.optimizer)):
            front = cost.loss < lowest
            lowest = min(lowest, cost.loss)
            trial = trials[cost.regime, cost.optimizer]
            found.append(ParetoPoint(cost.optimizer, cost.regime, cost.seconds or 0.0, cost.loss, front, trial))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Budget:
    """The cost of one optimizer's trials, over all regimes or in one: unequal tuning is visible at once.

    ``scale``, ``ratio`` and ``corpus`` are None for all regimes together. ``trials`` counts all; ``diverged`` and
    ``unproven`` (completed without a passed proof) are among them, ``configurations`` counts those that differ in more
    than the seed. ``tokens`` and ``flops`` are what was trained, evaluation not counted; ``device_hours`` is the wall
    time of the trials, start-up and evaluation included, times their devices. None where no trial says it; where some
    do, those are summed.
    """

    optimizer: str
    scale: str | None
    ratio: float | None
    trials: int
    diverged: int
    unproven: int
    tokens: int
    flops: float | None
    device_hours: float | None
    corpus: str | None = None
    configurations: int = 0


def budgets(runs: Iterable[TrainingRun], by_regime: bool = False) -> tuple[Budget, ...]:
    """The budget of each optimizer, by name; with ``by_regime`` one per optimizer and regime."""
    groups: dict[tuple[Any, ...], list[TrainingRun]] = defaultdict(list)
    for run in runs:
        place = (run.parameters or 0, run.regime.scale, run.regime.ratio, run.regime.corpus) if by_regime else ()
        groups[run.optimizer, *place].append(run)
    every = []
    for _, members in sorted(groups.items(), key=lambda item: item[0]):
        regime = members[0].regime if by_regime else None
        seconds = _sum(run.device_seconds for run in members)
        every.append(
            Budget(
                optimizer=members[0].optimizer,
                scale=regime.scale if regime else None,
                ratio=regime.ratio if regime else None,
                trials=len(members),
                diverged=sum(run.status == "diverged" for run in members),
                unproven=sum(run.status == "unproven" for run in members),
                # A diverged row from elsewhere does not say how far it came; it counts as a trial, not with its tokens.
                tokens=round(sum(run.trained or 0.0 for run in members)),
                flops=_sum(run.flops for run in members),
                device_hours=None if seconds is None else seconds / 3600,
                corpus=regime.corpus if regime else None,
                configurations=len({run.setting for run in members}),
            )
        )
    return tuple(every)


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
