"""One law for all optimizers: shared exponent and floors, and one factor per optimizer by which it rescales the tokens.

L(scale, optimizer, D) = beta_scale + amplitude * (rho_optimizer * D)^-B. Laws fitted to each optimizer apart are
ill-conditioned, because their floors, coefficients and exponents trade against each other; sharing all but one factor
is stable and compares optimizers directly (Volkova, Safaryan, Lampert, Alistarh, arXiv 2602.07712, who rescale the
model size as well; with a free floor per scale only the tokens' factor is left). rho over the baseline's is the
speedup, the same at every ratio: where speedups differ between regimes, the residuals show it.

For a given exponent the law is linear in the floors and in c_o = amplitude * rho_o^-B, so least squares needs a search
over the exponent alone (variable projection), for all redrawn data sets at once.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, fdtri

from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.runs import Array, RegimeKey
from tuneopt.analysis.speedup import DEFAULTS, IntervalSettings, redrawn_sigma
from tuneopt.analysis.winner import Winner

EXPONENTS = np.geomspace(0.02, 3.0, 120)
"""Exponents searched, 4% apart; a parabola refines the best. Published laws have 0.3 to 0.5."""

FEWEST_RATIOS = 3
"""Ratios of the baseline that a scale needs: two points hold no exponent."""


@dataclass(frozen=True, slots=True)
class Factor:
    """One optimizer's speedup over the baseline in every regime of the fit, and on how many results it rests.

    ``low`` and ``high`` are None where no noise is known or that end is open.
    """

    optimizer: str
    factor: float | None
    low: float | None
    high: float | None
    results: int


@dataclass(frozen=True, slots=True)
class Floor:
    """The loss (nats) that no budget goes below at a scale, for every optimizer."""

    scale: str
    beta: float


@dataclass(frozen=True, slots=True)
class Residual:
    """A result's loss, what the law says, and the difference (nats; positive where the law is too low)."""

    optimizer: str
    regime: RegimeKey
    loss: float
    fitted: float
    residual: float


@dataclass(frozen=True, slots=True)
class JointFit:
    """The joint law of one corpus; ``scale`` is None for all scales together.

    ``rms`` is the root of the squared residuals over the degrees of freedom (nats), ``excess`` its ratio to the noise
    (None where no noise is known). Flags: ``misfit`` (the residuals are more than the noise explains at 5%; the
    intervals are widened by ``excess``), ``edge`` (the best exponent is the end of those searched).
    """

    corpus: str
    scale: str | None
    exponent: float
    exponent_low: float | None
    exponent_high: float | None
    amplitude: float
    floors: tuple[Floor, ...]
    factors: tuple[Factor, ...]
    residuals: tuple[Residual, ...]
    rms: float
    excess: float | None
    flags: tuple[str, ...]


def joint_fits(winners: Sequence[Winner], noise: NoiseModel, how: IntervalSettings = DEFAULTS) -> tuple[JointFit, ...]:
    """For each corpus: the fit over all its scales, where there are several, then the fit of each scale.

    A scale enters when the baseline has `FEWEST_RATIOS` ratios there, an optimizer when it has a result there.
    """
    ratios: dict[tuple[str, str], set[float]] = defaultdict(set)
    for winner in winners:
        if winner.optimizer == how.baseline:
            ratios[winner.regime[:2]].add(winner.regime.ratio)
    fits: list[JointFit] = []
    for corpus in dict.fromkeys(winner.regime.corpus for winner in winners):
        scales = [scale for (place, scale), known in ratios.items() if place == corpus and len(known) >= FEWEST_RATIOS]
        for chosen in ([scales] if len(scales) > 1 else []) + [[scale] for scale in scales]:
            here = [winner for winner in winners if winner.regime.corpus == corpus and winner.regime.scale in chosen]
            if len({winner.optimizer for winner in here}) > 1:
                fits.append(_fit(here, corpus, chosen[0] if len(chosen) == 1 else None, noise, how))
    return tuple(fits)


class _Design:
    """The columns of the linear law for one set of winners: one per scale, then one per optimizer (baseline first)."""

    def __init__(self, winners: Sequence[Winner], baseline: str) -> None:
        names = {winner.optimizer for winner in winners}
        self.scales = tuple(dict.fromkeys(winner.regime.scale for winner in winners))
        self.optimizers = tuple(sorted(names, key=lambda name: (name != baseline, name)))
        # Indicators, (winners, scales) and (winners, optimizers).
        scale_of = [[winner.regime.scale == scale for scale in self.scales] for winner in winners]
        optimizer_of = [[winner.optimizer == name for name in self.optimizers] for winner in winners]
        self.scale_of, self.optimizer_of = np.array(scale_of, float), np.array(optimizer_of, float)
        tokens = np.array([winner.tokens for winner in winners])
        self.unit = float(np.exp(np.mean(np.log(tokens))))
        self.tokens = tokens / self.unit  # near 1, so that the powers of all exponents are of one size
        self.weights = np.sqrt([winner.runs for winner in winners])  # a mean over n runs has 1/n of the variance

    def columns(self, exponents: Array) -> Array:
        """Weighted columns, shape (exponents, winners, scales + optimizers)."""
        powers = self.tokens[None, :] ** -exponents[:, None]
        floors = np.broadcast_to(self.scale_of, (len(exponents), *self.scale_of.shape))
        return np.concatenate([floors, self.optimizer_of * powers[..., None]], axis=-1) * self.weights[:, None]


def _solve(design: _Design, losses: Array) -> tuple[Array, Array]:
    """Exponents (m,) and linear parameters (m, columns) of the data sets ``losses`` (m, winners).

    Every exponent of the grid by one orthogonal projection for all data sets, then a parabola through the best three
    (in log exponent), then the linear parameters at the refined exponents by the normal equations.
    """
    targets = (losses * design.weights).T
    columns = design.columns(EXPONENTS)
    errors = np.empty((len(EXPONENTS), targets.shape[1]))
    total = np.sum(targets**2, axis=0)
    for place, matrix in enumerate(columns):
        basis, _ = np.linalg.qr(matrix)  # the squared error is what the projection on the columns leaves
        errors[place] = total - np.sum((basis.T @ targets) ** 2, axis=0)
    best = np.argmin(errors, axis=0)
    # The parabola needs a neighbour on both sides; at an end of the grid the end itself stands.
    inner = np.clip(best, 1, len(EXPONENTS) - 2)
    each = np.arange(targets.shape[1])
    left, middle, right = (errors[inner + step, each] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1), 0.0)
    steps = np.where(best == inner, np.clip(shift, -1, 1), best - inner)
    exponents = np.exp(np.log(EXPONENTS[inner]) + steps * math.log(EXPONENTS[1] / EXPONENTS[0]))
    parts = np.empty((len(each), columns.shape[-1]))
    for some in np.array_split(each, max(1, len(each) // 256)):  # in pieces, because (m, winners, columns) is large
        matrix = design.columns(exponents[some])
        moment = np.swapaxes(matrix, 1, 2) @ targets.T[some][..., None]
        parts[some] = np.linalg.solve(np.swapaxes(matrix, 1, 2) @ matrix, moment)[..., 0]
    return exponents, parts


def _factors(design: _Design, exponents: Array, parts: Array) -> Array:
    """rho over the baseline's, shape (m, optimizers); infinite where the law says that an optimizer needs no tokens."""
    powers = parts[:, len(design.scales) :]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(powers > 0, powers[:, :1] / powers, np.inf)
        return np.where(powers[:, :1] > 0, np.asarray(ratio) ** (1 / exponents[:, None]), np.nan)


def _fit(winners: list[Winner], corpus: str, scale: str | None, noise: NoiseModel, how: IntervalSettings) -> JointFit:
    design = _Design(winners, how.baseline)
    losses = np.array([[winner.loss for winner in winners]])
    level_of = losses.mean()  # the floors take it up; with it the small errors would drown in large squares
    losses = losses - level_of
    exponents, parts = _solve(design, losses)
    exponent = float(exponents[0])
    fitted = (design.columns(exponents)[0] @ parts[0]) / design.weights
    residual = losses[0] - fitted
    freedom = len(winners) - len(parts[0]) - 1  # the linear parameters, and the exponent
    spreads = [noise.of(winner.regime, winner.optimizer) for winner in winners]
    sigmas = np.array([math.nan if spread is None else spread.sigma for spread in spreads])
    excess = None
    flags = []
    # Whether one factor for each optimizer explains the losses: squared residuals in units of their noise.
    if freedom > 0 and np.isfinite(sigmas).all():
        squares = float(np.sum((residual * design.weights / sigmas) ** 2))
        excess = math.sqrt(squares / freedom)
        known = [spread.freedom for spread in spreads if spread is not None and spread.freedom is not None]
        # Over a sigma that is known the excess is chi-squared per degree of freedom; over one that was measured, F.
        limit = fdtri(freedom, min(known), 0.95) if known else chdtri(freedom, 0.05) / freedom
        if excess**2 > limit:
            flags.append("misfit")
    if not EXPONENTS[0] * 1.001 < exponent < EXPONENTS[-1] / 1.001:
        flags.append("edge")
    bounds: list[tuple[float | None, float | None]] = [(None, None)] * (len(design.optimizers) + 1)
    if np.isfinite(sigmas).all():
        rng = np.random.default_rng([how.seed, zlib.crc32(f"joint\n{corpus}\n{scale}".encode())])
        # Rejected by its own test, the law still gets an interval: the noise is taken as large as the residuals say.
        widened = max(1.0, excess or 1.0) if "misfit" in flags else 1.0
        known_spreads = [spread for spread in spreads if spread is not None]
        sigma = np.stack([redrawn_sigma(spread, how.draws, how.seed) for spread in known_spreads], axis=-1)
        drawn = fitted + widened * sigma / design.weights * rng.standard_normal((how.draws, len(winners)))
        again, redrawn = _solve(design, drawn)
        samples = np.concatenate([again[:, None], _factors(design, again, redrawn)], axis=1)
        bounds = [_interval(column, how.level) for column in samples.T]
    factors = _factors(design, exponents, parts)[0]
    counts = design.optimizer_of.sum(axis=0)
    return JointFit(
        corpus=corpus,
        scale=scale,
        exponent=exponent,
        exponent_low=bounds[0][0],
        exponent_high=bounds[0][1],
        amplitude=float(parts[0, len(design.scales)] * design.unit**exponent),
        floors=tuple(Floor(name, float(beta + level_of)) for name, beta in zip(design.scales, parts[0], strict=False)),
        factors=tuple(
            Factor(name, float(factor) if np.isfinite(factor) else None, *ends, int(count))
            for name, factor, ends, count in zip(design.optimizers, factors, bounds[1:], counts, strict=True)
        ),
        residuals=tuple(
            Residual(winner.optimizer, winner.regime, winner.loss, float(said + level_of), float(rest))
            for winner, said, rest in zip(winners, fitted, residual, strict=True)
        ),
        rms=float(math.sqrt(np.sum((residual * design.weights) ** 2) / max(freedom, 1))),
        excess=excess,
        flags=tuple(flags),
    )


def _interval(samples: Array, level: float) -> tuple[float | None, float | None]:
    """Equal-tailed quantiles of the draws (n,); None where the fit failed (NaN) in more than 1% of them."""
    known = samples[~np.isnan(samples)]
    if len(known) < 0.99 * len(samples):
        return None, None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return (float(low) if np.isfinite(low) else None), (float(high) if np.isfinite(high) else None)
