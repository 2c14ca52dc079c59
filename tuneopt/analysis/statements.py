"""What the analysis says in words: the statement of each scale.

A statement names which optimizers share the best group and by how much they beat the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.analysis.names import decimals, speedup_decimals
from tuneopt.analysis.noise import NoiseModel, difference_noise
from tuneopt.analysis.ranking import Ranking, rankings
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.speedup import BEYOND_BUDGETS, DEFAULTS, IntervalSettings, Speedup
from tuneopt.analysis.winner import Winner

SHOWN = 6
"""Names that a warning lists; of more it gives the number."""

NAMED = 4
"""Leaders that a sentence gives figures for; of more it gives the first and the last, or nobody would read it."""


@dataclass(frozen=True, slots=True)
class Gain:
    """An optimizer against the baseline in one regime.

    ``nats`` is the baseline's loss minus the optimizer's, with its interval (None where no noise is known);
    ``speedup`` is None where the baseline has no law at the scale. ``settled_by`` is the ratio of the baseline run that
    would settle an extrapolated speedup (`tuneopt.analysis.speedup.Speedup`).
    """

    optimizer: str
    nats: float
    nats_low: float | None
    nats_high: float | None
    speedup: float | None
    low: float | None
    high: float | None
    flags: tuple[str, ...]
    settled_by: float | None = None

    @property
    def extrapolated(self) -> bool:
        """Whether the speedup rests on budgets that the baseline was never trained with."""
        return bool(BEYOND_BUDGETS & set(self.flags))


@dataclass(frozen=True, slots=True)
class Statement:
    """What can be said at a scale, in its regime of the largest ratio that the baseline and half of the others have.

    ``leaders`` is the best tie group, lowest loss first: with the family's confidence no optimizer outside it is the
    best. It is empty where no noise is known. ``gains`` holds the leaders other than the baseline, in their order
    (without leaders, the optimizer with the lowest loss); it is empty where the baseline has no result. Where one of
    their speedups is extrapolated, ``bracketed`` holds those of the same optimizers in the regime of the largest ratio,
    ``bracketed_ratio``, where every one of them lies between two runs of the baseline.
    """

    regime: RegimeKey
    leaders: tuple[str, ...]
    compared: int
    gains: tuple[Gain, ...]
    sentence: str
    bracketed_ratio: float | None = None
    bracketed: tuple[Gain, ...] = ()


def statements(
    winners: Sequence[Winner],
    ranked: Sequence[Ranking],
    speeds: Sequence[Speedup],
    noise: NoiseModel,
    how: IntervalSettings = DEFAULTS,
) -> tuple[Statement, ...]:
    """One statement per corpus and scale, in the order of ``ranked``."""
    baseline, level = how.baseline, how.level
    places: dict[tuple[str, str], list[Ranking]] = {}
    for ranking in ranked:
        places.setdefault(ranking.regime[:2], []).append(ranking)
    known = {(winner.regime, winner.optimizer): winner for winner in winners}
    fast = {(speed.regime, speed.optimizer): speed for speed in speeds}
    every = []
    for members in places.values():
        # The regime of the largest ratio where the baseline and at least half of the scale's optimizers are; without
        # one, where there is something to compare.
        most = max(len(ranking.order) for ranking in members)
        ranking = max(members, key=lambda each: (baseline in each.order and 2 * len(each.order) >= most,
                                                 len(each.order) > 1, each.regime.ratio))  # fmt: skip
        base = known.get((ranking.regime, baseline))
        names = [name for name in ranking.leaders or ranking.order[:1] if name != baseline and base is not None]

        def gains_at(regime: RegimeKey, names: Sequence[str] = names) -> tuple[Gain, ...]:
            own = known.get((regime, baseline))
            pairs = [(known.get((regime, name)), fast.get((regime, name))) for name in names]
            return tuple(_gain(one, own, speed, noise, level) for one, speed in pairs if one and own)

        gains, ratio = gains_at(ranking.regime), None
        bracketed: tuple[Gain, ...] = ()
        if any(gain.extrapolated for gain in gains):
            smaller = sorted({one.regime for one in members if one.regime.ratio < ranking.regime.ratio}, reverse=True)
            for regime, there in ((regime, gains_at(regime)) for regime in smaller):
                measured = all(gain.speedup is not None and not gain.extrapolated for gain in there)
                if len(there) == len(gains) and measured:
                    ratio, bracketed = regime.ratio, there
                    break
        others = any(
            one.regime[:2] == ranking.regime[:2] and one.optimizer != baseline and "no law" not in one.flags
            for one in speeds
        )
        alone = len({name for one in members for name in one.order}) == 1
        sentence = _sentence(ranking, gains, baseline, base is not None, level, others, alone)
        told = bool(ranking.leaders) and baseline not in ranking.leaders  # then the sentence has speedups
        if told and any(gain.extrapolated and gain.speedup is not None for gain in gains):
            sentence += _beyond(ranking.regime, gains, ratio, bracketed, baseline)
        every.append(Statement(ranking.regime, ranking.leaders, len(ranking.order), gains, sentence, ratio, bracketed))
    return tuple(every)


def _beyond(
    regime: RegimeKey, gains: Sequence[Gain], ratio: float | None, bracketed: Sequence[Gain], baseline: str
) -> str:
    """What a statement adds where speedups are extrapolated: those that are not, and the run that would settle it."""
    words = ""
    if ratio is not None:
        words = f" Between runs of {baseline}, at {regime._replace(ratio=ratio).label}: {_speeds(bracketed)}."
    settling = [gain.settled_by for gain in gains if gain.settled_by is not None]
    if settling:
        # The outermost run brackets everybody's.
        place = regime._replace(ratio=max(settling)).label
        words += f" A run of {baseline} at {place} would settle what is extrapolated."
    return words


def noise_line(winners: Sequence[Winner], stated: Sequence[Statement], noise: NoiseModel) -> str:
    """How the best group of each statement would change with half and with twice the noise between seeds, in one line.

    Empty where no noise is known.
    """
    known = [one for one in stated if one.leaders and one.compared > 1]
    if not known:
        return ""
    regimes = {one.regime for one in known}
    here = [winner for winner in winners if winner.regime in regimes]
    spreads = [spread.sigma for one in known if (spread := noise.of(one.regime))]
    least, most = f"{min(spreads):.2g}", f"{max(spreads):.2g}"
    sigma = least if least == most else f"{least} to {most}"
    parts, calm = [], True
    for word, factor in ((f"sigma ({sigma} nats) were half", 0.5), ("it were twice", 2.0)):
        groups = {ranking.regime: ranking.leaders for ranking in rankings(here, noise.scaled(factor))}
        changed = [one for one in known if set(groups[one.regime]) != set(one.leaders)]
        listed = "; ".join(f"at {one.regime.label} {_change(one.leaders, groups[one.regime])}" for one in changed)
        what = f"the best group would change {listed}" if changed else "no best group named here would change"
        parts.append(f"If {word} as large, {what}.")
        calm = calm and not changed
    if calm:
        return f"No best group named here would change if sigma ({sigma} nats) were half or twice as large."
    return " ".join(parts)


def _change(before: Sequence[str], after: Sequence[str]) -> str:
    """Who leaves a group, and who joins it."""
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    words = [f"({way} {', '.join(names)})" for way, names in (("without", gone), ("with", new)) if names]
    return " ".join(words)


def _gain(winner: Winner, base: Winner, speed: Speedup | None, noise: NoiseModel, level: float) -> Gain:
    """``winner`` against ``base``: two means over independent seeds, so the variance of their difference is the sum."""
    nats = base.loss - winner.loss
    spreads = noise.of(winner.regime, winner.optimizer), noise.of(base.regime, base.optimizer)
    half = None
    if spreads[0] is not None and spreads[1] is not None:
        apart = difference_noise(spreads[0], winner.runs, spreads[1], base.runs)
        half = apart.quantile((1 + level) / 2) * apart.sigma
    return Gain(
        optimizer=winner.optimizer,
        nats=nats,
        nats_low=None if half is None else nats - half,
        nats_high=None if half is None else nats + half,
        speedup=None if speed is None or "no law" in speed.flags else speed.speedup,
        low=None if speed is None else speed.low,
        high=None if speed is None else speed.high,
        flags=() if speed is None else speed.flags,
        settled_by=None if speed is None else speed.settled_by,
    )


def _sentence(
    ranking: Ranking,
    gains: Sequence[Gain],
    baseline: str,
    there: bool,
    level: float,
    others: bool = False,
    alone: bool = True,
) -> str:
    """The statement in words; ``there`` says whether the baseline has a result in the regime.

    ``others`` says whether other optimizers have speedups at the scale, ``alone`` that none has a result there.

    From the least that can be said to the most: one optimizer alone, noise unknown, the baseline among the leaders, no
    baseline, gains in nats where it has no law, and gains as speedups.
    """
    place, count = ranking.regime.label, len(ranking.order)
    if count == 1:
        if not alone:
            return (
                f"At {place} only {ranking.order[0]} has a result. The other optimizers of this scale have results "
                f"only with other budgets, so losses are not compared{'; speedups are' if others else ''}."
            )
        return f"At {place} only {ranking.order[0]} has a result, so there is nothing to compare."
    if not ranking.leaders:
        gap = f", {abs(gains[0].nats):.4f} nats under {baseline}'s" if gains else ""
        equal = ranking.losses.count(ranking.losses[0])
        whose = f"{ranking.order[0]}'s" if equal == 1 else f"that of {equal} of them"
        return (
            f"At {place} the lowest of {count} losses is {whose}{gap}, but the noise is not known, so no "
            "best optimizer can be named."
        )
    first = f"At {place} {_group(ranking.leaders, count)}"
    if ranking.leaders == (baseline,):
        return f"{first}."
    if baseline in ranking.leaders:
        return f"{first}: no optimizer is shown to beat {baseline}."
    if not there:
        return f"{first}; {baseline} has no result there to compare with."
    shown = list(gains) if len(gains) <= NAMED else [gains[0], gains[-1]]
    word = "" if len(gains) <= NAMED else "from the first to the last, "
    nats = [gain.nats for gain in gains]
    places = min(map(_decimals, gains))
    gaps = [f"{gap:.{places}f}" for gap in (min(nats), max(nats))]
    under = gaps[0] if gaps[0] == gaps[1] else f"{gaps[0]} to {gaps[1]}"
    if any(gain.speedup is None for gain in gains):
        spans = ", ".join(
            f"{gain.optimizer} {_bounds(gain.nats, gain.nats_low, gain.nats_high, _decimals(gain))}" for gain in shown
        )
        return f"{first}; nats under {baseline}, with {level:.0%} intervals: {word}{spans}."
    return f"{first}, {under} nats under {baseline}; speedup over it, with {level:.0%} intervals: {_speeds(gains)}."


def _speeds(gains: Sequence[Gain]) -> str:
    """Speedups with their intervals, of many the first and the last; what is extrapolated says so."""
    shown = gains if len(gains) <= NAMED else [gains[0], gains[-1]]
    word = "" if len(gains) <= NAMED else "from the first to the last, "
    return word + ", ".join(
        f"{gain.optimizer} "
        f"{_bounds(gain.speedup, gain.low, gain.high, speedup_decimals(gain.low, gain.high), gain.flags)}"
        f"{' (extrapolated)' if gain.extrapolated else ''}"
        for gain in shown
    )


def _decimals(gain: Gain) -> int:
    """The decimals of a gain in nats: those of half its interval."""
    return decimals(None if gain.nats_high is None else gain.nats_high - gain.nats)


def _group(leaders: Sequence[str], count: int) -> str:
    """Who shares the first tie group; one optimizer is called the best only where it is alone there."""
    if len(leaders) == 1:
        return f"{leaders[0]} is the best of {count} optimizers by more than noise explains"
    listed = f"{', '.join(leaders[:-1])} and {leaders[-1]}"
    if len(leaders) == count:
        names = f" ({listed})" if count <= SHOWN else ""
        return f"none of the {count} optimizers{names} can be told from the best"
    if len(leaders) > SHOWN:  # nobody reads a list of equals, and a part of it would look like an order
        return f"{len(leaders)} of {count} optimizers share the best group"
    return f"{listed} share the best group of {count} optimizers"


def _bounds(value: float | None, low: float | None, high: float | None, digits: int, flags: Sequence[str] = ()) -> str:
    """A value and its interval, such as ``1.42 [1.31, 1.50]``; an end that is not known is ``open``."""
    assert value is not None
    prefix = "at least " if "lower bound" in flags else ""
    if low is None:
        return f"{prefix}{value:.{digits}f}"
    end = "open" if high is None else f"{high:.{digits}f}"
    return f"{prefix}{value:.{digits}f} [{low:.{digits}f}, {end}]"
