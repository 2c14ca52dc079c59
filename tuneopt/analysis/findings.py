"""What a table of many regimes shows as a whole: whether a family leads everywhere, how speedups go with size.

A finding counts what a reader would count in the rankings and speedups, and names what is beyond noise. Nothing is said
where there is nothing to count: a family needs two members and rivals in three regimes, a trend two scales that share a
ratio.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from tuneopt.analysis.names import optimizer_name, scale_name
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.ranking import Ranking
from tuneopt.analysis.runs import Curves
from tuneopt.analysis.spaces import on_ladder
from tuneopt.analysis.speedup import DEFAULTS, IntervalSettings, Speedup, speedups
from tuneopt.analysis.winner import Winner
from tuneopt.optim.info import entry_of
from tuneopt.spec import SCALES

FEWEST_REGIMES = 3
"""Regimes in which a family must have led to be worth a sentence."""

DRAWS = 500
"""Redrawn data sets behind a trend; its ends need not be known as well as those of a speedup that is printed."""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence and what it counts: ``count`` of ``of`` regimes or ratios, for ``optimizers`` at ``scales``.

    ``kind`` is ``family`` (the best places are those of one family), ``trend`` (speedups fall or rise from the first to
    the second scale beyond noise), ``anytime`` (one run that says what shorter ones end with) or ``missing`` (scales of
    a ladder, or optimizers of a regime, without a result).
    """

    kind: str
    sentence: str
    corpus: str
    optimizers: tuple[str, ...]
    scales: tuple[str, ...]
    count: int
    of: int


def findings(
    winners: Sequence[Winner],
    rankings: Sequence[Ranking],
    noise: NoiseModel,
    how: IntervalSettings = DEFAULTS,
    curves: Curves | None = None,
) -> tuple[Finding, ...]:
    """The findings of every corpus, named where there are several; those about curves where curves are given."""
    made: list[Finding] = []
    corpora = dict.fromkeys(ranking.regime.corpus for ranking in rankings)
    for corpus in corpora:
        ranked = [ranking for ranking in rankings if ranking.regime.corpus == corpus]
        own = [winner for winner in winners if winner.regime.corpus == corpus]
        made += [*_families(corpus, ranked), *_trends(corpus, own, ranked, noise, how)]
        made += [*(_anytime(corpus, own, curves) if curves else []), *_missing(corpus, own)]
    if len(corpora) > 1:  # what rises on one text may fall on another
        made = [replace(one, sentence=f"On {one.corpus or 'a corpus without a name'}: {one.sentence}") for one in made]
    return tuple(made)


def _listed(names: Sequence[str]) -> str:
    """Names of optimizers in a sentence."""
    shown = [optimizer_name(name) for name in names]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def number_word(count: int) -> str:
    """A small number as a word."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count}"


def _families(corpus: str, rankings: Sequence[Ranking]) -> Iterable[Finding]:
    """Whether the members of a family take the first places, all of them before everybody else."""
    families: dict[str, list[str]] = defaultdict(list)
    for name in sorted({name for ranking in rankings for name in ranking.order}):
        families[entry_of(name).family or ""].append(name)
    for family, members in families.items():
        shared = [
            ranking
            for ranking in rankings
            if len(here := set(ranking.order) & set(members)) > 1 and len(ranking.order) > len(here)
        ]
        whole = [ranking for ranking in shared if set(members) <= set(ranking.order)]
        with_all = "" if len(whole) in (0, len(shared)) else " that had all of them"
        shared = whole or shared
        first = [one for one in shared if _leads(one, set(members))]
        if not family or len(shared) < FEWEST_REGIMES or 2 * len(first) <= len(shared):
            continue
        sure = sum(_apart(ranking, members) for ranking in first)
        known = sum(ranking.span is not None for ranking in first)
        where = "all" if len(first) == len(shared) else f"{number_word(len(first))} of"
        count = number_word(len(members))
        who = f"{count} {family} optimizers ({_listed(members)})"
        # Where no regime had all of them, they took as many places as were run there.
        lead = f"The {who} take the first {count} places" if whole else (
            f"Of the {who}, those with a result take the first places")  # fmt: skip
        beyond = {0: "in none", len(first): "in all"}.get(sure, f"in {number_word(sure)}")
        gap = f"{beyond} of them with a gap that noise does not explain" if known else "the noise being unknown"
        yield Finding(
            "family",
            f"{lead} in {where} {number_word(len(shared))} regimes{with_all}, {gap}.",
            corpus, tuple(members), tuple(dict.fromkeys(one.regime.scale for one in shared)), len(first), len(shared),
        )  # fmt: skip


def _leads(ranking: Ranking, members: set[str]) -> bool:
    """Whether the members come before everybody else; equal losses stand in the order of their names alone."""
    last = len(set(ranking.order) & members)
    return set(ranking.order[:last]) <= members and ranking.losses[last - 1] < ranking.losses[last]


def _apart(ranking: Ranking, members: Sequence[str]) -> bool:
    """Whether the last of the first places is better than whoever follows by more than the family's span."""
    last = len(set(ranking.order) & set(members))
    return ranking.span is not None and ranking.losses[last] - ranking.losses[last - 1] > ranking.span


def _trends(
    corpus: str, winners: Sequence[Winner], rankings: Sequence[Ranking], noise: NoiseModel, how: IntervalSettings
) -> Iterable[Finding]:
    """How the speedup of the optimizer that leads most often goes from the smallest and the second largest scale on.

    Noise is that between seeds here, for one law at each scale: errors of the law's form and of tuning move both scales
    alike.
    """
    # Who leads where the baseline is beaten: of equals, or of somebody alone, a trend says nothing.
    beaten = [one for one in rankings if len(one.order) > 1 and how.baseline not in one.leaders]
    leading = Counter(name for one in beaten for name in one.leaders)
    sizes = {winner.regime.scale: winner.parameters for winner in winners if winner.parameters}
    scales = sorted(sizes, key=lambda scale: (sizes[scale], scale))
    if not leading or len(scales) < 2:
        return
    # Of equals the one with the lowest losses: the first by alphabet would be a choice that no loss has made.
    places = {name: sum(one.order.index(name) for one in beaten if name in one.order) for name in leading}
    optimizer = min(leading, key=lambda name: (-leading[name], places[name], name))
    wanted = [winner for winner in winners if winner.optimizer in (how.baseline, optimizer)]
    speeds = speedups(wanted, noise, replace(how, draws=min(how.draws, DRAWS), drift=0.0, tuning=0.0))
    by_place = {(one.regime.scale, one.regime.ratio): one for one in speeds if one.optimizer == optimizer}
    pairs = [(scales[0], scales[-1])] + ([(scales[-2], scales[-1])] if len(scales) > 2 else [])
    for small, large in pairs:
        ratios = [ratio for scale, ratio in by_place if scale == small and (large, ratio) in by_place]
        changes = [_change(by_place[small, ratio], by_place[large, ratio]) for ratio in ratios]
        # Each ratio is a chance to be fooled: one of them at least must be beyond what all together explain.
        wider = _normal((1 + how.level) / 2, len(ratios)) / _normal((1 + how.level) / 2)
        beyond = {_change(by_place[small, ratio], by_place[large, ratio], wider) for ratio in ratios}
        changes = [change if change in (None, *beyond) else 0 for change in changes]
        if changes and None not in changes:
            ways = (
                (("falls", -1), ("rises", 1))
                if changes.count(-1) >= changes.count(1)
                else (("rises", 1), ("falls", -1))
            )
            (word, sign), (other, less) = ways
            count, rest, of = changes.count(sign), changes.count(less), len(ratios)
            where = "every ratio" if count == of else f"{number_word(count)} of {number_word(of)} ratios"
            where = f" at {ratios[0]:g}x" if of == 1 else f" at {where}"
            where += f" and {other} at {number_word(rest)} of them" if rest else ""
            moves = f"{word} from" if count else "does not change from"
            sentence = (
                f"The speedup of {optimizer_name(optimizer)} {moves} {scale_name(small)} to {scale_name(large)}"
                f"{where if count else ''} by more than the noise between seeds."
            )
            yield Finding("trend", sentence, corpus, (optimizer,), (small, large), count, of)


def _normal(quantile: float, family: int = 1) -> float:
    """A quantile of the normal distribution for each of a ``family`` of tests, whose errors add up to those of one."""
    return NormalDist().inv_cdf(1 - (1 - quantile) / max(family, 1))


def _change(first: Speedup, second: Speedup, wider: float = 1.0) -> int | None:
    """-1 where the speedup falls by more than both intervals explain, 1 where it rises so, else 0; None if unknown.

    The intervals are taken ``wider`` times as wide as they are printed.
    """
    if None in (first.low, first.high, second.low, second.high) or "lower bound" in first.flags + second.flags:
        return None
    halves = [math.log(one.high / one.low) / 2 for one in (first, second) if one.high and one.low]
    change = math.log(second.speedup / first.speedup)
    return 0 if abs(change) <= wider * math.hypot(*halves) else 1 if change > 0 else -1


def _anytime(corpus: str, winners: Sequence[Winner], curves: Curves) -> Iterable[Finding]:
    """What the longest run of an optimizer without a schedule had reached on the way, beside runs that end there.

    Its weights do not wait for a learning rate to fall, so that one run stands for every ratio below its own. A curve
    is measured on a part of the split, which lies above or below the whole by about what it does at the end.
    """
    longest: dict[tuple[str, str], Winner] = {}
    for winner in sorted(winners, key=lambda one: one.regime.ratio):
        if entry_of(winner.optimizer).anytime:
            longest[winner.optimizer, winner.regime.scale] = winner
    for (optimizer, scale), winner in longest.items():
        whole = winner.regime.ratio
        ended = {one.regime.ratio: one.loss for one in winners
                 if (one.optimizer, one.regime.scale) == (optimizer, scale) and one.regime.ratio < whole}  # fmt: skip
        ratios = sorted(ended) or [whole / 4, whole / 2]
        measured = curves.at(winner.trials, [*(ratio / whole for ratio in ratios), 1.0], "report_loss").mean(axis=0)
        seen = measured[:-1] + winner.loss - measured[-1]
        told = [(ratio, float(loss)) for ratio, loss in zip(ratios, seen, strict=True) if math.isfinite(loss)]
        if not told:
            continue
        on_the_way = ", ".join(
            f"{loss:.2f} at {ratio:g}x" + (f" (a run of that length: {ended[ratio]:.2f})" if ratio in ended else "")
            for ratio, loss in told
        )
        yield Finding(
            "anytime",
            f"{optimizer_name(optimizer)} has no schedule but its warmup, so one run gives every ratio below its own. "
            f"At {scale_name(scale)} that of {whole:g}x passes {on_the_way} nats.",
            corpus, (optimizer,), (scale,), len(told), len(ratios),
        )  # fmt: skip


def _missing(corpus: str, winners: Sequence[Winner]) -> Iterable[Finding]:
    """Scales of a ladder without any result, and optimizers without one in some of the regimes."""
    there = {one.regime.scale: scale for one in winners if (scale := on_ladder(one.regime.scale, one.parameters))}
    ladders = {scale.ladder for scale in there.values()}
    for ladder in sorted(ladders):
        known = [scale.name for scale in SCALES.values() if scale.ladder == ladder]
        inside = [name for name in known if name in there]
        beyond = [name for name in known if name not in there]
        if len(inside) > 1 and beyond:
            names = " or ".join(map(scale_name, beyond))
            sentence = f"There is no result at {names}, so nothing here says how it goes on there."
            yield Finding("missing", sentence, corpus, (), tuple(beyond), len(inside), len(known))
    regimes: dict[str, set[tuple[str, float]]] = defaultdict(set)
    for winner in winners:
        regimes[winner.optimizer].add(winner.regime[1:])
    every = set().union(*regimes.values()) if regimes else set()
    short = {name: len(own) for name, own in regimes.items() if len(own) < len(every)}
    if (
        any(count > 1 for count in short.values())
        and len(short) < len(regimes)
        and max(map(len, regimes.values())) == len(every)
    ):
        groups = sorted({*short.values()}, reverse=True)
        words = "; ".join(
            f"{_listed([name for name in sorted(short) if short[name] == count])} in {number_word(count)}"
            for count in groups
        )
        yield Finding(
            "missing", f"Not every optimizer has a result in all {number_word(len(every))} regimes: {words}.",
            corpus, tuple(sorted(short)), (), len(short), len(regimes),
        )  # fmt: skip
