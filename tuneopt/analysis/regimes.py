"""Which runs of a table are in one regime, and alike: nearly equal budgets are one, and its ratio has a short name.

A measured number of tokens is a whole number of batches, so one budget comes in as many counts as there are batch
sizes; and a ratio worked out from tokens has digits that mean nothing. Both are settled once for a table, from all of
its rows.

Two tolerances, because they risk different things. Within a scale losses are compared with each other, and half a
percent of tokens is worth less than a thousandth of a nat. Between scales ratios only say which regimes belong to one
line, so near ones share a name where they differ by less than its two digits.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import TypeVar

from tuneopt.analysis import cells
from tuneopt.analysis.runs import COMPLEMENTS, RegimeKey, TrainingRun
from tuneopt.spec import InputError, Value

Key = TypeVar("Key")

ONE_BUDGET = 0.005
"""Relative difference up to which two token counts of a scale are one budget. Near 1x a doubling of tokens is worth
about 0.1 nats at 124M, so this much is worth 0.0007, less than the spread between seeds there."""

ONE_RATIO = 0.04
"""Relative difference up to which ratios of different scales share a name of two digits."""

ONE_LINE = 0.25
"""Relative difference up to which ratios of different scales are "about" the same, for an order over scales."""

FEWEST_DIGITS = 3
"""Digits of a value that may be another one rounded: two neighbours of a grid share fewer."""

CONTRADICTION = 1.5
"""Factor between tokens and 20 N ratio beyond which a row contradicts itself. Papers count parameters with or without
embeddings, which is up to 1.46 at the shape of GPT-2."""


def near(
    values: Iterable[tuple[Key, float]], tolerance: float, apart: Callable[[Key], Hashable]
) -> list[list[tuple[Key, float]]]:
    """Groups of ``values`` that span no more than ``tolerance`` (relative), smallest first.

    No two of a group have the same ``apart``. The nearest neighbours are joined first, so that of two candidates the
    closer one is taken.
    """
    ordered = sorted(values, key=lambda item: item[1])
    widest = math.log1p(tolerance) * (1 + 1e-9)
    groups = [[item] for item in ordered]  # of the place where a group starts; joined groups are neighbours
    kinds = [{apart(key)} for key, _ in ordered]
    start = list(range(len(ordered)))  # of a group, for its last place
    gaps = sorted((math.log(after[1] / before[1]), place) for place, (before, after) in enumerate(pairwise(ordered)))
    for gap, place in gaps:
        if gap > widest:
            break
        left, right = start[place], place + 1
        if math.log(groups[right][-1][1] / groups[left][0][1]) <= widest and not kinds[left] & kinds[right]:
            groups[left] += groups[right]
            kinds[left] |= kinds[right]
            start[left + len(groups[left]) - 1] = left
            groups[right] = []
    return [group for group in groups if group]


def one_spelling(runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """The runs with one name for each corpus and scale: the first of ``GPT-2`` and ``gpt2``, of ``1.3B`` and ``1300M``.

    Taken for two regimes, no optimizer in one would ever be compared with those in the other.
    """
    corpora = cells.one_spelling((run.regime.corpus for run in runs), ())
    sizes = {size for run in runs if (size := cells.size_of(run.regime.scale, None))}
    # Counts with and without biases, say: 124.4m and 124.5m are one model.
    same = {size: group[0][1] for group in near(((one, one) for one in sizes), ONE_BUDGET, float) for size, _ in group}
    scales: dict[object, str] = {}
    spelled = []
    for run in runs:
        corpus, scale, ratio = run.regime
        size = cells.size_of(scale, None)
        name = scales.setdefault(same[size] if size else cells.folded(scale) or scale, scale)
        kept = (corpora[corpus], name) == (corpus, scale)
        spelled.append(run if kept else replace(run, regime=RegimeKey(corpora[corpus], name, ratio)))
    return spelled


def one_value(runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """The runs with one value for a hyperparameter that some rows round: 0.003906 is what others call 0.00391.

    Taken for two values, each would seem to have been left out where only the other was run. A value is a rounded one
    where it has three significant digits or more, and one with more digits rounds to it. Rates whose distance from 1
    counts are left alone. Words have one spelling too: ``Cosine`` is ``cosine``.
    """
    values: dict[str, set[float]] = defaultdict(set)
    words: dict[str, dict[str, None]] = defaultdict(dict)  # in the order of the rows: the first spelling stands
    for run in runs:
        for name, value in run.config:
            if isinstance(value, float) and name not in COMPLEMENTS:
                values[name].add(value)
            elif isinstance(value, str):
                words[name][value] = None
    exact: dict[tuple[str, Value], Value] = {
        (name, word): first
        for name, known in words.items()
        for word, first in cells.one_spelling(known, ()).items()
        if word != first
    }
    for name, numbers in values.items():
        digits = {value: _digits(value) for value in numbers}
        rounded = {(count, float(f"{value:.{count - 1}e}")): value for value in sorted(numbers, key=digits.__getitem__)
                   for count in range(FEWEST_DIGITS, digits[value])}  # fmt: skip
        exact |= {(name, value): rounded[count, value] for value, count in digits.items() if (count, value) in rounded}
    if not exact:
        return list(runs)
    return [
        replace(run, config=tuple((name, exact.get((name, value), value)) for name, value in run.config))
        for run in runs
    ]


def _digits(value: float) -> int:
    """The significant digits that a number is written with."""
    return len(f"{Decimal(repr(value)).normalize():e}".partition("e")[0].strip("-").replace(".", ""))


def settled(runs: Sequence[TrainingRun], stated: Sequence[float | None]) -> list[TrainingRun]:
    """``runs`` with regimes that hold one budget each.

    ``stated`` is the ratio that each run's row gave, None where it follows from tokens. A stated ratio is a name: it
    stays as it is, and rows of one scale and ratio must have one budget (`InputError` otherwise).
    """
    _refuse_two_sizes(runs)
    _refuse_two_budgets(runs, stated)
    counts: dict[tuple[str, str], dict[float, list[int]]] = defaultdict(lambda: defaultdict(list))
    taken: dict[str, set[float]] = defaultdict(set)  # stated ratios by corpus
    for place, (run, ratio) in enumerate(zip(runs, stated, strict=True)):
        if ratio is None:
            counts[run.regime[:2]][run.tokens].append(place)
        else:
            taken[run.regime.corpus].add(ratio)
    budgets: dict[str, list[tuple[tuple[str, tuple[int, ...]], float]]] = defaultdict(list)
    for (corpus, scale), here in counts.items():
        for group in near(((tokens, tokens) for tokens in here), ONE_BUDGET, lambda tokens: tokens):
            places = tuple(place for tokens, _ in group for place in here[tokens])
            budgets[corpus].append(((scale, places), median(runs[place].regime.ratio for place in places)))
    ratios = [run.regime.ratio for run in runs]
    for corpus, known in budgets.items():
        lines = near(known, ONE_RATIO, lambda key: key[0])
        names = short([[ratio for _, ratio in line] for line in lines], taken[corpus])
        for line, name in zip(lines, names, strict=True):
            for (_, places), _ in line:
                for place in places:
                    ratios[place] = name
    return [
        run if run.regime.ratio == ratio else replace(run, regime=run.regime._replace(ratio=ratio))
        for run, ratio in zip(runs, ratios, strict=True)
    ]


def short(groups: Sequence[Sequence[float]], taken: Iterable[float] = ()) -> list[float]:
    """A ratio with few digits for each group of ratios: two (three from 1 on), or as many as tell the groups apart.

    A ratio that was planned with more digits, such as 0.125, keeps them. A stated ratio (``taken``) that these digits
    would give is the same one.
    """
    stated = {float(f"{ratio:.{2 if ratio < 1 else 3}g}"): ratio for ratio in taken}
    middles = [median(group) for group in groups]
    digits = [2 if middle < 1 else 3 for middle in middles]
    names: list[float] = []
    while True:
        names = []
        for group, middle, count in zip(groups, middles, digits, strict=True):
            exact = float(f"{middle:.3g}")
            planned = max(group) - min(group) < 1e-7 * middle and abs(middle - exact) < 1e-7 * middle
            name = exact if planned else float(f"{middle:.{count}g}")
            names.append(stated.get(name, name))
        shared = {name for name, count in Counter(names).items() if count > 1}
        if not shared or max(digits) > 6:
            return names
        digits = [count + (name in shared) for name, count in zip(names, digits, strict=True)]


def _refuse_two_sizes(runs: Sequence[TrainingRun]) -> None:
    """Raise `InputError` for two rows of one scale whose models are not of one size, however parameters are counted.

    A name such as ``llama`` is one of a family: losses of its sizes would be compared with each other.
    """
    ends: dict[tuple[str, str], tuple[tuple[int, int], tuple[int, int]]] = {}  # the smallest and largest, with rows
    for row, run in enumerate(runs, start=1):
        if run.parameters is not None:
            here = (run.parameters, row)
            least, most = ends.get(run.regime[:2], (here, here))
            ends[run.regime[:2]] = min(least, here), max(most, here)
    for (_, scale), ((small, one), (large, other)) in ends.items():
        if large > CONTRADICTION * small:
            (one, first), (other, second) = sorted([(one, small), (other, large)])
            raise InputError(
                f"rows {one} and {other} of the results are both at {scale}, with {first:,} and {second:,} parameters; "
                "correct one, or give the scales two names; without that column rows go by their parameters"
            )


def _refuse_two_budgets(runs: Sequence[TrainingRun], stated: Sequence[float | None]) -> None:
    """Raise `InputError` for two rows of one scale and stated ratio whose tokens are not the same budget."""
    first: dict[RegimeKey, tuple[int, TrainingRun]] = {}
    for number, (run, ratio) in enumerate(zip(runs, stated, strict=True), start=1):
        if ratio is not None:
            row, other = first.setdefault(run.regime, (number, run))
            if abs(math.log(run.tokens / other.tokens)) > math.log1p(ONE_RATIO):
                both = f"rows {row} and {number} of the results are both at {run.regime.label}, with"
                if None not in (run.parameters, other.parameters) and run.parameters != other.parameters:
                    raise InputError(
                        f"{both} {other.parameters:,} and {run.parameters:,} parameters; correct one, or give the "
                        "scales two names"
                    )
                raise InputError(
                    f"{both} {other.tokens:.4g} and {run.tokens:.4g} tokens; correct one, or drop the column ratio to "
                    "go by tokens"
                )
