"""How much a loss moves between seeds, and when a difference of two losses is more than that.

Sigma belongs to an optimizer and a regime. `measure` gives every one of them a `Noise`: from replicates, runs that
differ in nothing but the seed, by one `SpreadModel` for each corpus (`tuneopt.search.noise`), which draws what few
replicates say towards neighbours in scale, ratio and optimizer and to a law over model size. Where a test finds no
difference the optimizers of a regime share one sigma; where it does, their differences are Welch's. Everything that
decides or draws asks a `NoiseModel`, with the degrees of freedom of its answer. Units: nats per token.

Several comparisons at once are judged by the studentized range: among k means with equal noise and no true difference,
the largest difference over sigma / sqrt(runs) exceeds the range's quantile with the family's error rate and no more
(Tukey 1953; Kramer 1956 for unequal numbers of runs; Games and Howell 1976 for unequal noise, with Welch's degrees of
freedom for each pair).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr, ndtri, stdtrit

from tuneopt.analysis import cells
from tuneopt.analysis.runs import FRACTIONS, Array, Curves, RegimeKey, TrainingRun
from tuneopt.search.noise import Cell, NoiseRegime, Replicate, SpreadModel
from tuneopt.search.variances import satterthwaite
from tuneopt.spec import SCALES, InputError

CONFIDENCE = 0.95
"""One-sided confidence of a difference: 1.645 * sqrt(2) * sigma where sigma is known and both losses are one run."""

FAMILY_RATE = 0.05
"""Declared chance that a family of comparisons (a regime's pairs, a line's flips) holds any false one."""

ENOUGH = 4
"""Degrees of freedom from which an estimate is used without borrowing. With 4 the 90% interval of sigma still spans a
factor of 3.6; with 2 it spans 7.6, and Student's t makes of it a threshold that tells nothing apart."""

ALIKE = 1e-6
"""Nats within which losses of two seeds are equal: they differ by the last digit that was printed, or by rounding of
their mean, and show no noise."""

PAPER_LADDER_SIGMA = 0.0012
"""Assumed where nothing was measured, at the paper ladder's scales only: 1.645 * sqrt(2) times it is just under the
study's tolerance of 0.003 (arXiv 2509.02046). Public logs at 124M parameters give 0.0011 to 0.0012."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of a final loss between seeds.

    ``freedom`` is the degrees of freedom of the estimate, None when sigma is taken as known. ``source`` is
    ``measured``, ``given`` (by the user or with the rows) or ``assumed``; ``pool`` says over what it was measured.
    Two results with equal noise share one estimate.
    """

    sigma: float
    freedom: float | None
    source: str
    pool: str

    def threshold(self, runs: int = 1, others: int = 1, confidence: float = CONFIDENCE) -> float:
        """The smallest significant difference (nats) between means over ``runs`` and ``others`` runs."""
        return self.quantile(confidence) * self.sigma * math.sqrt(1 / runs + 1 / others)

    def quantile(self, confidence: float) -> float:
        """The one-sided normal quantile, or Student's where sigma was measured."""
        return float(ndtri(confidence) if self.freedom is None else stdtrit(self.freedom, confidence))

    def span(self, runs: int, others: int, compared: int, rate: float = FAMILY_RATE) -> float:
        """The smallest difference (nats) that counts when ``compared`` results are all compared with each other.

        The chance of calling any of their equal pairs different is at most ``rate`` (Tukey-Kramer).
        """
        quantile = range_quantile(1 - rate, max(compared, 2), _coarse(self.freedom))
        return quantile / math.sqrt(2) * self.sigma * math.sqrt(1 / runs + 1 / others)


def difference_noise(first: Noise, runs: int, second: Noise, others: int) -> Noise:
    """The noise of the difference of two means over so many runs; its sigma is the difference's standard error.

    Where both share one estimate it keeps its degrees of freedom, else it has those of Welch and Satterthwaite.
    """
    if first == second:
        return replace(first, sigma=first.sigma * math.sqrt(1 / runs + 1 / others))
    variances = [first.sigma**2 / runs, second.sigma**2 / others]
    freedoms = [math.inf if one.freedom is None else one.freedom for one in (first, second)]
    freedom = satterthwaite(variances, freedoms)
    return Noise(
        math.sqrt(math.fsum(variances)),
        freedom if math.isfinite(freedom) else None,
        first.source if first.source == second.source else "measured",
        " and ".join(dict.fromkeys((first.pool, second.pool))),
    )


def pair_span(
    first: Noise, runs: int, second: Noise, others: int, compared: int = 2, rate: float = FAMILY_RATE
) -> float:
    """The smallest difference (nats) of two of ``compared`` means, each with its noise and number of runs, that counts.

    Tukey and Kramer's where they share one sigma, Games and Howell's where they do not.
    """
    apart = difference_noise(first, runs, second, others)
    return range_quantile(1 - rate, max(compared, 2), _coarse(apart.freedom)) / math.sqrt(2) * apart.sigma


def _coarse(freedom: float | None) -> float | None:
    """Degrees of freedom rounded down to one of a few, so that few quantiles have to be computed; whole ones stay.

    By at most 5%, or by so much that the quantile grows by 0.5%.
    """
    if freedom is None or freedom > 1e6 or (freedom == int(freedom) and freedom < 1000):
        return freedom if freedom is None or freedom < 1000 else None
    if freedom > 20:
        return 400 / math.ceil(400 / freedom)
    return math.exp(math.floor(math.log(freedom) / 0.05) * 0.05)


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """The noise of every regime, and of every optimizer there; `of` gives None where nothing is known.

    ``regimes`` holds one bar for all optimizers of a regime: where they do not share a sigma, that of the one which
    asks for the largest difference. ``optimizers`` holds what differs from it.
    """

    regimes: Mapping[RegimeKey, Noise]
    optimizers: Mapping[tuple[RegimeKey, str], Noise] = field(default_factory=dict)

    def of(self, regime: RegimeKey, optimizer: str | None = None) -> Noise | None:
        """The noise of an optimizer in a regime; without an optimizer the one bar for all."""
        own = None if optimizer is None else self.optimizers.get((regime, optimizer))
        return own or self.regimes.get(regime)

    def scaled(self, factor: float) -> NoiseModel:
        """The same with every sigma ``factor`` times as large."""
        return NoiseModel(
            {key: replace(noise, sigma=factor * noise.sigma) for key, noise in self.regimes.items()},
            {key: replace(noise, sigma=factor * noise.sigma) for key, noise in self.optimizers.items()},
        )


def pooled(groups: Iterable[Iterable[float]]) -> tuple[float, int]:
    """Pooled standard deviation of groups of replicates, and its degrees of freedom (0 and 0.0 without any pair)."""
    squares: list[float] = []
    freedom = 0
    for group in groups:
        values = list(group)
        mean = math.fsum(values) / max(len(values), 1)
        squares += [(value - mean) ** 2 for value in values]
        freedom += max(len(values) - 1, 0)
    # fsum is exact, so the order of the rows changes not even the last digit
    return (math.sqrt(math.fsum(squares) / freedom) if freedom else 0.0), freedom


def measure(runs: Iterable[TrainingRun], sigma: float | None = None) -> NoiseModel:
    """The noise of each optimizer in each regime of ``runs``, on the report loss.

    ``sigma`` (nats), when given, holds everywhere. Else a regime takes what came with its rows (root mean square of the
    optimizer's own, else of the regime's). Else, where the corpus has replicates, the posterior of its `SpreadModel`;
    scales of unknown size take the narrowest of the regime's, the scale's and the corpus' replicates that has at least
    `ENOUGH` degrees of freedom. Else `PAPER_LADDER_SIGMA` on the paper ladder, else nothing. Raises `InputError` for a
    ``sigma`` that is not a positive number.
    """
    if sigma is not None and not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"sigma must be a positive number of nats, not {sigma!r}; the study's is about 0.0012")
    finished = [run for run in runs if run.status == "completed"]
    if sigma is not None:
        everywhere = Noise(sigma, None, "given", "everywhere")
        return NoiseModel({run.regime: everywhere for run in finished})
    corpora: dict[str, list[TrainingRun]] = defaultdict(list)
    for run in finished:
        corpora[run.regime.corpus].append(run)
    regimes: dict[RegimeKey, Noise] = {}
    optimizers: dict[tuple[RegimeKey, str], Noise] = {}
    for members in corpora.values():
        for (regime, name), noise in _of_corpus(members).items():
            optimizers[regime, name] = noise
            if regime not in regimes or noise.threshold() > regimes[regime].threshold():
                regimes[regime] = noise
    return NoiseModel(regimes, {key: noise for key, noise in optimizers.items() if noise != regimes[key[0]]})


def _of_corpus(runs: Sequence[TrainingRun]) -> dict[tuple[RegimeKey, str], Noise]:
    """The noise of each optimizer in each regime of one corpus; none where nothing is known."""
    given: dict[RegimeKey, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    # Replicates by regime and setting; of two runs of one setting and seed the last counts.
    settings: dict[RegimeKey, dict[object, dict[int, TrainingRun]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        settings[run.regime][run.setting][run.seed] = run
        if run.sigma:
            given[run.regime][run.optimizer].append(run.sigma)
    spreads = _spreads(run for groups in settings.values() for seeds in groups.values() for run in seeds.values())
    found: dict[tuple[RegimeKey, str], Noise] = {}
    for regime, groups in settings.items():
        members = {run.optimizer: run for seeds in groups.values() for run in seeds.values()}
        unsized = spreads is None or any(not run.parameters for run in members.values())
        elsewhere = _borrowed(regime, settings) if unsized else None
        for name, run in members.items():
            values = given[regime].get(name) or [value for each in given[regime].values() for value in each]
            if values:
                square = math.fsum(value**2 for value in values) / len(values)
                noise: Noise | None = Noise(math.sqrt(square), None, "given", regime.label)
            elif spreads is not None and run.parameters:
                noise = _posterior(spreads, name, regime, run.parameters)
            else:
                noise = elsewhere
            if noise is not None:
                found[regime, name] = noise
    return found


def _spreads(runs: Iterable[TrainingRun]) -> SpreadModel | None:
    """The noise model of a corpus; None where no two replicates of a scale of known size differ."""
    model = SpreadModel(
        Replicate(
            Cell(run.optimizer, NoiseRegime(float(run.parameters), run.regime.ratio)),
            (run.regime.scale, run.config, run.variant),
            run.seed,
            run.losses[1],
        )
        for run in runs
        if run.parameters
    )
    return model if any(variance > ALIKE**2 for variance, _ in model.measured.values()) else None


def _posterior(model: SpreadModel, optimizer: str, regime: RegimeKey, parameters: int) -> Noise:
    """What the model of a corpus says of one optimizer in one regime."""
    spread = model.spread(optimizer, NoiseRegime(float(parameters), regime.ratio))
    if spread.shared:
        pool = f"all optimizers at {regime.label}"
    elif spread.replicates:
        pool = f"{optimizer} at {regime.label}"
    else:
        pool = f"the replicates of other regimes and optimizers, for {optimizer} at {regime.label}"
    return Noise(spread.sigma, spread.freedom, "measured", pool)


def _borrowed(
    regime: RegimeKey, settings: Mapping[RegimeKey, Mapping[object, Mapping[int, TrainingRun]]]
) -> Noise | None:
    """The noise of a regime whose model size is unknown, or whose corpus has no replicates."""
    widest: Noise | None = None
    # The first 3, 2 or 1 parts of (corpus, scale, ratio) must agree: the regime, its scale, its corpus.
    for pool, width in ((regime.label, 3), (f"scale {regime.scale}", 2), ("all scales", 1)):
        near = [groups for other, groups in settings.items() if other[:width] == regime[:width]]
        losses = ([run.losses[1] for run in seeds.values()] for groups in near for seeds in groups.values())
        spread, freedom = pooled(losses)
        if freedom and spread > ALIKE:
            widest = Noise(spread, freedom, "measured", pool)
            if freedom >= ENOUGH:
                return widest
    run = next(run for seeds in settings[regime].values() for run in seeds.values())
    scale = SCALES.get(regime.scale)
    if widest is not None or scale is None or scale.ladder != "paper":
        return widest
    # Exactly 130 million parameters are a size that was rounded, and may be any model's: the name was made from it.
    rounded = run.parameters == round(cells.number(regime.scale, None, units=True))
    return None if rounded else Noise(PAPER_LADDER_SIGMA, None, "assumed", "paper ladder")


def curve_noise(
    runs: Iterable[TrainingRun],
    curves: Curves,
    noise: NoiseModel,
    fractions: Sequence[float] = FRACTIONS,
    loss: str = "report_loss",
) -> dict[tuple[RegimeKey, str], list[Noise | None]]:
    """The noise between seeds at each fraction of training, of each optimizer in the regimes that have replicates.

    At a fraction an optimizer's own replicates count where they have `ENOUGH` degrees of freedom, else those of all
    optimizers of the regime, else the noise of its final loss (``noise``) stands there.
    """
    settings: dict[object, list[TrainingRun]] = defaultdict(list)
    names: dict[RegimeKey, set[str]] = defaultdict(set)
    for run in runs:
        if run.status == "completed":
            settings[run.setting].append(run)
            names[run.regime].add(run.optimizer)
    regimes: dict[RegimeKey, dict[str, list[Array]]] = defaultdict(lambda: defaultdict(list))  # (seeds, fractions)
    for members in settings.values():
        if len(members) > 1:
            aligned = curves.at([run.trial for run in members], fractions, loss)
            regimes[members[0].regime][members[0].optimizer].append(aligned)

    def at(arrays: Sequence[Array], place: int, pool: str) -> Noise | None:
        sigma, freedom = pooled(array[np.isfinite(array[:, place]), place] for array in arrays)
        return Noise(sigma, freedom, "measured", pool) if freedom >= ENOUGH and sigma > 0 else None

    spreads: dict[tuple[RegimeKey, str], list[Noise | None]] = {}
    for regime, own in regimes.items():
        every = [array for arrays in own.values() for array in arrays]
        shared: dict[int, Noise | None] = {}  # worked out where an optimizer's own replicates are too few
        for name in names[regime]:
            along = spreads[regime, name] = []
            for place in range(len(fractions)):
                noise_here = at(own.get(name, ()), place, f"{name} at {regime.label}")
                if noise_here is None:
                    if place not in shared:
                        shared[place] = at(every, place, regime.label)
                    noise_here = shared[place] or noise.of(regime, name)
                along.append(noise_here)
    return spreads


# Gauss-Legendre nodes for the two integrals of the studentized range: over the largest mean (z within 8.5 standard
# deviations, beyond which the density is below 1e-16) and over the estimate of sigma (u, its probability).
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(240)
_Z, _DZ = 8.5 * _NODES, 8.5 * _WEIGHTS * np.exp(-0.5 * (8.5 * _NODES) ** 2) / math.sqrt(2 * math.pi)
_U, _DU = (1 + _NODES) / 2, _WEIGHTS / 2

_WIDEST = 20.0
"""A range of known noise that nothing exceeds: one minus its probability is below 1e-20 for a hundred means."""
_PLACES = 2000


def range_probability(quantile: float, groups: int, freedom: float | None = None) -> float:
    """The chance that the studentized range of ``groups`` equal means stays at or under ``quantile``.

    ``freedom`` is that of the estimate of sigma, None where sigma is known.
    """
    if freedom is None:
        return float(_known(np.array([quantile]), groups)[0])
    sigma = np.sqrt(chdtri(freedom, 1 - _U) / freedom)  # estimate over truth, at equal steps of probability
    return float(_between(groups)(np.minimum(quantile * sigma, _WIDEST)) @ _DU)


def _known(quantiles: Array, groups: int) -> Array:
    """The same for a known sigma and quantiles (n,): k times the chance that k - 1 means lie that far below one."""
    return np.asarray(groups * _below(quantiles) ** (groups - 1) @ _DZ)


def _below(quantiles: Array) -> Array:
    """The chance that one mean lies that far below the largest, for quantiles (n,) and each largest mean: (n, z)."""
    return np.asarray(ndtr(_Z)[None, :] - ndtr(_Z[None, :] - quantiles[:, None]))


@lru_cache(maxsize=1)
def _grid() -> tuple[Array, Array]:
    """Quantiles from 0 to `_WIDEST`, and the logs of `_below` there: the same for every number of groups."""
    quantiles = np.linspace(0, _WIDEST, _PLACES)
    with np.errstate(divide="ignore"):
        return quantiles, np.log(_below(quantiles))


@lru_cache(maxsize=64)
def _between(groups: int) -> CubicSpline:
    """`_known` between 0 and `_WIDEST` as a cubic through a fine grid, off by less than 1e-9.

    A quantile with an estimated sigma asks for it thousands of times, and each answer is an integral.
    """
    quantiles, logs = _grid()
    parts = [groups * np.exp((groups - 1) * part) @ _DZ for part in np.array_split(logs, _PLACES // 100)]
    return CubicSpline(quantiles, np.concatenate(parts))


@lru_cache(maxsize=4096)
def range_quantile(confidence: float, groups: int, freedom: float | None = None) -> float:
    """The quantile that the studentized range of ``groups`` (at least 2) equal means exceeds at 1 - ``confidence``."""
    # A sigma that is estimated makes the range wider, so the known one's quantile bounds it from below.
    low = 0.0 if freedom is None else range_quantile(confidence, groups)
    high = max(4.0, 1.2 * low)
    while range_probability(high, groups, freedom) < confidence and high < 1e7:
        low, high = high, 2 * high
    return float(brentq(lambda x: range_probability(x, groups, freedom) - confidence, low, high, xtol=1e-8, rtol=1e-8))
