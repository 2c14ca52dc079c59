"""Which coordinates need tuning again when the regime changes, and which keep one value that is good everywhere.

A coordinate scales when no single value is near-optimal in every regime (arXiv 2509.02046, section 3). A value counts
against a coordinate only where it was run: where one is near-optimal wherever it was run, but was not run everywhere,
the table does not decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuneopt.analysis.best import Result
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.sensitivity import Sensitivity
from tuneopt.analysis.spaces import searched
from tuneopt.analysis.stars import Star
from tuneopt.constants import NEAR_OPTIMAL
from tuneopt.search.axis import is_number
from tuneopt.spec import Value


@dataclass(frozen=True, slots=True)
class CoordinateScaling:
    """One coordinate of an optimizer over the regimes of a corpus.

    ``tuned`` is its value in each regime's result; ``near`` the near-optimal values where a star is known (the tuned
    value alone where none is). ``shared`` are the values near-optimal in every regime. ``scales`` is True when every
    value that was run fails somewhere, False when some value is good everywhere, None when the table cannot say.
    ``threshold`` is the largest difference (nats) that counted as near-optimal.
    """

    optimizer: str
    corpus: str
    coordinate: str
    regimes: int
    tuned: tuple[tuple[RegimeKey, Value], ...]
    near: tuple[tuple[RegimeKey, tuple[Value, ...]], ...]
    shared: tuple[Value, ...]
    scales: bool | None
    threshold: float


def coordinate_scaling(results: Iterable[Result], stars: Sequence[Star]) -> tuple[CoordinateScaling, ...]:
    """Every tuned coordinate of every optimizer that has results in two regimes or more of a corpus."""
    threshold = max((star.threshold for star in stars), default=NEAR_OPTIMAL)
    known = {(star.optimizer, star.regime): {part.coordinate: part for part in star.sensitivities} for star in stars}
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        if result.config:
            groups[result.regime.corpus, result.optimizer].append(result)
    found = []
    for (corpus, optimizer), members in sorted(groups.items()):
        if len(members) < 2:
            continue
        names = [set(searched(optimizer, result.regime.scale, dict(result.config))) for result in members]
        for name in sorted(set.intersection(*names)):
            parts = [known.get((optimizer, result.regime), {}).get(name) for result in members]
            found.append(_one(optimizer, corpus, name, members, parts, threshold))
    return tuple(found)


def _one(
    optimizer: str,
    corpus: str,
    name: str,
    members: Sequence[Result],
    parts: Sequence[Sensitivity | None],
    threshold: float,
) -> CoordinateScaling:
    tuned = [dict(result.config)[name] for result in members]
    near = [(value,) if part is None else part.near_optimal for value, part in zip(tuned, parts, strict=True)]
    run = [
        {value} if part is None else {*part.values, *part.diverged} for value, part in zip(tuned, parts, strict=True)
    ]
    every = dict.fromkeys(value for values in run for value in sorted(values, key=_order))
    shared = [value for value in every if all(value in good for good in near)]
    open_ = [
        value
        for value in every
        if all(value in good or value not in tried for good, tried in zip(near, run, strict=True))
    ]
    regimes = [result.regime for result in members]
    return CoordinateScaling(
        optimizer=optimizer,
        corpus=corpus,
        coordinate=name,
        regimes=len(members),
        tuned=tuple(zip(regimes, tuned, strict=True)),
        near=tuple(zip(regimes, near, strict=True)),
        shared=tuple(sorted(shared, key=_order)),
        scales=False if shared else None if open_ else True,
        threshold=threshold,
    )


def _order(value: Value) -> tuple[bool, float, str]:
    number = is_number(value)
    return not number, float(value) if number else 0.0, str(value)
