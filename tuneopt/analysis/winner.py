"""Which configuration stands for an optimizer in a regime: one rule for sweeps and for tables.

A sweep ends on an incumbent, and that is its candidate: the analysis does not search its trials again. In a table from
elsewhere every configuration is a candidate. Of several candidates (a table's, or those of several sweeps in one
regime) the rule below takes one, on the select split; its loss is reported on the report split, which no choice has
seen.

Among configurations that cannot be told from the lowest select loss (closer than the tolerance), the one run with most
seeds stands: it was confirmed, and taking the lowest of many near-equal runs would report luck.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.runs import LARGEST_LOSS, Config, RegimeKey, Role, TrainingRun
from tuneopt.constants import TOLERANCE

BROKEN = 1.0
"""Nats above a tuned loss from which on a run is broken: learning rates of published sweeps that trained at all cost
up to half of it."""

TORN, TIMES = 0.1, 20.0
"""One seed is broken where seeds end this many nats apart, and this many times as far as those of other results."""


@dataclass(frozen=True, slots=True)
class Winner:
    """The result of an optimizer in a regime: the configuration that stands for it.

    ``loss`` and ``select_loss`` (nats) are means over its ``runs`` seeds, ``tokens`` is the budget of one run.
    ``trials`` are the ids of those runs, by seed; ``spread`` is how far the seeds lie apart (nats).
    """

    optimizer: str
    regime: RegimeKey
    parameters: int | None
    tokens: float
    loss: float
    select_loss: float
    runs: int
    config: Config
    trials: tuple[str, ...]
    spread: float = 0.0


def torn(winners: Iterable[Winner]) -> frozenset[tuple[RegimeKey, str]]:
    """Results of which one seed ends far from the others, by what other results show; their mean is nobody's loss."""
    several = sorted((one for one in winners if one.runs > 1), key=lambda one: one.spread)
    if len(several) == 1:
        return frozenset((one.regime, one.optimizer) for one in several if one.spread >= BROKEN)
    middle = (len(several) - 2) // 2  # the lower median of all but one
    found = set()
    for place, one in enumerate(several):
        usual = several[middle + (place <= middle)].spread
        if one.spread >= max(TORN, TIMES * usual):
            found.add((one.regime, one.optimizer))
    return frozenset(found)


def far_above(winners: Iterable[Winner]) -> dict[tuple[RegimeKey, str], float]:
    """Results `BROKEN` nats or more above the best of their regime, by regime and optimizer, and how far.

    A broken result that lies as far below everybody else is no best one: it has its negative distance from the next.
    Nor is the mean over seeds of which one is broken, which is left out.
    """
    results = _whole(winners)
    gaps, odd = _gaps(results), broken(results)
    found = {key: gap for key, gap in gaps.items() if key in odd and gap < 0}
    for regime, members in by_regime(results).items():
        sound = [one for one in members if (regime, one.optimizer) not in found]
        lowest = min(winner.loss for winner in sound)
        found |= {(regime, one.optimizer): one.loss - lowest for one in sound if one.loss - lowest >= BROKEN}
    return found


def broken(winners: Iterable[Winner]) -> frozenset[tuple[RegimeKey, str]]:
    """Results `BROKEN` nats from the best other one of their regime, unlike the same optimizer's next to them.

    Its distance from the others has a step of as much there, and so has its own loss, or it rises with the tokens of a
    scale. One rival whose loss is of another kind puts everybody as far away; nobody's own line has a step then. An
    optimizer that is far from the others everywhere, be it by a law that is steep, has none in its distance. Broken as
    well is a mean over seeds that end as far apart (`torn`).
    """
    every = list(winners)
    results, apart = _whole(every), _apart(every)
    gaps = _gaps(results)
    far = {key for key, gap in gaps.items() if abs(gap) >= BROKEN}
    lines: dict[tuple[str, str], list[Winner]] = defaultdict(list)
    for one in sorted(results, key=lambda winner: winner.tokens) if far else ():
        lines[one.regime.corpus, one.optimizer].append(one)

    def steps(before: Winner, after: Winner) -> bool:
        first, second = (gaps.get((one.regime, one.optimizer), 0.0) for one in (before, after))
        rises = before.regime.scale == after.regime.scale and after.loss > before.loss
        own = abs(after.loss - before.loss) >= BROKEN or rises
        return own and abs(second - first) >= BROKEN

    pairs = [pair for line in lines.values() for pair in pairwise(line) if steps(*pair)]
    return frozenset(apart | {key for pair in pairs for one in pair if (key := (one.regime, one.optimizer)) in far})


def _apart(winners: Sequence[Winner]) -> frozenset[tuple[RegimeKey, str]]:
    """Results of which one seed ends `BROKEN` nats from the others."""
    wide = {(one.regime, one.optimizer) for one in winners if one.spread >= BROKEN}
    return torn(winners) & wide


def _whole(winners: Iterable[Winner]) -> list[Winner]:
    """The results whose distance says something: seeds agree, and losses may be in nats (`LARGEST_LOSS`)."""
    every = list(winners)
    if min((one.loss for one in every), default=0.0) > LARGEST_LOSS:
        return []
    apart = _apart(every)
    return [one for one in every if (one.regime, one.optimizer) not in apart]


def _gaps(winners: Iterable[Winner]) -> dict[tuple[RegimeKey, str], float]:
    """The nats of each result above the best of the others of its regime, less than 0 for the best; none alone."""
    gaps = {}
    for regime, members in by_regime(winners).items():
        low = sorted(winner.loss for winner in members)
        for one in members if len(low) > 1 else ():
            gaps[regime, one.optimizer] = one.loss - (low[1] if one.loss == low[0] else low[0])
    return gaps


def winners(runs: Iterable[TrainingRun], noise: NoiseModel) -> tuple[Winner, ...]:
    """The winner of each (optimizer, regime) that has a completed candidate among ``runs``.

    Ordered by model size, regime and optimizer. Runs that diverged or lack a passed update check never enter. Of two
    runs of one setting and seed the first counts.
    """
    groups: dict[tuple[RegimeKey, str], dict[Any, dict[int, TrainingRun]]] = {}
    for run in runs:
        if run.status == "completed" and run.role is Role.CANDIDATE:
            settings = groups.setdefault((run.regime, run.optimizer), defaultdict(dict))
            settings[run.setting].setdefault(run.seed, run)

    def size(place: tuple[RegimeKey, str]) -> float:
        return next(iter(next(iter(groups[place].values())).values())).parameters or 0

    places = sorted(groups, key=lambda place: (size(place), place))
    return tuple(_winner(list(groups[place].values()), noise) for place in places)


def _winner(candidates: list[dict[int, TrainingRun]], noise: NoiseModel) -> Winner:
    """The one of ``candidates`` (each one's runs by seed) that stands."""
    # The seeds that all candidates ran with speak for them: a mean over more of some would hide a lucky run. Without
    # any it is the seed that most have; a candidate without it has its own first seed, for none may be left out.
    common = set.intersection(*map(set, candidates))
    if not common:
        counts = Counter(seed for candidate in candidates for seed in candidate)
        common = {min(counts, key=lambda seed: (-counts[seed], seed))}
    judged = [fmean(run.losses[0] for run in _judged(candidate, common)) for candidate in candidates]
    lowest, first = min(judged), [candidate[min(candidate)] for candidate in candidates]
    known = noise.of(first[0].regime)
    tolerance = TOLERANCE if known is None else max(TOLERANCE, known.threshold())
    near = [place for place, loss in enumerate(judged) if loss <= lowest + tolerance]
    if max(len(candidates[place]) for place in near) == 1:  # nothing was confirmed: the lowest loss stands
        near = [place for place in near if judged[place] == lowest]
    # The configuration as text comes last, so that equal losses give the same winner in any order of the rows.
    chosen = candidates[
        min(near, key=lambda place: (-len(candidates[place]), judged[place], repr(first[place].config)))
    ]
    members = [chosen[number] for number in sorted(chosen)]
    ends = [run.losses[1] for run in members]
    return Winner(
        optimizer=members[0].optimizer,
        regime=members[0].regime,
        parameters=members[0].parameters,
        tokens=members[0].tokens,
        loss=sum(ends) / len(ends),
        select_loss=sum(run.losses[0] for run in members) / len(members),
        runs=len(members),
        config=members[0].config,
        trials=tuple(run.trial for run in members),
        spread=max(ends) - min(ends),
    )


def _judged(candidate: dict[int, TrainingRun], common: Collection[int]) -> list[TrainingRun]:
    """The runs of a candidate that the choice looks at."""
    return [candidate[seed] for seed in sorted(common) if seed in candidate] or [candidate[min(candidate)]]


def by_regime(winners: Iterable[Winner]) -> dict[RegimeKey, list[Winner]]:
    """Winners by regime, both in the order in which they come."""
    regimes: dict[RegimeKey, list[Winner]] = defaultdict(list)
    for winner in winners:
        regimes[winner.regime].append(winner)
    return regimes
