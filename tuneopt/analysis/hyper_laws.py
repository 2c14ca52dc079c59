"""How tuned hyperparameters move with model size and ratio: h = A N^B ratio^C + E, with intervals of B and C.

The law is that of `tuneopt.search.prediction`, through the tuned values of every regime (with their stars, where trials
exist); its exponents are shrunk a little to 0. The intervals are those of the plain regression of log(h - E), by
Student's t: tuned values lie on a grid, so the scatter is mostly the grid's, and a coordinate whose intervals hold 0 is
not shown to move.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.sensitivity import Star
from tuneopt.analysis.spaces import axes
from tuneopt.analysis.speedup import LEVEL
from tuneopt.analysis.winner import Winner
from tuneopt.search.axis import Axis, is_number
from tuneopt.search.prediction import FEWEST, UNIT, PowerLaw, TunedRegime, predict
from tuneopt.spec import SCALES, Value


@dataclass(frozen=True, slots=True)
class HyperLaw:
    """One coordinate of one optimizer over the regimes of a corpus and ladder.

    ``method`` is ``law``, or what stands for it: ``constant`` (one value is near-optimal everywhere), ``median``,
    ``majority`` or ``start``. ``a``, ``b``, ``c`` and ``e`` are the law's, N in units of 1e8 parameters; with
    ``complement`` it is the law of 1 - value. ``support`` is the share of the spread of log h that it explains, or of
    the regimes that agree. ``points`` gives each regime's tuned value and what the law says there.
    """

    optimizer: str
    corpus: str
    coordinate: str
    regimes: int
    method: str
    support: float
    a: float | None
    b: float | None
    b_low: float | None
    b_high: float | None
    c: float | None
    c_low: float | None
    c_high: float | None
    e: float | None
    complement: bool
    points: tuple[tuple[RegimeKey, Value, float | None], ...]


def hyper_laws(winners: Iterable[Winner], stars: Iterable[Star], level: float = LEVEL) -> tuple[HyperLaw, ...]:
    """The law of every numeric coordinate of every declared space whose optimizer has four regimes or more."""
    groups: dict[tuple[str, str, str], list[Winner]] = defaultdict(list)
    for winner in winners:
        scale = SCALES.get(winner.regime.scale)
        if scale is not None and winner.parameters and winner.config:
            groups[winner.optimizer, winner.regime.corpus, scale.ladder].append(winner)
    around = {(star.optimizer, star.regime): star for star in stars}
    laws = []
    # Figures need a number in every regime: a coordinate that some table leaves out is not fitted from the rest.
    # One ladder at a time: values of the nano ladder (batch sizes in few sequences) are on no line with the paper's.
    for (optimizer, corpus, _), members in sorted(groups.items()):
        known = axes(optimizer, members[0].regime.scale) or {}
        tuned = [_tuned(winner, around.get((optimizer, winner.regime))) for winner in members]
        for axis in known.values() if len(members) >= FEWEST else ():
            there = all(is_number(regime.config.get(axis.name)) for regime in tuned)
            if axis.numeric and not axis.pinned and there:
                laws.append(_law(optimizer, corpus, axis, members, tuned, level))
    return tuple(laws)


def _tuned(winner: Winner, star: Star | None) -> TunedRegime:
    """A winner as the law's fit takes it: with the losses (nats above it) of its star, where one is known."""
    near: dict[str, dict[Value, float]] = {}
    if star is not None and star.config == winner.config:
        for part in star.sensitivities:
            near[part.coordinate] = {
                value: loss - star.loss for value, loss in zip(part.values, part.losses, strict=True)
            }
    return TunedRegime(float(winner.parameters or 0), winner.regime.ratio, dict(winner.config), near)


def _law(
    optimizer: str, corpus: str, axis: Axis, members: Sequence[Winner], tuned: Sequence[TunedRegime], level: float
) -> HyperLaw:
    # The law is fitted for a prediction; at the largest regime none of its values are extrapolated.
    largest = max(tuned, key=lambda regime: (regime.params, regime.ratio))
    predicted = predict(axis, tuned, largest.params, largest.ratio, resamples=1)
    law = predicted.law
    (b_low, b_high), (c_low, c_high) = (_UNKNOWN, _UNKNOWN) if law is None else _ends(axis, tuned, law, level)
    return HyperLaw(
        optimizer=optimizer,
        corpus=corpus,
        coordinate=axis.name,
        regimes=len(members),
        method=predicted.method,
        support=predicted.support,
        a=None if law is None else law.a,
        b=None if law is None else law.b,
        b_low=b_low,
        b_high=b_high,
        c=None if law is None else law.c,
        c_low=c_low,
        c_high=c_high,
        e=None if law is None else law.e,
        complement=law is not None and law.complement,
        points=tuple(
            (winner.regime, regime.config[axis.name], None if law is None else law.at(regime.params, regime.ratio))
            for winner, regime in zip(members, tuned, strict=True)
        ),
    )


_Ends = tuple[float | None, float | None]  # of an interval: low, high
_UNKNOWN: _Ends = (None, None)


def _ends(axis: Axis, tuned: Sequence[TunedRegime], law: PowerLaw, level: float) -> tuple[_Ends, _Ends]:
    """The intervals of B and C by plain regression; None where regimes do not vary in size or ratio, or are too few.

    Columns: a constant, log N and log ratio, the last two only where they vary. Degrees of freedom: regimes less
    columns. The floor E is taken as given, so the intervals are a little too narrow where it is not 0.
    """
    kept = [regime for regime in tuned if regime.config[axis.name] != axis.off]  # off has no logarithm
    values = np.array([float(regime.config[axis.name]) for regime in kept])
    sizes = np.log(np.array([regime.params for regime in kept]) / UNIT)
    ratios = np.log(np.array([regime.ratio for regime in kept]))
    h = (1 - values if law.complement else values) - law.e
    # (regimes,) each. A column that does not vary cannot be told from the constant, and would make the matrix singular.
    varied = [column for column in (sizes, ratios) if np.ptp(column) > 0]
    freedom = len(kept) - 1 - len(varied)
    if freedom < 1 or not varied or np.any(h <= 0):
        return _UNKNOWN, _UNKNOWN
    design = np.stack([np.ones_like(h), *varied], axis=1)  # (regimes, 1 + varied)
    slopes, *_ = np.linalg.lstsq(design, np.log(h), rcond=None)
    residuals = np.log(h) - design @ slopes
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * float(residuals @ residuals) / freedom)
    # Half the width of each two-sided interval: the quantile of t times the standard error.
    halves = float(stdtrit(freedom, (1 + level) / 2)) * errors
    ends = zip((slopes - halves)[1:].tolist(), (slopes + halves)[1:].tolist(), strict=True)
    ends_b, ends_c = (next(ends) if np.ptp(column) > 0 else _UNKNOWN for column in (sizes, ratios))
    return ends_b, ends_c
