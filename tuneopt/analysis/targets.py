"""Steps, tokens or seconds to a target loss: what a race between optimizers compares.

Two kinds of tables hold such a race. Either runs of several lengths were trained to their ends, and the shortest length
whose mean final loss is at the target counts (a run that passes the target on its way to a longer end would need
another schedule to stop there, so it does not count). Or a log says when each trial first reached the target, as
AlgoPerf's does; there a study is its fastest trial, and an optimizer the median of its studies.

The rules are those of a public optimizer track at 124M parameters (KellerJordan/modded-nanogpt, track 3). A length is
accepted at n runs when (target - mean) sqrt(n) is at least `MARGIN`. Two methods differ when the difference of their
mean losses, with `CREDIT` nats for each 100 steps that one takes fewer, over sqrt(1/n + 1/m), is at least `MARGIN`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.regimes import ONE_BUDGET, near
from tuneopt.analysis.runs import TrainingRun
from tuneopt.constants import ONE_SIDED_95
from tuneopt.spec import InputError

MARGIN = 0.004
"""Nats by which a mean must pass the target, times the square root of its runs: 3 times the track's `RULE_SIGMA`."""

RULE_SIGMA = 0.0013
"""The spread between seeds (nats) that the track declares; where more was measured, the margin grows with it."""

CREDIT = 0.0045
"""Nats that 100 steps are worth near the end of the track's runs."""

TRACK_STEPS = 3300
"""Steps of a run of the track: by them the credit is one in proportion to the length, 0.15 nats for each e-fold."""

ORDERS = 20
"""Orders in which the studies of two optimizers can come: of so many, two have all studies of one first (10%)."""

ONE_BATCH = 1.05
"""Largest over smallest tokens of a step up to which batches are one: ends of an epoch make some a little smaller."""

APART = 0.1
"""Log ratio of two lengths from which on they show a slope: closer ones show the noise of their means."""


@dataclass(frozen=True, slots=True)
class TargetTrial:
    """One trial of a log that says when the target was reached; ``steps`` and ``seconds`` to it are None where never.

    ``task`` is the workload, ``study`` the repetition that the trial belongs to, ``trial`` its name there.
    """

    optimizer: str
    corpus: str
    task: str
    ruleset: str
    study: str
    target: float | None
    steps: float | None
    seconds: float | None
    trial: str = ""


@dataclass(frozen=True, slots=True)
class ToTarget:
    """What one optimizer needs to reach a target loss at a scale.

    ``steps``, ``tokens`` and ``seconds`` are those of the shortest length whose mean loss is at the target, None where
    no run reached it or the table does not count them. Steps are None as well where those of a race are of several
    batch sizes. ``low`` and ``high`` bound the steps (tokens where steps are not
    known) that would do: for lengths they reach to where the mean would lie on the target, moved by its noise, and for
    logs to the fastest and slowest study, whose seconds are ``quickest`` and ``slowest``. ``loss`` is the mean there
    over ``runs``, ``accepted`` says whether the rule accepts it, and ``ties`` names the optimizers that the rule does
    not tell from this one. ``shortest`` says that no shorter length was run, so that fewer may do. ``lost`` counts what
    never came there: further runs of that configuration that diverged, or in a log those of ``runs`` studies that did
    not reach the target. ``margin`` (nats) is what the rule asks of a mean times the square root of its runs; None in a
    log.
    """

    optimizer: str
    corpus: str
    scale: str
    target: float | None
    steps: float | None
    low: float | None
    high: float | None
    tokens: float | None
    seconds: float | None
    loss: float | None
    runs: int
    accepted: bool
    ties: tuple[str, ...] = ()
    ruleset: str = ""
    quickest: float | None = None
    slowest: float | None = None
    shortest: bool = False
    lost: int = 0
    margin: float | None = None

    @property
    def size(self) -> float | None:
        """What a race is ranked by: seconds in a log of races, else steps, else tokens; None where never reached."""
        return (self.seconds if self.loss is None else None) or self.steps or self.tokens or self.seconds

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The bounds of `size`, in its unit."""
        return (self.quickest, self.slowest) if self.loss is None and self.seconds else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class _Length:
    """The runs of one optimizer, scale and budget."""

    tokens: float
    steps: float | None
    seconds: float | None
    loss: float
    runs: int
    lost: int
    accepted: bool


def to_target(
    runs: Iterable[TrainingRun], trials: Iterable[TargetTrial], noise: NoiseModel, targets: Sequence[float] = ()
) -> tuple[ToTarget, ...]:
    """What every optimizer needs to each of ``targets`` (nats), by corpus, scale and target, the fewest first.

    ``trials`` bring their own target. Means are over runs that completed; a run's loss is its report loss. Raises
    `InputError` for a race of which some results count seconds and others steps.
    """
    places: dict[tuple[str, str], dict[str, list[TrainingRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs if targets else ():
        if run.status != "unproven":
            places[run.regime[:2]][run.optimizer].append(run)
    rows: list[ToTarget] = []
    for (corpus, scale), every in places.items():
        members = {name: own for name, own in every.items() if any(run.status == "completed" for run in own)}
        sigmas = [
            spread.sigma
            for own in members.values()
            for run in own
            if run.status == "completed" and (spread := noise.of(run.regime, run.optimizer))
        ]
        sigma = max(RULE_SIGMA, median(sigmas)) if sigmas else RULE_SIGMA
        for target in dict.fromkeys(targets):
            lengths = _in_one_batch({name: _lengths(own, target, sigma) for name, own in members.items()})
            reached = [_reached(name, corpus, scale, target, own, sigma) for name, own in lengths.items()]
            rows += _with_ties(sorted(reached, key=_fewest), sigma)
    return (*rows, *_from_trials(trials))


def _lengths(runs: Iterable[TrainingRun], target: float, sigma: float) -> list[_Length]:
    """The best configuration at each budget, shortest first: each setting's seeds are one mean.

    One that the rule accepts comes before a lower mean that it does not: a lucky run proves nothing against many.
    """
    settings: dict[object, list[TrainingRun]] = defaultdict(list)
    for run in runs:
        settings[run.setting].append(run)
    means = [length for members in settings.values() if (length := _length(members, target, sigma)) is not None]
    groups = near((((place, one.tokens), one.tokens) for place, one in enumerate(means)), ONE_BUDGET, lambda key: key)
    return [
        min((means[place] for (place, _), _ in group), key=lambda one: (not one.accepted, one.loss)) for group in groups
    ]


def _length(every: Sequence[TrainingRun], target: float, sigma: float) -> _Length | None:
    """The runs of one setting; None where all of them diverged."""
    members = [run for run in every if run.status == "completed"]
    if not members:
        return None
    loss = fmean(run.losses[1] for run in members)
    steps = [run.steps for run in members if run.steps is not None]
    seconds = [run.seconds for run in members if run.seconds is not None]
    return _Length(
        tokens=fmean(run.tokens for run in members),
        steps=fmean(steps) if len(steps) == len(members) else None,
        seconds=median(seconds) if seconds else None,
        loss=loss,
        runs=len(members),
        lost=len(every) - len(members),
        accepted=(target - loss) * math.sqrt(len(members)) >= _margin(sigma),
    )


def _in_one_batch(lengths: Mapping[str, list[_Length]]) -> Mapping[str, list[_Length]]:
    """The lengths of a race, without steps where a step is not as many tokens for all: it is then won by its batch."""
    every = [one for own in lengths.values() for one in own]
    batches = [one.tokens / one.steps for one in every if one.steps]
    if len(batches) == len(every) and max(batches) <= ONE_BATCH * min(batches):
        return lengths
    return {name: [replace(one, steps=None) for one in own] for name, own in lengths.items()}


def _reached(
    optimizer: str, corpus: str, scale: str, target: float, lengths: Sequence[_Length], sigma: float
) -> ToTarget:
    """The shortest accepted length, else the shortest whose mean is at the target, else None."""
    accepted = [one for one in lengths if one.accepted]
    at_target = accepted or [one for one in lengths if one.loss <= target]
    best = at_target[0] if at_target else min(lengths, key=lambda one: one.loss)
    low, high = _bounds(best, lengths, target, sigma)
    return ToTarget(
        optimizer=optimizer,
        corpus=corpus,
        scale=scale,
        target=target,
        steps=best.steps if at_target else None,
        low=low,
        high=max(high, best.steps or best.tokens) if at_target else None,  # this length is enough, by what was seen
        tokens=best.tokens if at_target else None,
        seconds=best.seconds if at_target else None,
        loss=best.loss,
        runs=best.runs,
        accepted=bool(accepted),
        shortest=bool(at_target) and best is lengths[0] and len(lengths) > 1,
        lost=best.lost,
        margin=MARGIN * sigma / RULE_SIGMA,
    )


def _margin(sigma: float) -> float:
    """The margin for a spread between seeds; losses are printed with five digits, so the last bit is no verdict."""
    return MARGIN * sigma / RULE_SIGMA - 1e-9


def _bounds(best: _Length, lengths: Sequence[_Length], target: float, sigma: float) -> tuple[float, float]:
    """Where the mean would cross the target, moved down and up by its noise (90%).

    The slope is that between this length and the nearest other one of the optimizer; where it has no other, the
    track's credit, taken in proportion to the length.
    """
    size = best.steps or best.tokens
    rate = CREDIT / 100 * TRACK_STEPS  # nats for each e-fold of the budget
    others = [one for one in lengths if abs(math.log(one.tokens / best.tokens)) > APART]
    if others:
        near_by = min(others, key=lambda one: abs(math.log(one.tokens / best.tokens)))
        slope = (near_by.loss - best.loss) / math.log(best.tokens / near_by.tokens)
        rate = slope if slope > 0 else rate
    half = ONE_SIDED_95 * sigma / math.sqrt(best.runs)
    ends = [size * math.exp((best.loss - target + change) / rate) for change in (-half, half)]
    return ends[0], ends[1]


def _fewest(one: ToTarget) -> tuple[float, float, float, str]:
    """A sort key: the fewest steps (tokens, seconds) first, those that never reached the target last."""
    size = one.steps or one.tokens or one.seconds
    return (math.inf if size is None else size, one.loss or 0.0, -one.runs, one.optimizer)


def differ(first: ToTarget, second: ToTarget, sigma: float = RULE_SIGMA) -> bool:
    """Whether the rule tells two methods apart: losses at their lengths, with credit for the steps one takes fewer."""
    if first.loss is None or second.loss is None or first.tokens is None or second.tokens is None:
        return (first.tokens is None) != (second.tokens is None)
    if first.steps is not None and second.steps is not None:
        credit = CREDIT * (second.steps - first.steps) / 100
    else:
        credit = CREDIT / 100 * TRACK_STEPS * math.log(second.tokens / first.tokens)
    gap = abs(second.loss - first.loss + credit)
    return gap / math.sqrt(1 / first.runs + 1 / second.runs) >= _margin(sigma)


def _with_ties(rows: Sequence[ToTarget], sigma: float) -> list[ToTarget]:
    """The rows with the names that the rule does not tell from each; only what reached the target is compared."""
    there = [row for row in rows if row.tokens is not None]
    return [
        replace(
            row, ties=tuple(other.optimizer for other in there if other is not row and not differ(row, other, sigma))
        )
        if row.tokens is not None
        else row
        for row in rows
    ]


def _from_trials(trials: Iterable[TargetTrial]) -> list[ToTarget]:
    """The optimizers of each task: the fastest trial of each study, and the median over studies.

    A study whose trials never reach the target counts as endless, so the median is one only where most studies do.
    """
    races: dict[tuple[str, str, str, float | None], list[TargetTrial]] = defaultdict(list)
    for trial in trials:
        races[trial.corpus, trial.task, trial.ruleset, trial.target].append(trial)
    groups: dict[tuple[str, str, str, float | None], dict[str, dict[str, list[TargetTrial]]]] = {}
    for race, members in races.items():
        groups[race] = defaultdict(lambda: defaultdict(list))
        for trial in _in_one_unit(members):
            groups[race][trial.optimizer][trial.study].append(trial)
    rows: list[ToTarget] = []
    for (corpus, task, ruleset, _), optimizers in groups.items():
        own: list[tuple[ToTarget, list[float]]] = []  # each with the times of its studies
        for name, studies in optimizers.items():
            best = [min(members, key=lambda one: _or_endless(one.seconds or one.steps)) for members in studies.values()]
            steps = sorted(_or_endless(one.steps) for one in best)
            seconds = sorted(_or_endless(one.seconds) for one in best)
            times = sorted(_or_endless(one.seconds or one.steps) for one in best)
            row = ToTarget(
                optimizer=name,
                corpus=corpus,
                scale=task,
                target=best[0].target,
                steps=_finite(_middle(steps)),
                low=_finite(steps[0]),
                high=_finite(steps[-1]),
                tokens=None,
                seconds=_finite(_middle(seconds)),
                loss=None,
                runs=len(best),
                accepted=_finite(_middle(seconds)) is not None or _finite(_middle(steps)) is not None,
                ruleset=ruleset,
                quickest=_finite(seconds[0]),
                slowest=_finite(seconds[-1]),
                lost=sum(math.isinf(time) for time in times),
            )
            own.append((row, times))
        told = [replace(row, ties=_overlapping(row, times, own)) for row, times in own]
        rows += sorted(told, key=lambda one: (_or_endless(one.seconds or one.steps), one.optimizer))
    return rows


def _in_one_unit(trials: Sequence[TargetTrial]) -> list[TargetTrial]:
    """The trials of a race by seconds where all that reached the target have them, else by steps alone."""
    there = [trial for trial in trials if trial.seconds is not None or trial.steps is not None]
    if all(trial.seconds is not None for trial in there):
        return list(trials)
    if all(trial.steps is not None for trial in there):
        return [replace(trial, seconds=None) for trial in trials]
    names = [
        ", ".join(sorted({trial.optimizer for trial in there if getattr(trial, other) is None}))
        for other in ("seconds", "steps")
    ]
    raise InputError(
        f"in the race at {there[0].task} some results have no seconds to the target ({names[0]}) and some no steps "
        f"({names[1]}); give either of them for all"
    )


def _overlapping(
    row: ToTarget, times: Sequence[float], others: Sequence[tuple[ToTarget, Sequence[float]]]
) -> tuple[str, ...]:
    """Whom the studies do not tell from ``row``: neither's slowest study is faster than the other's fastest.

    Of two equal optimizers with three studies each that tells one from the other with a chance of 10%; fewer studies
    tell nobody apart.
    """

    def apart(own: Sequence[float]) -> bool:
        return math.comb(len(times) + len(own), len(own)) >= ORDERS and (times[-1] < own[0] or own[-1] < times[0])

    there = [(other, own) for other, own in others if other is not row and math.isfinite(own[0])]
    near_by = [other.optimizer for other, own in there if not apart(own)]
    return tuple(near_by) if row.accepted else ()


def _middle(values: Sequence[float]) -> float:
    """The median of sorted values, the worse of the two middle ones where they are even in number."""
    return values[len(values) // 2]


def _or_endless(value: float | None) -> float:
    return math.inf if value is None else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def races(rows: Iterable[ToTarget]) -> list[list[ToTarget]]:
    """The rows of each race: one corpus, scale, ruleset and target."""
    groups: dict[tuple[object, ...], list[ToTarget]] = defaultdict(list)
    for row in rows:
        groups[row.corpus, row.ruleset, row.scale, row.target].append(row)
    return list(groups.values())


def scores(rows: Sequence[ToTarget], most: float = 4.0) -> Mapping[str, float]:
    """AlgoPerf's score of each optimizer: the area under its performance profile, from 1 to ``most`` times the fastest.

    A profile says for each factor on which share of the tasks an optimizer is within that factor of the fastest one
    (Dahl et al., arXiv 2306.07179, section 4.3). A task that nobody finishes counts against all. One that a single
    optimizer ran compares nothing, and is left out; the score is empty where no other is.
    """
    tasks: dict[tuple[str, str, float | None], dict[str, float]] = defaultdict(dict)
    for row in rows:
        tasks[row.corpus, row.scale, row.target][row.optimizer] = _or_endless(row.size)
    tasks = {task: times for task, times in tasks.items() if len(times) > 1}
    names = {name for times in tasks.values() for name in times}
    total = dict.fromkeys(sorted(names), 0.0)
    for times in tasks.values():
        fastest = min(times.values())
        for name in total:
            factor = times.get(name, math.inf) / fastest if math.isfinite(fastest) else math.inf
            # Under a step function the area is what is left of the range after the factor is reached.
            total[name] += max(0.0, most - max(factor, 1.0)) / (most - 1.0)
    return {name: area / len(tasks) for name, area in total.items()}
