"""What optimizers cost: the run of each winner, the same comparison by other measures, and all that tuning has spent.

A speedup in tokens says how much more data the baseline needs for the same loss. What it needs in seconds or FLOPs is
that factor times the baseline's cost per token in the regime over the optimizer's own. Seconds are noisy: a machine
does other work, and one slow trial of the baseline would make a speedup of it. So an optimizer's speed is the median of
tokens per second over its trials in the regime, with an interval. Units: nats per token, device-seconds, FLOPs, bytes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneopt.analysis.runs import Array, RegimeKey, TrainingRun
from tuneopt.analysis.speedup import BASELINE, Speedup
from tuneopt.analysis.winner import Winner
from tuneopt.constants import ONE_SIDED_95

MEASURES = ("loss", "seconds", "flops", "peak_bytes", "checkpoint_bytes")
"""What a result costs or gives as it stands: less is better."""

FACTORS = ("speedup_seconds", "speedup_flops")
"""What the baseline would pay for the same loss over what the optimizer pays: more is better."""


BATCH = "train_batch_size"

MANY = 10
"""Equal trials from which on their spread leaves the outermost tenths out: the more trials, the wider their range."""

REDRAWN = 400
"""Redrawn sets of trials behind the error of a median, which it then gives to about 4%."""

UNEVEN = 0.1
"""Spread of equal trials' speeds from which on a warning says that the clock was not theirs alone."""

NO_RULE = 30.0
"""Factor between two optimizers' speeds from which on it is not their update rules that differ: a step of Shampoo that
takes its roots every time is a few times as slow as one of AdamW."""

_Place = tuple[RegimeKey, str]


@dataclass(frozen=True, slots=True)
class Cost:
    """What the chosen configuration of an optimizer costs in a regime, a mean over its seeds; None: not measured.

    ``seconds`` are device-seconds of training without evaluation. ``speedup`` is that in tokens, ``speedup_seconds``
    and ``speedup_flops`` the baseline's cost for the same loss over the optimizer's own. ``tokens_per_second`` is the
    median over ``timed`` trials. The interval of ``speedup_seconds`` holds its spread and that of the speedup in
    tokens, and is None where either is not known. ``ranks`` gives the place (1
    is best; equals share the better place) by each of `MEASURES` and `FACTORS` among the optimizers of the regime that
    were measured; the place by loss is that at equal tokens.
    """

    optimizer: str
    regime: RegimeKey
    loss: float  # nats per token
    tokens: float  # of one trial
    seconds: float | None
    flops: float | None  # of one trial
    peak_bytes: float | None  # of the fullest device
    checkpoint_bytes: float | None  # of one checkpoint
    speedup: float | None
    speedup_seconds: float | None
    speedup_flops: float | None
    ranks: tuple[tuple[str, int | None], ...]
    tokens_per_second: float | None = None
    timed: int = 0
    speedup_seconds_low: float | None = None
    speedup_seconds_high: float | None = None


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A result's loss against its device-seconds; ``front``: nothing at its scale is as fast and has a lower loss."""

    optimizer: str
    regime: RegimeKey
    seconds: float  # device-seconds of training
    loss: float  # nats per token
    front: bool
    trial: str


def costs(
    winners: Sequence[Winner],
    runs: Iterable[TrainingRun],
    speeds: Iterable[Speedup],
    baseline: str = BASELINE,
    clocks: Mapping[_Place, Pace] | None = None,
) -> tuple[Cost, ...]:
    """The costs of every result, in their order; ``clocks`` are the `paces` of the same runs, where those are known."""
    every = list(runs)
    by_trial = {run.trial: run for run in every}
    pace = paces(winners, every) if clocks is None else clocks
    bounds = {(speed.regime, speed.optimizer): speed for speed in speeds if speed.speedup}  # 0 where there is none
    fast = {place: speed.speedup for place, speed in bounds.items()}
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
        # Seconds by the pace of all trials where that is known: a mean over a winner's few seeds has the noise of a
        # clock.
        mine, base_pace = pace.get((regime, optimizer)), pace.get((regime, baseline))
        if speed is not None and mine is not None and base_pace is not None:
            own["speedup_seconds"] = speed * mine.rate / base_pace.rate
    return tuple(
        Cost(
            optimizer=optimizer,
            regime=regime,
            tokens=winner.tokens,
            speedup=fast.get((regime, optimizer)),
            ranks=tuple((name, _rank(facts, (regime, optimizer), name)) for name in (*MEASURES, *FACTORS)),
            tokens_per_second=pace[regime, optimizer].rate if (regime, optimizer) in pace else None,
            timed=pace[regime, optimizer].trials if (regime, optimizer) in pace else 0,
            **_in_seconds(  # type: ignore[arg-type]
                bounds.get((regime, optimizer)), pace.get((regime, optimizer)), pace.get((regime, baseline))
            ),
            **own,  # type: ignore[arg-type]
        )
        for winner, ((regime, optimizer), own) in zip(winners, facts.items(), strict=True)
    )


@dataclass(frozen=True, slots=True)
class Pace:
    """The speed of an optimizer in a regime: the median of tokens per device-second over ``trials``.

    ``error`` is its standard error in log, None for a single trial. ``spread`` is the range of equal trials over their
    median (from the tenth to the ninetieth part where there are ten or more).
    """

    rate: float
    error: float | None
    trials: int
    spread: float


def paces(winners: Iterable[Winner], runs: Iterable[TrainingRun]) -> dict[_Place, Pace]:
    """The pace of every winner's optimizer in its regime.

    Trials are equal for the clock where they have the winner's batch size: a learning rate costs no time. Of fewer than
    two such, all trials of the regime count.
    """
    groups: dict[_Place, list[tuple[TrainingRun, float]]] = defaultdict(list)
    for run in runs:
        if run.status == "completed" and run.seconds and run.trained:
            groups[run.regime, run.optimizer].append((run, run.trained / run.seconds))
    made = {}
    for winner in winners:
        members = groups[winner.regime, winner.optimizer]
        batch = dict(winner.config).get(BATCH)
        equal = [rate for run, rate in members if dict(run.config).get(BATCH) == batch]
        rates = np.array(equal if len(equal) > 1 else [rate for _, rate in members])
        if len(rates):
            made[winner.regime, winner.optimizer] = _pace(rates)
    return made


def uneven_clocks(paces: Mapping[_Place, Pace]) -> tuple[str, ...]:
    """Warnings where equal trials differ in speed by more than `UNEVEN`, and where no two clocks can have one unit."""
    return (*_uneven(paces), *_other_units(paces))


def _other_units(paces: Mapping[_Place, Pace]) -> Iterator[str]:
    """A warning where optimizers of a regime differ in speed by more than `NO_RULE`, as hours and seconds do."""
    rates: dict[RegimeKey, dict[str, float]] = defaultdict(dict)
    for (regime, optimizer), pace in paces.items():
        rates[regime][optimizer] = pace.rate
    factors = {regime: max(own.values()) / min(own.values()) for regime, own in rates.items()}
    apart = {regime: factor for regime, factor in factors.items() if factor > NO_RULE}
    if apart:
        worst = max(apart, key=lambda regime: apart[regime])
        slow, fast = (pick(rates[worst], key=rates[worst].__getitem__) for pick in (min, max))
        yield (
            f"by their seconds {fast} trains {apart[worst]:,.0f} times as fast as {slow} at {worst.label}, which is no "
            "update rule's doing: they are in other units or of other devices, and what is said in seconds says nothing"
        )


def _uneven(paces: Mapping[_Place, Pace]) -> tuple[str, ...]:
    """A warning where equal trials differ in speed: other work ran, or the machines differ."""
    made = {place: pace for place, pace in paces.items() if pace.trials > 1}
    uneven = {place: pace for place, pace in made.items() if pace.spread > UNEVEN}
    if not uneven:
        return ()
    (regime, optimizer), worst = max(uneven.items(), key=lambda item: (item[1].spread, item[0]))
    return (
        f"equal trials differ in speed by more than {UNEVEN:.0%} for {len(uneven)} of {len(made)} results (most for "
        f"{optimizer} at {regime.label}, by {worst.spread:.0%}): other work ran beside them or their machines differ, "
        "and what is said in seconds is as uncertain",
    )


def _pace(rates: Array) -> Pace:
    """The pace of trials with ``rates`` (trials,), its error by redrawing them."""
    # A median, because what disturbs a clock makes it slower and never faster.
    middle = float(np.median(rates))
    outer = (0.1, 0.9) if len(rates) >= MANY else (0.0, 1.0)
    low, high = np.quantile(rates, outer)
    error = None
    if len(rates) > 1:
        # In log, so that errors of two paces and of a speedup add as ratios do; the seed makes a report repeatable.
        drawn = np.random.default_rng(len(rates)).choice(np.log(rates), (REDRAWN, len(rates)))
        error = float(np.std(np.median(drawn, axis=1)))
    return Pace(middle, error, len(rates), float(high - low) / middle)


def _in_seconds(speed: Speedup | None, own: Pace | None, base: Pace | None) -> dict[str, float | None]:
    """The ends of a speedup in seconds: of the one in tokens and of both paces, added in squares in log."""
    if speed is None or own is None or base is None or not speed.speedup > 0:
        return {}
    if own.error is None or base.error is None or speed.low is None or not speed.low > 0:
        return {}
    centre = speed.speedup * own.rate / base.rate
    half = ONE_SIDED_95 * math.hypot(own.error, base.error)  # both paces of one trial list for the baseline itself: 0
    half = 0.0 if own is base else half
    below = math.hypot(math.log(speed.speedup / speed.low), half)
    above = None if speed.high is None else math.hypot(math.log(max(speed.high / speed.speedup, 1.0)), half)
    return {
        "speedup_seconds_low": centre * math.exp(-below),
        "speedup_seconds_high": None if above is None else centre * math.exp(above),
    }


def _rank(facts: Mapping[_Place, Mapping[str, float | None]], place: _Place, name: str) -> int | None:
    """The place by one measure among those of the regime that have it; equals share the better place."""
    # Of costs and of the loss less is better, of speedups more.
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
