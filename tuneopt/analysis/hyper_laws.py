"""How tuned hyperparameters move with model size and budget: h = A N^B ratio^C, with intervals of B and C.

A regime's value is the lowest point of a smooth surface where its runs are a grid (`tuneopt.analysis.surface`), and the
centre of its near-optimal runs in log h elsewhere: the best run is one of equals. Regimes of one scale were tuned alike
and share its luck, so they are not independent: C comes from the ratios within each scale, B from the means of the
scales, whose number decides its degrees of freedom. Both are plain regressions with Student's t, and the law that is
drawn is the one that the intervals belong to.

The same law in tokens, h = K N^n D^C with n = B - C, is the form in which papers publish it (Li et al., Step Law, arXiv
2503.04715). Where four scales or more do not show that size matters at equal tokens, it is fitted to the tokens alone.
Three scales can show next to nothing of a size, and leaving it out then costs more than keeping it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

from tuneopt.analysis.noise import FAMILY_RATE
from tuneopt.analysis.runs import COMPLEMENTS, Array, RegimeKey, TrainingRun
from tuneopt.analysis.sensitivity import Star
from tuneopt.analysis.spaces import axes
from tuneopt.analysis.speedup import LEVEL
from tuneopt.analysis.surface import surface
from tuneopt.analysis.winner import Winner
from tuneopt.constants import NEAR_OPTIMAL, TOKENS_PER_PARAMETER
from tuneopt.search.axis import Axis, is_number
from tuneopt.search.prediction import FEWEST, UNIT, TunedRegime, predict
from tuneopt.spec import SCALES, Value

OWN = "own"
"""Stands for the ladder of scales that are not built in."""


@dataclass(frozen=True, slots=True)
class TokenLaw:
    """h = coefficient N^size D^tokens, with N in parameters and D in tokens; intervals at the analysis' level.

    ``size`` is None where it is left out: the law is then one of the tokens alone. Ends are None where there are too
    few scales.
    """

    coefficient: float
    size: float | None
    size_low: float | None
    size_high: float | None
    tokens: float
    tokens_low: float | None
    tokens_high: float | None

    def at(self, parameters: float, tokens: float) -> float:
        """The value of h (of 1 - h for a complement) at a model size and budget."""
        return float(self.coefficient * parameters ** (self.size or 0.0) * tokens**self.tokens)


@dataclass(frozen=True, slots=True)
class HyperLaw:
    """One coordinate of one optimizer over the regimes of a corpus and ladder.

    ``method`` is ``law``, or what stands for it: ``constant`` (one value is near-optimal everywhere), ``median``,
    ``majority`` or ``start``. ``a``, ``b`` and ``c`` are the law's, N in units of 1e8 parameters, and ``e`` is 0; with
    ``complement`` it is the law of 1 - value. ``support`` is the share of the spread of log h that it explains, or of
    the regimes that agree. ``points`` gives each regime's tuned value and what the law says there. ``by_tokens`` is the
    same law in tokens.
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
    scales: int = 0
    by_tokens: TokenLaw | None = None


def hyper_laws(
    winners: Iterable[Winner], stars: Iterable[Star], level: float = LEVEL, runs: Iterable[TrainingRun] = ()
) -> tuple[HyperLaw, ...]:
    """The law of every numeric coordinate whose optimizer has four regimes or more, declared spaces or not.

    ``runs`` are all runs, whose near-optimal ones give each regime its value; without them the tuned value does.
    """
    groups: dict[tuple[str, str, str], list[Winner]] = defaultdict(list)
    for winner in winners:
        if winner.parameters and winner.config:
            scale = SCALES.get(winner.regime.scale)
            groups[winner.optimizer, winner.regime.corpus, OWN if scale is None else scale.ladder].append(winner)
    around = {(star.optimizer, star.regime): star for star in stars}
    tried: dict[tuple[str, RegimeKey], list[TrainingRun]] = defaultdict(list)
    for run in runs:
        if run.status == "completed":
            tried[run.optimizer, run.regime].append(run)
    laws = []
    # Figures need a number in every regime: a coordinate that some table leaves out is not fitted from the rest.
    # One ladder at a time: values of the nano ladder (batch sizes in few sequences) are on no line with the paper's.
    for (optimizer, corpus, ladder), members in sorted(groups.items()):
        if len(members) < FEWEST:
            continue
        regimes = [
            _Regime(winner, around.get((optimizer, winner.regime)), tuple(tried[optimizer, winner.regime]))
            for winner in members
        ]
        known = {} if ladder == OWN else axes(optimizer, members[0].regime.scale) or {}
        for name in sorted(set.intersection(*(set(dict(winner.config)) for winner in members))):
            axis = known.get(name)
            if known and (axis is None or not axis.numeric or axis.pinned):
                continue
            if all(is_number(regime.tuned[name]) for regime in regimes) and (known or _varied(name, regimes)):
                laws.append(_law(optimizer, corpus, name, axis, regimes, level))
    return tuple(laws)


@dataclass(frozen=True)
class _Regime:
    """A winner, its star and the completed runs of its optimizer in its regime."""

    winner: Winner
    star: Star | None
    runs: tuple[TrainingRun, ...]

    @property
    def tuned(self) -> dict[str, Value]:
        return dict(self.winner.config)

    def near(self) -> dict[str, dict[Value, float]]:
        """The losses above the incumbent's of its star, by coordinate and value."""
        if self.star is None or self.star.config != self.winner.config:
            return {}
        loss = self.star.loss
        return {
            part.coordinate: {value: known - loss for value, known in zip(part.values, part.losses, strict=True)}
            for part in self.star.sensitivities
        }

    @cached_property
    def lowest(self) -> Mapping[str, float]:
        """Where a grid of runs is lowest: the log of each coordinate that they vary; empty where they are no grid."""
        own = self.tuned
        settings = [dict(run.config) for run in self.runs]
        names = sorted(name for name in own if is_number(own[name]) and len({one.get(name) for one in settings}) > 1)
        rest = {name: own[name] for name in own if name not in names}
        points, losses = [], []
        for run, one in zip(self.runs, settings, strict=True):
            logs = [_log(one.get(name), name in COMPLEMENTS) for name in names]
            if None not in logs and all(one.get(name) == rest[name] for name in rest):
                points.append(logs)
                losses.append(run.losses[0])
        fitted = surface(np.array(points, float), np.array(losses)) if names and points else None
        return {} if fitted is None else dict(zip(names, map(float, fitted.lowest), strict=True))

    def centre(self, name: str, complement: bool) -> float | None:
        """log h where the regime is lowest; None for a value without a log.

        Without a grid it is the mean over the near-optimal runs, those within the threshold of the lowest select loss.
        The better ones weigh more; the weight falls to 0 at the threshold.
        """
        if name in self.lowest and complement == (name in COMPLEMENTS):
            return self.lowest[name]
        threshold = NEAR_OPTIMAL if self.star is None else self.star.threshold
        pairs = [(run.losses[0], dict(run.config).get(name)) for run in self.runs]
        pairs = pairs or [(self.winner.select_loss, self.tuned[name])]
        lowest = min(loss for loss, _ in pairs)
        logs = [(1 - (loss - lowest) / threshold, _log(value, complement))
                for loss, value in pairs if loss < lowest + threshold]  # fmt: skip
        known = [(weight, log) for weight, log in logs if log is not None]
        own = _log(self.tuned[name], complement)
        if own is None or not known:
            return own
        return sum(weight * log for weight, log in known) / sum(weight for weight, _ in known)


def _log(value: Value | None, complement: bool) -> float | None:
    """log h of a value; None for one that has no logarithm, such as one that means off."""
    if value is None or not is_number(value):
        return None
    h = 1 - float(value) if complement else float(value)
    return math.log(h) if h > 0 else None


def _varied(name: str, regimes: Sequence[_Regime]) -> bool:
    """Whether a coordinate had several values: one that was never varied has no law."""
    values = {dict(run.config).get(name) for regime in regimes for run in regime.runs}
    return len(values | {regime.tuned[name] for regime in regimes}) > 1


def _method(name: str, axis: Axis | None, regimes: Sequence[_Regime]) -> tuple[str, float]:
    """Whether a law stands for a coordinate, or something simpler does, and the share of regimes that agree.

    For a declared coordinate it is what a prediction would take; else one value that is near-optimal everywhere.
    """
    if axis is not None:
        tuned = [
            TunedRegime(float(regime.winner.parameters or 0), regime.winner.regime.ratio, regime.tuned, regime.near())
            for regime in regimes
        ]
        # The law is fitted for a prediction; at the largest regime none of its values are extrapolated.
        largest = max(tuned, key=lambda regime: (regime.params, regime.ratio))
        predicted = predict(axis, tuned, largest.params, largest.ratio, resamples=1)
        return predicted.method, predicted.support
    good = []
    for regime in regimes:
        threshold = NEAR_OPTIMAL if regime.star is None else regime.star.threshold
        losses = regime.near().get(name, {})
        lowest = min(losses.values(), default=0.0)
        good.append({regime.tuned[name]} | {value for value, loss in losses.items() if loss <= lowest + threshold})
    return ("constant", 1.0) if set.intersection(*good) else ("law", 0.0)


def _law(
    optimizer: str, corpus: str, name: str, axis: Axis | None, regimes: Sequence[_Regime], level: float
) -> HyperLaw:
    complement = axis.extend == "complement" if axis is not None else name in COMPLEMENTS
    method, support = _method(name, axis, regimes)
    fitted = None
    if method == "law":
        centres = [
            (regime.winner, centre) for regime in regimes if (centre := regime.centre(name, complement)) is not None
        ]
        fitted = _fit([winner for winner, _ in centres], np.array([centre for _, centre in centres]), level)
        support = fitted.support if fitted is not None else support
    return HyperLaw(
        optimizer=optimizer,
        corpus=corpus,
        coordinate=name,
        regimes=len(regimes),
        method=method,
        support=support,
        a=None if fitted is None else math.exp(fitted.intercept),
        b=None if fitted is None else fitted.b.value,
        b_low=None if fitted is None else fitted.b.low,
        b_high=None if fitted is None else fitted.b.high,
        c=None if fitted is None else fitted.c.value,
        c_low=None if fitted is None else fitted.c.low,
        c_high=None if fitted is None else fitted.c.high,
        e=None if fitted is None else 0.0,
        complement=fitted is not None and complement,
        points=tuple(
            (regime.winner.regime, regime.tuned[name], None if fitted is None else fitted.at(regime.winner, complement))
            for regime in regimes
        ),
        scales=len({regime.winner.regime.scale for regime in regimes}),
        by_tokens=None if fitted is None else fitted.by_tokens,
    )


@dataclass(frozen=True, slots=True)
class _Slope:
    """An exponent with its interval and standard error; all None where it does not vary or is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None
    error: float | None = None

    @staticmethod
    def of(value: float, error: float | None, freedom: float, level: float) -> _Slope:
        """A slope whose standard error has ``freedom`` degrees of freedom; without any it has no interval."""
        value = round(value, 12) + 0.0  # where nothing moves, 0 on every machine and not 1e-18 of either sign
        if error is None or freedom < 1:
            return _Slope(value)
        half = float(stdtrit(freedom, (1 + level) / 2)) * (error := round(error, 12))
        return _Slope(value, value - half, value + half, error)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A fitted law: log h = intercept + b log(N / 1e8) + c log ratio."""

    intercept: float
    b: _Slope
    c: _Slope
    support: float
    by_tokens: TokenLaw | None

    def at(self, winner: Winner, complement: bool) -> float:
        """The value that the law says in a winner's regime."""
        size, ratio = _place(winner)
        h = math.exp(self.intercept + (self.b.value or 0.0) * size + (self.c.value or 0.0) * ratio)
        return 1 - h if complement else h


def _place(winner: Winner) -> tuple[float, float]:
    """log N in units of 1e8 parameters, and the log of the ratio as its tokens have it."""
    parameters = float(winner.parameters or 0)
    return math.log(parameters / UNIT), math.log(winner.tokens / (TOKENS_PER_PARAMETER * parameters))


def _fit(winners: Sequence[Winner], logs: Array, level: float) -> _Fitted | None:
    """The law through ``logs`` (regimes,), one for each winner; None where neither size nor ratio varies."""
    if len(winners) < FEWEST:
        return None
    places = np.array([_place(winner) for winner in winners])  # (regimes, 2)
    names = [winner.regime.scale for winner in winners]
    scales = list(dict.fromkeys(names))
    member = np.array([[name == scale for scale in scales] for name in names], float)  # (regimes, scales)
    counts = member.sum(axis=0)
    sizes, ratios, means = (member.T @ column / counts for column in (places[:, 0], places[:, 1], logs))
    # Within scales: ratios and values as distances from the mean of their scale.
    inside, values = places[:, 1] - member @ ratios, logs - member @ means
    spread = float(inside @ inside)
    # Tuned values lie on a grid: however well they agree, each is known to about a step of it.
    least = _grid_variance(logs)
    c = _Slope(None)
    if spread > 1e-12:
        slope = float(inside @ values) / spread
        freedom = len(logs) - len(scales) - 1
        rest = max(float(np.sum((values - slope * inside) ** 2)), freedom * least)
        c = _Slope.of(slope, math.sqrt(rest / freedom / spread) if freedom > 0 else None, freedom, level)
    adjusted = means - (c.value or 0.0) * ratios  # of each scale, brought to ratio 1
    b = _Slope(None)
    if np.ptp(sizes) > 1e-9:
        weights = sizes - sizes.mean()
        slope = float(weights @ adjusted) / float(weights @ weights)
        freedom = len(scales) - 2
        left = adjusted - adjusted.mean() - slope * weights
        rest = max(float(left @ left), freedom * least / float(counts.mean()))
        # The error of c counts where ratios go along with sizes.
        along = float(weights @ ratios) / float(weights @ weights)
        error = (
            math.sqrt(rest / freedom / float(weights @ weights) + (along * (c.error or 0.0)) ** 2)
            if freedom > 0
            else None
        )
        b = _Slope.of(slope, error, freedom, level)
    if b.value is None and c.value is None:
        return None
    intercept = float(adjusted.mean() - (b.value or 0.0) * sizes.mean())
    left = logs - intercept - (b.value or 0.0) * places[:, 0] - (c.value or 0.0) * places[:, 1]
    whole = float(np.sum((logs - logs.mean()) ** 2))
    support = max(0.0, 1 - float(left @ left) / whole) if whole > 0 else 1.0
    by_tokens = _by_tokens(intercept, b, c, places, logs, names, level) if b.value is not None else None
    return _Fitted(intercept, b, c, support, by_tokens)


def _grid_variance(logs: Array) -> float:
    """The variance of a value that is rounded to a grid whose step is the smallest difference between two logs.

    Values that repeat show that there is a grid; without one it is 0.
    """
    values = np.unique(np.round(logs, 9))
    return float(np.diff(values).min()) ** 2 / 12 if 1 < len(values) < len(logs) else 0.0


def _by_tokens(
    intercept: float, b: _Slope, c: _Slope, places: Array, logs: Array, names: Sequence[str], level: float
) -> TokenLaw | None:
    """The law in tokens; of tokens alone where two scales, or four and more at 5%, show no effect of size."""
    if b.value is None or c.value is None:
        return None
    freedom = len(set(names)) - 2
    error = math.hypot(b.error, c.error) if b.error is not None and c.error is not None else None
    size = _Slope.of(b.value - c.value, error, freedom, level)
    sure = _Slope.of(b.value - c.value, error, freedom, 1 - FAMILY_RATE)
    if freedom == 1 or (sure.low is not None and sure.high is not None and (sure.low > 0 or sure.high < 0)):
        # log h = intercept + b log(N / unit) + c log(D / (20 N))
        coefficient = math.exp(intercept - b.value * math.log(UNIT) - c.value * math.log(TOKENS_PER_PARAMETER))
        return TokenLaw(coefficient, size.value, size.low, size.high, c.value, c.low, c.high)
    tokens = places[:, 0] + math.log(UNIT) + places[:, 1] + math.log(TOKENS_PER_PARAMETER)
    slope, start = np.polyfit(tokens, logs, 1)
    only = _Slope.of(float(slope), *_jackknife(tokens, logs, names), level)
    return TokenLaw(float(math.exp(start)), None, None, None, float(slope), only.low, only.high)


def _jackknife(tokens: Array, logs: Array, names: Sequence[str]) -> tuple[float | None, float]:
    """The standard error of a slope by leaving out one scale at a time, and its degrees of freedom.

    Scales are the independent parts. Those whose budgets span more decide more of the slope, so the error has fewer
    degrees of freedom than there are scales less one: Satterthwaite's, as for a regression over few clusters (Bell and
    McCaffrey, Survey Methodology 28, 2002).
    """
    slopes = []  # (regimes,) each: what every log adds to the slope without one scale
    for scale in dict.fromkeys(names):
        part = np.array([name != scale for name in names])
        if part.any() and np.ptp(tokens[part]) > 1e-9:
            centred = np.where(part, tokens - tokens[part].mean(), 0.0)
            slopes.append(centred / float(centred @ centred))
    count = len(slopes)
    if count < 2:
        return None, 0.0
    apart = np.array(slopes) - np.mean(slopes, axis=0)
    form = (count - 1) / count * apart.T @ apart  # (regimes, regimes): the variance is a form of the logs
    freedom = float(np.trace(form)) ** 2 / float(np.sum(form**2))
    return math.sqrt(max(float(logs @ form @ logs), 0.0)), max(freedom, 1.0)
