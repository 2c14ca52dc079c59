"""Hyperparameters for a regime that nobody tuned, from regimes that somebody did (arXiv 2509.02046, Phase III).

Each coordinate is predicted on its own and snapped to its grid, continued geometrically within its bounds. How:

- ``constant``: every regime has one value in its near-optimal set; that value.
- ``law``: `PowerLaw` through at least four regimes, and an interval from a residual bootstrap.
- ``median``: fewer than four regimes; their middle value, and the interval is their range.
- ``majority``: words and switches, and a value that is off in half of the regimes or more.
- ``start``: no regime tells; the start of the space.

A published optimum often beats its neighbours by less than noise. Where a regime brings the star around its winner,
the winner is replaced by the weighted mean of the values near it, a value that lies d above it counting exp(-d/0.003),
and a regime whose near-optimal values spread widely counts less in the fit.

The law is h = A N^B ratio^C + E, fitted in the logarithm of h (same source). Tuned values lie on a grid and many of
them tie within noise, so four free parameters through a dozen points would follow the grid. Two shrinkages keep the law
from it: the exponents carry a weak prior around 0, and an offset E is taken only where it explains the points clearly
better.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tuneopt.constants import NEAR_OPTIMAL, TOLERANCE
from tuneopt.search.axis import Axis
from tuneopt.search.descent import Descent
from tuneopt.search.space import Config, LadderSpace, SearchSpace
from tuneopt.spec import SCALES, InputError, TrialSpec, Value

FEWEST = 4
"""Regimes from which a law is fitted; it has four parameters."""

SOFTNESS = TOLERANCE
"""Nats over which the weight of a near-optimal value falls by e."""

LEVEL = 0.90
"""Coverage of an interval."""

Floats = npt.NDArray[np.float64]

UNIT = 1e8
"""Parameters that count as one N in a law, so that A is a hyperparameter of a common model."""

PRIOR_EXPONENT = 0.5
"""Standard deviation of the prior on B and C; published exponents of learning rates and batches lie within 1."""

OFFSETS = (0.0, 0.25, 0.5, 0.75, 0.9)
"""The offsets tried, as shares of the smallest tuned value."""

_CLEARLY = math.exp(-2 * 2.0 / 12)
"""How far the residual sum must fall before an offset is believed: Akaike's price of a parameter at twelve points."""


@dataclass(frozen=True, slots=True)
class TunedRegime:
    """What tuning found in one regime: non-embedding parameters, ratio, and the winner's complete configuration.

    ``near`` tells, where a star is at hand, how many nats each value of a coordinate lies above the winner.
    """

    params: float
    ratio: float
    config: Mapping[str, Value]
    near: Mapping[str, Mapping[Value, float]] = field(default_factory=dict)

    def near_optimal(self, name: str) -> dict[Value, float]:
        """The near-optimal values of one coordinate, each with its nats above the winner; the winner's own always."""
        found = {value: max(0.0, above) for value, above in self.near.get(name, {}).items() if above <= NEAR_OPTIMAL}
        return found | {self.config[name]: 0.0}


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """h = A N^B ratio^C + E with N in units of `UNIT` parameters; A and E in the unit of h.

    ``complement`` says that h is 1 - value, the averaging rate of a decay such as beta1.
    """

    a: float
    b: float
    c: float
    e: float
    complement: bool = False

    def at(self, params: float, ratio: float) -> float:
        """The value of the coordinate at ``params`` parameters and ``ratio``."""
        h = self.a * (params / UNIT) ** self.b * ratio**self.c + self.e
        return float(1 - h if self.complement else h)

    def log_h(self, params: float, ratio: float) -> float:
        """Log h, where h is the value, or 1 - value of a decay: the scale on which a law is fitted and snapped."""
        value = self.at(params, ratio)
        return math.log(1 - value if self.complement else value)


@dataclass(frozen=True, slots=True)
class Prediction:
    """One coordinate in one regime, with the 90% interval; all three lie on the continued grid.

    ``support``: of a law, the share of the spread of log h that it explains; otherwise the share of regimes that
    agree with ``value``.
    """

    coordinate: str
    value: Value
    low: Value
    high: Value
    method: str
    support: float
    law: PowerLaw | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """A whole configuration for a regime.

    ``extrapolation`` is the factor by which ``params`` and ``ratio`` lie beyond the tuned range, 1 inside it.
    """

    params: float
    ratio: float
    coordinates: Mapping[str, Prediction]
    config: Config
    extrapolation: Mapping[str, float]
    regimes: int

    def to_dict(self) -> dict[str, Any]:
        """What ``tuneopt predict --json`` prints."""
        return {
            "params": self.params,
            "ratio": self.ratio,
            "config": {
                name: {
                    "value": each.value,
                    "low": each.low,
                    "high": each.high,
                    "method": each.method,
                    "support": round(each.support, 4),
                    "law": None if each.law is None else asdict(each.law),
                }
                for name, each in self.coordinates.items()
            },
            "fixed": {name: value for name, value in self.config if name not in self.coordinates},
            "extrapolation": dict(self.extrapolation),
            "regimes": self.regimes,
        }


def predict(
    axis: Axis, regimes: Sequence[TunedRegime], params: float, ratio: float, *, resamples: int = 200, seed: int = 0
) -> Prediction:
    """One coordinate at ``params`` parameters and ``ratio``; deterministic in ``seed``.

    Raises `InputError` for no regime at all, and for a size or ratio that is not positive.
    """
    _check(regimes, params, ratio)
    known = [regime for regime in regimes if axis.name in regime.config]
    if not known or axis.pinned:
        return Prediction(axis.name, axis.start, axis.start, axis.start, "constant" if axis.pinned else "start", 0.0)
    # From what rests on least to what rests on most: one value that is near-optimal everywhere needs no law. Values off
    # the logarithmic scale (off, words) have none. Fewer regimes than a law has parameters give their median.
    near = [regime.near_optimal(axis.name) for regime in known]
    winners = [regime.config[axis.name] for regime in known]
    shared = set.intersection(*(set(values) for values in near))
    if shared:
        value = min(shared, key=lambda each: (sum(values[each] for values in near), -winners.count(each), str(each)))
        return Prediction(axis.name, value, value, value, "constant", winners.count(value) / len(winners))
    tuned = [regime for regime, value in zip(known, winners, strict=True) if axis.numeric and _has_log(axis, value)]
    if 2 * len(tuned) <= len(winners):  # mostly off: a law through the few others would be about another question
        return _majority(axis, known, params, ratio)
    if len({(regime.params, regime.ratio) for regime in tuned}) < FEWEST:  # several results of one regime are one point
        values = sorted((regime.config[axis.name] for regime in tuned), key=float)
        value = values[(len(values) - 1) // 2]  # the lower middle: a value that was tuned, and no mean of two
        return Prediction(axis.name, value, values[0], values[-1], "median", values.count(value) / len(winners))
    return _by_law(axis, tuned, params, ratio, resamples, seed)


def forecast(
    space: LadderSpace,
    regimes: Sequence[TunedRegime],
    params: float,
    ratio: float,
    *,
    only: Collection[str] | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Forecast:
    """Every coordinate of ``space`` at ``params`` parameters and ``ratio``.

    ``only`` names the scaling-sensitive coordinates; the others take the value of most regimes. Raises `InputError`
    as `predict` does.
    """
    _check(regimes, params, ratio)
    found: dict[str, Prediction] = {}
    for axis in space.axes:
        known = [regime for regime in regimes if axis.name in regime.config]
        if only is not None and axis.name not in only and known and not axis.pinned:
            found[axis.name] = _majority(axis, known, params, ratio)
        else:
            found[axis.name] = predict(axis, regimes, params, ratio, resamples=resamples, seed=seed)
    values = {name: each.value for name, each in found.items()}
    return Forecast(
        params=params,
        ratio=ratio,
        coordinates=found,
        config=TrialSpec.freeze(dict(space.fixed) | values),
        extrapolation={
            "params": _beyond(params, [regime.params for regime in regimes]),
            "ratio": _beyond(ratio, [regime.ratio for regime in regimes]),
        },
        regimes=len(regimes),
    )


def published_regimes(space: SearchSpace) -> tuple[TunedRegime, ...]:
    """The published tuned points of a search space."""
    return tuple(TunedRegime(SCALES[each.scale].parameters, each.ratio, each.config) for each in space.published)


def star_regime(params: float, ratio: float, descent: Descent) -> TunedRegime:
    """The winner of a finished descent, with how far the values of its star lie above it.

    Raises `InputError` when the descent has no finished incumbent.
    """
    if descent.incumbent_loss is None:
        raise InputError("a sweep without a finished trial predicts nothing; leave it out")
    near: dict[str, dict[Value, float]] = {}
    for change in descent.star:
        if change.loss is not None:
            near.setdefault(change.coordinate, {})[change.value] = change.loss - descent.incumbent_loss
    return TunedRegime(params, ratio, dict(descent.incumbent), near)


def _check(regimes: Sequence[TunedRegime], params: float, ratio: float) -> None:
    if not regimes:
        raise InputError("a prediction needs at least one tuned regime; tune one first, or name a published optimizer")
    for name, value, example in (("params", params, "1.2e9"), ("ratio", ratio, "8")):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number, not {value:g}; try {example}")


def _beyond(value: float, tuned: Sequence[float]) -> float:
    low, high = min(tuned), max(tuned)
    return value / high if value > high else low / value if value < low else 1.0


def _majority(axis: Axis, regimes: Sequence[TunedRegime], params: float, ratio: float) -> Prediction:
    """The commonest value; of equally common ones, that of the regime nearest to the wanted one."""
    counts = Counter(regime.config[axis.name] for regime in regimes)

    def far(value: Value) -> float:
        # In log, because sizes and ratios are factors; over the regimes that were tuned to the value.
        return min(
            abs(math.log(each.params / params)) + abs(math.log(each.ratio / ratio))
            for each in regimes
            if each.config[axis.name] == value
        )

    value = min(counts, key=lambda each: (-counts[each], far(each), str(each)))
    return Prediction(axis.name, value, value, value, "majority", counts[value] / len(regimes))


def _by_law(
    axis: Axis, regimes: Sequence[TunedRegime], params: float, ratio: float, resamples: int, seed: int
) -> Prediction:
    """A power law through the regimes, snapped to the grid, with the 90% interval of a new tuned value.

    The interval is a residual bootstrap: residuals are widened for the parameters that the fit spent, drawn with
    replacement on top of the fitted curve and fitted again; one more residual stands for how far a tuned value itself
    scatters.
    """
    complement = axis.extend == "complement"
    # What a prediction may be: the grid and its continuations at both ends, and the tuned values; off is left out.
    values = dict.fromkeys((*axis.below, *axis.values, *axis.above, *(regime.config[axis.name] for regime in regimes)))
    lattice = sorted((value for value in values if _has_log(axis, value)), key=float)
    scale = _logs(lattice, complement)
    # The usual step of the grid on the log scale; for a lattice of one value, that of a grid of doublings.
    step = float(np.median(np.abs(np.diff(np.sort(scale))))) if len(scale) > 1 else math.log(2)
    sizes = np.array([regime.params for regime in regimes], float)
    ratios = np.array([regime.ratio for regime in regimes], float)
    targets, spreads = zip(*(_target(axis, regime, complement) for regime in regimes), strict=True)
    h = np.exp(np.array(targets))
    weights = 1 / (np.array(spreads) ** 2 + step**2 / 12)  # a grid hides the optimum evenly within a step
    law = fit_law(sizes, ratios, h, weights, complement)

    def snap(position: float) -> Value:
        return lattice[int(np.argmin(np.abs(scale - position)))]

    fitted = np.array([law.log_h(n, r) for n, r in zip(sizes, ratios, strict=True)])
    residuals = np.log(h) - fitted
    total = float(np.sum(weights * (np.log(h) - np.average(np.log(h), weights=weights)) ** 2))
    explained = 1 - float(np.sum(weights * residuals**2)) / total if total else 1.0
    # Residuals of a fit are smaller than the errors that made them: sqrt(n / (n - 3)) for level and two slopes.
    rng = np.random.default_rng(seed)
    free = max(1, len(residuals) - 3)
    wide = (residuals - residuals.mean()) * math.sqrt(len(residuals) / free)
    draws = []
    for _ in range(resamples):
        again = fit_law(sizes, ratios, np.exp(fitted + rng.choice(wide, len(wide))), weights, complement)
        draws.append(again.log_h(params, ratio) + float(rng.choice(wide)))
    tail = (1 - LEVEL) / 2
    value = snap(law.log_h(params, ratio))
    # The law's own value may lie outside the draws: residuals of few regimes are lopsided.
    ends = sorted((value, *(snap(float(end)) for end in np.quantile(draws, (tail, 1 - tail)))), key=float)
    return Prediction(axis.name, value, ends[0], ends[-1], "law", max(0.0, explained), law)


def _target(axis: Axis, regime: TunedRegime, complement: bool) -> tuple[float, float]:
    """Log h of one regime and its spread over the near-optimal values, each counting exp(-nats / `SOFTNESS`)."""
    near = {value: above for value, above in regime.near_optimal(axis.name).items() if _has_log(axis, value)}
    logs = _logs(list(near), complement)
    weights = np.exp(-np.array(list(near.values())) / SOFTNESS)
    middle = float(np.average(logs, weights=weights))
    return middle, math.sqrt(float(np.average((logs - middle) ** 2, weights=weights)))


def _has_log(axis: Axis, value: Value) -> bool:
    """Whether a number lies on the axis' logarithmic scale: off has no place there, nor have 0 and a beta of 1."""
    return value != axis.off and (float(value) < 1 if axis.extend == "complement" else float(value) > 0)


def _logs(values: Sequence[Value], complement: bool) -> Floats:
    numbers = np.array([float(value) for value in values])
    return np.asarray(np.log(1 - numbers if complement else numbers), dtype=np.float64)


def fit_law(params: Floats, ratios: Floats, h: Floats, weights: Floats, complement: bool = False) -> PowerLaw:
    """The law through positive ``h``, one per regime, by weighted least squares on log h.

    ``weights`` are inverse variances of log h. The offset is a share of the smallest h, from `OFFSETS`.
    """
    # Columns: level, log N, log ratio; one row per regime, (regimes, 3).
    x = np.stack([np.ones_like(h), np.log(params / UNIT), np.log(ratios)], axis=1)
    fits = [_with_offset(x, h, weights, share * float(h.min()), complement) for share in OFFSETS]
    plain = fits[0]
    best = min(fits, key=lambda fit: fit[0])
    # The residual sums are of log h, whatever the offset, so that they can be compared.
    return best[1] if best[0] < _CLEARLY * plain[0] else plain[1]


def _with_offset(x: Floats, h: Floats, weights: Floats, offset: float, complement: bool) -> tuple[float, PowerLaw]:
    y = np.log(h - offset)
    # d log h = (1 - E/h) d log(h - E): weights in log h stay weights in log h.
    w = weights * (1 - offset / h) ** 2
    # Once without a prior, for how much the points scatter about any law; then with it, weighed by that.
    root = np.sqrt(w)
    free = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
    # Residuals beyond their variances make the data count less; smaller ones are luck, few points fit any law.
    excess = max(float(np.mean(w * (y - x @ free) ** 2)), 1.0)
    prior = np.diag([0.0, 1.0, 1.0]) * excess / PRIOR_EXPONENT**2
    # A prior centre of 0 for the slopes, none for the level; regimes are centred so that the two do not mix.
    middle = np.average(x, axis=0, weights=w)
    centred = x - middle
    centred[:, 0] = 1.0
    level, b, c = (float(each) for each in np.linalg.solve((centred.T * w) @ centred + prior, (centred.T * w) @ y))
    a = math.exp(level - b * float(middle[1]) - c * float(middle[2]))
    law = PowerLaw(a, b, c, offset, complement)
    fitted = a * np.exp(b * x[:, 1] + c * x[:, 2]) + offset
    return float(np.sum(weights * (np.log(h) - np.log(fitted)) ** 2)), law
