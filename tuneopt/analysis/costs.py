"""The same comparison by what it costs: tokens, seconds, FLOPs, peak memory and checkpoint bytes.

A speedup in tokens says how much more data the baseline needs for the same loss. What it needs in seconds or FLOPs is
that factor times the baseline's cost per token in the regime over the optimizer's own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuneopt.analysis.best import Result
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.speedup import BASELINE, Speedup

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
    results: Sequence[Result], runs: Iterable[Run], speeds: Iterable[Speedup], baseline: str = BASELINE
) -> tuple[Cost, ...]:
    """The costs of every result, in their order."""
    by_trial = {run.trial: run for run in runs}
    fast = {(speed.regime, speed.optimizer): speed.speedup for speed in speeds}
    facts: dict[_Place, dict[str, float | None]] = {}
    for result in results:
        facts[result.regime, result.optimizer] = {"loss": result.loss, **_spent(result, by_trial)}
    for (regime, optimizer), own in facts.items():
        base, speed = facts.get((regime, baseline)), fast.get((regime, optimizer))
        for name in FACTORS:
            own[name] = _times(speed, base, own, name.removeprefix("speedup_"))
    ranks = _ranks(facts)
    return tuple(
        Cost(
            optimizer=result.optimizer,
            regime=result.regime,
            loss=result.loss,
            tokens=result.tokens,
            seconds=own["seconds"],
            flops=own["flops"],
            peak_bytes=own["peak_bytes"],
            checkpoint_bytes=own["checkpoint_bytes"],
            speedup=fast.get(key),
            speedup_seconds=own["speedup_seconds"],
            speedup_flops=own["speedup_flops"],
            ranks=tuple((name, ranks[name].get(key)) for name in (*MEASURES, *FACTORS)),
        )
        for result, (key, own) in zip(results, facts.items(), strict=True)
    )


def _spent(result: Result, runs: Mapping[str, Run]) -> dict[str, float | None]:
    members = [runs[trial] for trial in result.trials if trial in runs]
    found: dict[str, float | None] = {}
    for name in MEASURES[1:]:
        values = [value for run in members if (value := getattr(run, name)) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def _times(
    speed: float | None, base: Mapping[str, float | None] | None, own: Mapping[str, float | None], name: str
) -> float | None:
    theirs, ours = None if base is None else base[name], own[name]
    return speed * theirs / ours if speed is not None and theirs and ours else None


def _ranks(facts: Mapping[_Place, Mapping[str, float | None]]) -> dict[str, dict[_Place, int]]:
    ranks: dict[str, dict[_Place, int]] = {}
    for name in (*MEASURES, *FACTORS):
        sign = -1 if name in FACTORS else 1
        known: dict[RegimeKey, list[tuple[_Place, float]]] = defaultdict(list)
        for place, own in facts.items():
            value = own[name]
            if value is not None:
                known[place[0]].append((place, sign * value))
        ranks[name] = {
            place: 1 + sum(other < value for _, other in members)
            for members in known.values()
            for place, value in members
        }
    return ranks


def pareto(results: Sequence[Result], costs: Iterable[Cost]) -> tuple[ParetoPoint, ...]:
    """The results whose seconds are known, over all ratios, by corpus and scale and then by seconds."""
    trials = {(result.regime, result.optimizer): result.trials[0] for result in results}
    scales: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    for cost in costs:
        if cost.seconds is not None:
            scales[cost.regime[:2]].append(cost)
    found = []
    for members in scales.values():
        lowest = float("inf")
        for cost in sorted(members, key=lambda each: (each.seconds or 0.0, each.loss, each.optimizer)):
            front = cost.loss < lowest
            lowest = min(lowest, cost.loss)
            trial = trials[cost.regime, cost.optimizer]
            found.append(ParetoPoint(cost.optimizer, cost.regime, cost.seconds or 0.0, cost.loss, front, trial))
    return tuple(found)
