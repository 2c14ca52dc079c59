"""The speedup that a badly tuned baseline would have manufactured.

An optimizer compared with an under-tuned AdamW seems faster by the factor by which the tuned AdamW itself would seem
faster: D / D_eff(loss of the under-tuned run), on the tuned baseline's law (arXiv 2509.02046, section 1: only the
learning rate of GPT-3's recipe, 6e-4, tuned or not, is worth up to a factor of two).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tuneopt.analysis.best import Result
from tuneopt.analysis.lookup import Config, Found, Lookup
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.speedup import BASELINE, DRAWS, LEVEL, BaselineLaw, over_law
from tuneopt.spec import TrialSpec, Value

GPT3_RATE = 6e-4
"""The peak learning rate that many comparisons took over (Brown et al., arXiv 2005.14165, its 125M model)."""

RATE = "learning_rate"


@dataclass(frozen=True, slots=True)
class Undertuned:
    """The tuned baseline against itself, badly tuned.

    ``kind`` is ``learning rate`` (everything else as tuned) or ``other ratio`` (the configuration tuned at another
    ratio of the same scale); ``what`` says which; ``gpt3`` marks the learning rate 6e-4. ``status``, ``trial``,
    ``loss`` and ``regret`` are as in `Transfer`; ``config`` fills the row where it is ``missing``. ``manufactured`` is
    the speedup that the tuned baseline itself shows over this run, with its interval.
    """

    regime: RegimeKey
    kind: str
    what: str
    gpt3: bool
    config: Config
    status: str
    trial: str | None
    loss: float | None
    regret: float | None
    manufactured: float | None
    low: float | None
    high: float | None


def undertuned(
    results: Sequence[Result],
    runs: Sequence[Run],
    laws: Iterable[BaselineLaw],
    noise: NoiseModel,
    *,
    baseline: str = BASELINE,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[Undertuned, ...]:
    """For each regime of the baseline: GPT-3's learning rate, every other learning rate that was run, other ratios."""
    tuned = [result for result in results if result.optimizer == baseline and result.config]
    lookup = Lookup(run for run in runs if run.optimizer == baseline)
    known = {(law.corpus, law.scale): law for law in laws}
    found: list[Undertuned] = []
    for result in tuned:
        rows = [*_rates(result, runs, lookup), *_ratios(result, tuned, lookup)]
        measured = [row for row in rows if row.regret is not None and row.status == "trial"]
        law = known.get(result.regime[:2])
        if law is not None and measured:
            rivals = [replace(result, loss=result.loss + (row.regret or 0.0), trials=()) for row in measured]
            speeds = over_law(law, rivals, noise, level=level, draws=draws, seed=seed)
            inverse = {id(row): speed for row, speed in zip(measured, speeds, strict=True)}
            rows = [_manufactured(row, inverse[id(row)].inverted) if id(row) in inverse else row for row in rows]
        found += rows
    return tuple(found)


def _manufactured(row: Undertuned, inverted: tuple[float | None, float | None, float | None]) -> Undertuned:
    value, low, high = inverted
    return replace(row, manufactured=value, low=low, high=high)


def _rates(result: Result, runs: Iterable[Run], lookup: Lookup) -> list[Undertuned]:
    own = dict(result.config)
    if RATE not in own:
        return []
    rest = {name: value for name, value in own.items() if name != RATE}
    tried: dict[Value, None] = {GPT3_RATE: None}
    for run in runs:
        if (run.optimizer, run.regime) == (result.optimizer, result.regime):
            theirs = dict(run.config)
            if RATE in theirs and {name: value for name, value in theirs.items() if name != RATE} == rest:
                tried[theirs[RATE]] = None
    rows = []
    for rate in sorted(tried, key=lambda value: (value != GPT3_RATE, float(value))):
        if rate == own[RATE] and rate != GPT3_RATE:
            continue
        config = TrialSpec.freeze({**own, RATE: rate})
        gpt3 = rate == GPT3_RATE
        rows.append(_row(result, "learning rate", f"{RATE} = {rate:g}", config, lookup.find(result, config), gpt3))
    return rows


def _ratios(result: Result, tuned: Iterable[Result], lookup: Lookup) -> list[Undertuned]:
    rows = []
    for other in tuned:
        if other.regime[:2] == result.regime[:2] and other is not result:
            what = f"tuned at {other.regime.ratio:g}x"
            rows.append(_row(result, "other ratio", what, other.config, lookup.find(result, other.config)))
    return rows


def _row(result: Result, kind: str, what: str, config: Config, found: Found, gpt3: bool = False) -> Undertuned:
    same = 1.0 if found.status == "same" else None
    return Undertuned(
        regime=result.regime,
        kind=kind,
        what=what,
        gpt3=gpt3,
        config=config,
        status=found.status,
        trial=found.trial,
        loss=found.loss,
        regret=found.regret,
        manufactured=same,
        low=same,
        high=same,
    )
