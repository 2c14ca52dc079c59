"""The first screen: which optimizers share the best group at each scale, and by how much they beat the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneopt.analysis.best import Result
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.ranking import Ranking
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.speedup import BASELINE, LEVEL, Speedup

NAMED = 4
"""Leaders that a sentence gives figures for; of more it gives the first and the last."""


@dataclass(frozen=True, slots=True)
class Gain:
    """An optimizer against the baseline in one regime.

    ``nats`` is the baseline's loss minus the optimizer's, with its interval (None where no noise is known);
    ``speedup`` is None where the baseline has no law at the scale.
    """

    optimizer: str
    nats: float
    nats_low: float | None
    nats_high: float | None
    speedup: float | None
    low: float | None
    high: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What can be said at a scale, in its regime of the largest ratio that the baseline and half of the others have.

    ``leaders`` is the best tie group, lowest loss first: with the family's confidence no optimizer outside it is the
    best. It is empty where no noise is known. ``gains`` holds the leaders other than the baseline, in their order
    (without leaders, the optimizer with the lowest loss); it is empty where the baseline has no result.
    """

    regime: RegimeKey
    leaders: tuple[str, ...]
    compared: int
    gains: tuple[Gain, ...]
    sentence: str


def statements(
    results: Sequence[Result],
    rankings: Sequence[Ranking],
    speeds: Sequence[Speedup],
    noise: NoiseModel,
    *,
    baseline: str = BASELINE,
    level: float = LEVEL,
) -> tuple[Statement, ...]:
    """One statement per corpus and scale, in the order of the rankings."""
    places: dict[tuple[str, str], list[Ranking]] = {}
    for ranking in rankings:
        places.setdefault(ranking.regime[:2], []).append(ranking)
    chosen = [_largest(members, baseline) for members in places.values()]
    known = {(result.regime, result.optimizer): result for result in results}
    fast = {(speed.regime, speed.optimizer): speed for speed in speeds}
    found = []
    for ranking in chosen:
        base = known.get((ranking.regime, baseline))
        names = [name for name in ranking.leaders or ranking.order[:1] if name != baseline]
        gains = []
        for name in names if base is not None else ():
            assert base is not None
            result, speed = known[ranking.regime, name], fast.get((ranking.regime, name))
            gains.append(_gain(result, base, speed, noise, level))
        sentence = _sentence(ranking, gains, baseline, base is not None, level)
        found.append(Statement(ranking.regime, ranking.leaders, len(ranking.order), tuple(gains), sentence))
    return tuple(found)


def _largest(members: Sequence[Ranking], baseline: str) -> Ranking:
    """The regime of the largest ratio where the baseline and at least half of the scale's optimizers are."""
    most = max(len(ranking.order) for ranking in members)
    return max(members, key=lambda each: (baseline in each.order and 2 * len(each.order) >= most, each.regime.ratio))


def _gain(result: Result, base: Result, speed: Speedup | None, noise: NoiseModel, level: float) -> Gain:
    nats = base.loss - result.loss
    spread = noise.of(result.regime)
    half = None if spread is None else spread.threshold(result.runs, base.runs, (1 + level) / 2)
    return Gain(
        optimizer=result.optimizer,
        nats=nats,
        nats_low=None if half is None else nats - half,
        nats_high=None if half is None else nats + half,
        speedup=None if speed is None else speed.speedup,
        low=None if speed is None else speed.low,
        high=None if speed is None else speed.high,
        flags=() if speed is None else speed.flags,
    )


def _sentence(ranking: Ranking, gains: Sequence[Gain], baseline: str, there: bool, level: float) -> str:
    place, count = ranking.regime.label, len(ranking.order)
    if count == 1:
        return f"At {place} only {ranking.order[0]} has a result, so there is nothing to compare."
    if not ranking.leaders:
        gap = f", {abs(gains[0].nats):.4f} nats under {baseline}'s" if gains else ""
        return (
            f"At {place} the lowest of {count} losses is {ranking.order[0]}'s{gap}, but the noise is not known, so no "
            "best optimizer can be named."
        )
    first = f"At {place} {_group(ranking.leaders, count)}"
    if baseline in ranking.leaders:
        return f"{first}: no optimizer is shown to beat {baseline}."
    if not there:
        return f"{first}; {baseline} has no result there to compare with."
    shown = list(gains) if len(gains) <= NAMED else [gains[0], gains[-1]]
    word = "" if len(gains) <= NAMED else "from the first to the last, "
    gaps = [f"{gain.nats:.4f}" for gain in (min(gains, key=_nats), max(gains, key=_nats))]
    under = gaps[0] if gaps[0] == gaps[1] else f"{gaps[0]} to {gaps[1]}"
    if any(gain.speedup is None for gain in gains):
        spans = ", ".join(f"{gain.optimizer} {_bounds(gain.nats, gain.nats_low, gain.nats_high, 4)}" for gain in shown)
        return f"{first}; nats under {baseline}, with {level:.0%} intervals: {word}{spans}."
    speeds = ", ".join(
        f"{gain.optimizer} {_bounds(gain.speedup, gain.low, gain.high, 2, gain.flags)}" for gain in shown
    )
    return f"{first}, {under} nats under {baseline}; speedup over it, with {level:.0%} intervals: {word}{speeds}."


def _nats(gain: Gain) -> float:
    return gain.nats


def _group(leaders: Sequence[str], count: int) -> str:
    if len(leaders) == 1:
        return f"{leaders[0]} is the best of {count} optimizers by more than noise explains"
    listed = f"{', '.join(leaders[:-1])} and {leaders[-1]}"
    if len(leaders) == count:
        return f"none of the {count} optimizers ({listed}) can be told from the best"
    return f"{listed} share the best group of {count} optimizers"


def _bounds(value: float | None, low: float | None, high: float | None, digits: int, flags: Sequence[str] = ()) -> str:
    assert value is not None and np.isfinite(value)
    prefix = "at least " if "lower bound" in flags else ""
    if low is None:
        return f"{prefix}{value:.{digits}f}"
    end = "open" if high is None else f"{high:.{digits}f}"
    return f"{prefix}{value:.{digits}f} [{low:.{digits}f}, {end}]"
