"""What the spread between seeds is, how well it is known, and what follows for a difference of losses.

The standard deviation sigma of a final loss between seeds belongs to an optimizer and a regime together (a `Cell`), and
is measured on replicates: runs of one cell and one configuration that differ in their seed alone. A cell has few of
them, so its estimate is drawn towards what the other cells say, by empirical Bayes with moderated variances (Smyth,
Statistical Applications in Genetics and Molecular Biology 3, 2004):

    prior      sigma^2 = d0 s0^2 / chi^2(d0)
    data       s^2 = sigma^2 chi^2(d) / d, pooled over the configurations of the cell, d = runs - configurations
    posterior  (d0 s0^2 + d s^2) / (d0 + d) with d0 + d degrees of freedom, so differences follow Student's t

Here the prior is a cell's own. Log sigma^2 is a Gaussian field around a law over N (`SigmaLaw`), in which cells are the
more alike the nearer their scale and ratio are, and more so with the same optimizer. The mean and variance that the
other cells leave to it give s0 and d0. How far cells lie from the law is estimated from the spread of their log s^2,
together with a declared default that counts as `DEFAULT_CELLS` cells, so that few cells hardly move it.

Everything that decides should ask a `SpreadModel`, with the degrees of freedom of its answer. Units: nats per token.
Assumed: losses of one configuration are normal and independent between seeds; the configurations of a cell share sigma.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, fdtr, fdtrc, polygamma, stdtr

from tuneopt.constants import CONFIDENCE, ONE_SIDED_95, TOLERANCE
from tuneopt.search.variances import LossDifference, bartlett, log_densities, satterthwaite, student, trigamma_inverse
from tuneopt.spec import InputError

Matrix = npt.NDArray[np.float64]

LEVEL = 2.0
"""Variance of how far all of a corpus' log sigma^2 lie off the law together: the law is taken to be right within a
factor of four in 95% of cases. Declared: two points make a law, and a text may be harder than theirs."""

DEFAULT_SPREAD = float(polygamma(1, 1.5))
"""Variance of log sigma^2 between cells before anything is measured: that of a prior with d0 = 3. Declared. Two
optimizers of a regime then differ in sigma by a factor of 1.5 in the mean and by 2.6 in one pair of twenty."""

DEFAULT_CELLS = 6.0
"""Cells that `DEFAULT_SPREAD` counts as against the spread that measured cells show."""

LEAST_PRIOR, MOST_PRIOR = 2.0, 50.0
"""Bounds of d0. Below 2 the prior's variance has no mean; above 50 it is as good as known, which a few cells cannot
show."""

CONFLICT, LEAST_PART = 0.05, 0.1
"""Where the prior lets replicates spread as much as they do, or as little, with less than the first as probability, its
degrees of freedom are cut in proportion, but not below the second part of them. A cell that is not like the others then
stands on its own evidence (after Phipson et al., Annals of Applied Statistics 10, 2016), and equal losses do not make
sigma zero."""

OPTIMIZERS = 0.5
"""How alike two optimizers of one regime are, 1 being one and the same cell. Declared."""

SCALE_REACH, RATIO_REACH = math.log(10), math.log(4)
"""Logarithms of the factors of N and of ratio over which likeness falls by e. Declared: measured cells are too few and
too unsure to say more (`docs/noise.md`)."""

ENOUGH = 4
"""Degrees of freedom from which an estimate says that sigma is small, and a test that finds optimizers equal that they
are. Below, the 90% interval of sigma spans more than a factor of 3.6."""

SHARING_LEVEL = 0.25
"""P-value of that test up to which optimizers keep sigmas of their own. A quarter, because to pool unequal sigmas costs
coverage and to keep equal ones apart costs a few degrees of freedom only (Bancroft and Han, JASA 72, 1977)."""

PAIRING_LEVEL = 0.05
"""P-value of the correlation between two configurations over common seeds up to which they are compared seed by seed.
Pairing by mistake makes an interval too narrow, so the usual strict level."""

PAIRING_PRIOR = 1.0
"""Degrees of freedom that the variance of an unpaired difference weighs against that of the paired ones."""

PAIRING_LEAST = 4
"""Common seeds without which no pairing is looked for: with three, correlation has one degree of freedom."""


class NoiseRegime(NamedTuple):
    """Where noise is measured: non-embedding parameters N and the data-to-model ratio."""

    parameters: float
    ratio: float


class Cell(NamedTuple):
    """What has one sigma: an optimizer in a regime."""

    optimizer: str
    regime: NoiseRegime


@dataclass(frozen=True, slots=True)
class Replicate:
    """The final loss (nats per token) of one run; ``config`` is anything that is equal for equal configurations."""

    cell: Cell
    config: Hashable
    seed: int
    loss: float


@dataclass(frozen=True, slots=True)
class SigmaLaw:
    """sigma(N) = ``sigma`` (N / ``parameters``)^-``exponent``, in nats: where the prior of every cell is centred.

    The default goes through 0.025 at nano-65k and 0.0011 at 124 million parameters (509 degrees of freedom, public
    logs). Two points make no law: it is a guess, and the prior's width says so. Nothing is assumed about the ratio.
    """

    sigma: float = 0.025
    parameters: float = 65536.0
    exponent: float = 0.41

    def at(self, parameters: float) -> float:
        """The law's sigma (nats) at N = ``parameters``."""
        return float(self.sigma * (parameters / self.parameters) ** -self.exponent)


@dataclass(frozen=True, slots=True)
class Spread:
    """The posterior of one cell's sigma (nats): ``sigma`` with ``freedom`` degrees, to be used with Student's t.

    ``replicates`` degrees of freedom are measured ones; ``prior`` and ``prior_freedom`` are what the law and the other
    cells say without them. ``shared`` says that all optimizers of the regime were pooled.
    """

    sigma: float
    freedom: float
    replicates: int
    prior: float
    prior_freedom: float
    shared: bool = False

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """The central interval of sigma in nats: freedom * sigma^2 over quantiles of chi-square."""
        from scipy.stats import chi2

        quantiles = chi2.ppf([(1 + level) / 2, (1 - level) / 2], self.freedom)
        low, high = self.sigma * np.sqrt(self.freedom / quantiles)
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Sharing:
    """Bartlett's test that the optimizers of a regime have one sigma; ``shared`` is what the model makes of it.

    Bartlett's and not Brown and Forsythe's: of three seeds one is always its own median, so that the latter sees
    nothing in the usual sweep, and it needs every loss where this one needs (s^2, d). Bartlett's statistic reacts to
    heavy tails as well, and then errs to the cheap side: sigmas stay apart, as with a small ``p``.
    """

    statistic: float
    p: float
    optimizers: int
    shared: bool


@dataclass(frozen=True, slots=True)
class Pairing:
    """Whether equal seeds make two configurations alike: their correlation over ``seeds`` common ones.

    ``p`` is the chance of such a correlation, or a larger one, where seeds explain nothing; ``helps`` where it is at
    most `PAIRING_LEVEL`.
    """

    correlation: float
    p: float
    seeds: int
    helps: bool


def tuning_error(sigma: float) -> float:
    """Standard deviation (nats) of what choosing by single runs of noise ``sigma`` leaves open (docs/compare.md)."""
    return max(TOLERANCE / ONE_SIDED_95, sigma)  # at the study's noise of 0.0012 its tolerance says more


class SpreadModel:
    """The noise of every cell, from all replicates in reach.

    Two runs of one cell, configuration and seed are refused with `InputError`, as is a loss that is not finite.
    ``prior_freedom`` fixes d0 and switches estimating it off; 0 leaves the prior out, and then a cell without
    replicates has no spread (`InputError`) and every figure is the textbook one.
    """

    def __init__(
        self, replicates: Iterable[Replicate], law: SigmaLaw | None = None, prior_freedom: float | None = None
    ) -> None:
        self.law, self.prior_freedom = law or SigmaLaw(), prior_freedom
        self.runs: dict[tuple[Cell, Hashable], dict[int, float]] = defaultdict(dict)
        for run in replicates:
            seeds = self.runs[run.cell, run.config]
            if run.seed in seeds:
                raise InputError(f"two runs of {run.cell.optimizer} have one configuration and seed {run.seed}")
            if not math.isfinite(run.loss):
                raise InputError(f"a replicate's loss must be finite, not {run.loss!r}; leave diverged runs out")
            seeds[run.seed] = run.loss
        squares: dict[Cell, list[float]] = defaultdict(list)
        freedoms: dict[Cell, int] = defaultdict(int)
        for (cell, _), seeds in self.runs.items():
            # About the first loss, so that equal losses have exactly no spread, and a shift leaves them so.
            first = next(iter(seeds.values()))
            away = [loss - first for loss in seeds.values()]
            mean = math.fsum(away) / len(away)
            squares[cell] += [(value - mean) ** 2 for value in away]
            freedoms[cell] += len(seeds) - 1
        self.measured: Mapping[Cell, tuple[float, int]] = {
            cell: (math.fsum(squares[cell]) / freedom, freedom)
            for cell, freedom in sorted(freedoms.items())
            if freedom > 0
        }
        """Variance s^2 (nats^2) and its degrees of freedom, of the cells with replicates."""
        self._spreads: dict[Cell, Spread] = {}

    def spread(self, optimizer: str, regime: NoiseRegime) -> Spread:
        """The posterior of the sigma of an optimizer in a regime, pooled over its optimizers where they share one."""
        cell = Cell(optimizer, regime)
        if cell in self._spreads:
            return self._spreads[cell]
        shared = (sharing := self.sharing(regime)) is not None and sharing.shared
        own = [
            (v, d) for other, (v, d) in self.measured.items() if (other.regime == regime if shared else other == cell)
        ]
        freedom = sum(d for _, d in own)
        variance = math.fsum(v * d for v, d in own) / freedom if freedom else 0.0
        prior, prior_freedom = self._prior(cell, shared)
        if not prior_freedom + freedom:
            raise InputError(f"no replicates of {optimizer} and no prior: its noise is unknown; run it with more seeds")
        if freedom and prior_freedom and self.prior_freedom is None:
            over = variance / prior**2  # distributed as F(d, d0) under the prior
            tail = float(fdtrc(freedom, prior_freedom, over))
            if freedom >= ENOUGH:  # a few nearly equal losses are mostly luck
                tail = min(tail, float(fdtr(freedom, prior_freedom, over)))
            prior_freedom *= min(1.0, max(tail / CONFLICT, LEAST_PART))
        posterior = (prior_freedom * prior**2 + freedom * variance) / (prior_freedom + freedom)
        spread = Spread(math.sqrt(posterior), prior_freedom + freedom, freedom, prior, prior_freedom, shared)
        self._spreads[cell] = spread
        return spread

    def sharing(self, regime: NoiseRegime) -> Sharing | None:
        """Whether the optimizers of a regime share one sigma; None where fewer than two have replicates.

        No difference found is taken for none only where each has `ENOUGH` degrees of freedom: with fewer a
        factor of five goes unseen more often than not.
        """
        cells = [known for cell, known in self.measured.items() if cell.regime == regime]
        if len(cells) < 2:
            return None
        variances, freedoms = zip(*cells, strict=True)
        statistic, p = bartlett(variances, freedoms)
        return Sharing(statistic, p, len(cells), p > SHARING_LEVEL and min(freedoms) >= ENOUGH)

    def pairing(self, one: tuple[Cell, Hashable], other: tuple[Cell, Hashable]) -> Pairing:
        """Whether two configurations (cell and configuration each) move together over the seeds that both have."""
        left, right = self.runs.get(one, {}), self.runs.get(other, {})
        common = sorted(left.keys() & right.keys())
        if len(common) < PAIRING_LEAST:
            return Pairing(0.0, 1.0, len(common), False)
        x, y = (np.array([losses[seed] for seed in common]) for losses in (left, right))
        x, y = x - x.mean(), y - y.mean()
        scale = float(np.sqrt((x @ x) * (y @ y)))
        correlation = float(np.clip(x @ y / scale, -1, 1)) if scale else 0.0
        rest = max(1 - correlation**2, 1e-300)
        p = float(stdtr(len(common) - 2, -correlation * math.sqrt((len(common) - 2) / rest)))
        return Pairing(correlation, p, len(common), p <= PAIRING_LEVEL)

    def difference(self, one: tuple[Cell, Hashable], other: tuple[Cell, Hashable]) -> LossDifference:
        """Mean loss of ``one`` less that of ``other``; raises `InputError` where either has no run.

        Seed by seed over the common seeds where that helps (`pairing`). Else over all runs: with the cell's one sigma
        within a cell, with two by Welch and Satterthwaite between cells that do not share one.
        """
        left, right = self.runs.get(one, {}), self.runs.get(other, {})
        if not left or not right:
            raise InputError("a difference needs a finished run of each configuration")
        if self.pairing(one, other).helps:
            apart = np.array([left[seed] - right[seed] for seed in sorted(left.keys() & right.keys())])
            unpaired, _ = self._error(one[0], 1, other[0], 1)
            # Only pairs that look alike come here, some by luck: their spread is drawn towards that of unpaired ones.
            rest = len(apart) - 1
            variance = (PAIRING_PRIOR * unpaired**2 + rest * float(apart.var(ddof=1))) / (PAIRING_PRIOR + rest)
            error = math.sqrt(variance / len(apart))
            return LossDifference(float(apart.mean()), error, len(apart) - 1, True)
        value = math.fsum(left.values()) / len(left) - math.fsum(right.values()) / len(right)
        error, freedom = self._error(one[0], len(left), other[0], len(right))
        return LossDifference(value, error, freedom, False)

    def resolution(
        self, one: Cell, runs: int, other: Cell, others: int, confidence: float = CONFIDENCE, power: float = 0.5
    ) -> float:
        """The smallest true difference (nats) between means over that many seeds that is found at ``confidence``.

        One-sided, unpaired, with the sigma known as it is now. ``power`` is the chance to find it: at 0.5 it is just
        the threshold, at 0.8 about one and a half of it.
        """
        error, freedom = self._error(one, runs, other, others)
        return (student(confidence, freedom) + student(power, freedom)) * error

    def seeds_needed(
        self, resolution: float, one: Cell, other: Cell, confidence: float = CONFIDENCE, power: float = 0.5
    ) -> int:
        """Seeds of each side with which their comparison reaches ``resolution`` (nats); raises `InputError` below 0."""
        if not resolution > 0:
            raise InputError(f"a resolution must be a positive number of nats, not {resolution!r}")
        # The degrees of freedom do not depend on n when both sides have n, so the square root law is exact.
        single = self.resolution(one, 1, other, 1, confidence, power)
        return max(1, math.ceil((single / resolution) ** 2 * (1 - 1e-12)))

    def tolerance(self, regime: NoiseRegime, optimizers: Iterable[str], floor: float = 0.0) -> float:
        """One bar (nats) for all ``optimizers`` of a regime: what two single runs differ by at `CONFIDENCE`, or more.

        It is the largest of the optimizers' own bars, so that none moves on less than its own noise asks for. An own
        bar is q(freedom) sqrt(2) sigma, q Student's quantile; without replicates it is the prior's.

        Fewer replicates never make it stricter in this sense: over regimes drawn from the prior, the mean of the bar's
        logarithm does not fall as replicates are dropped (simulated in the tests). No bar can have that for every true
        sigma: where it is far above the prior, only replicates can say so, and they raise the bar. Nor for every
        sample, but one lucky set of d replicates lowers sigma by no more than a factor of sqrt(d0 / (d0 + d)).
        """
        spreads = [self.spread(optimizer, regime) for optimizer in optimizers]
        return max([floor, *(student(CONFIDENCE, one.freedom) * math.sqrt(2) * one.sigma for one in spreads)])

    def _error(self, one: Cell, runs: int, other: Cell, others: int) -> tuple[float, float]:
        """Standard error (nats) of a difference of means over so many runs, and its degrees of freedom."""
        first, second = self.spread(*one), self.spread(*other)
        variances = [first.sigma**2 / runs, second.sigma**2 / others]
        # One estimate stands on both sides within a cell, and where the regime's optimizers share theirs.
        same = one == other or (one.regime == other.regime and first.shared)
        freedom = first.freedom if same else satterthwaite(variances, [first.freedom, second.freedom])
        return math.sqrt(math.fsum(variances)), freedom

    def _prior(self, cell: Cell, shared: bool) -> tuple[float, float]:
        """s0 (nats) and d0 of a cell, from the law and all cells that are not its own evidence."""
        if self.prior_freedom == 0:
            return self.law.at(cell.regime.parameters), 0.0
        cells, residuals, noise = self._evidence
        keep = [k for k, c in enumerate(cells) if (c.regime != cell.regime if shared else c != cell)]
        mean, variance = 0.0, LEVEL + self.distance
        if keep:
            others = [cells[k] for k in keep]
            near = LEVEL + self.distance * _likeness([cell], others)[0]  # (cells,)
            covariance = LEVEL + self.distance * self._alike[np.ix_(keep, keep)] + np.diag(noise[keep])
            weights = np.linalg.solve(covariance, near)
            mean, variance = float(weights @ residuals[keep]), variance - float(weights @ near)
        if self.prior_freedom is None:
            freedom = min(max(2 * trigamma_inverse(max(variance, 1e-3)), LEAST_PRIOR), MOST_PRIOR)
        else:
            freedom = self.prior_freedom
        # s0^2 stands at the mean of log sigma^2. The prior with exactly that mean has a smaller s0^2, and is right for
        # one cell. But Welch's degrees of freedom suit sums of estimates, not of posteriors: intervals between
        # optimizers would cover 86% instead of 90% at d = 2. So they cover 90%, those within a cell up to 92%.
        return self.law.at(cell.regime.parameters) * math.exp(mean / 2), freedom

    @cached_property
    def _evidence(self) -> tuple[list[Cell], Matrix, Matrix]:
        """Cells with a spread; log s^2 over the law, free of its bias; and its sampling variance; (cells,) each.

        A cell without spread (equal losses) says nothing about others: its logarithm is minus infinity.
        """
        cells = [cell for cell, (variance, _) in self.measured.items() if variance > 0]
        half = np.array([self.measured[cell][1] / 2 for cell in cells])
        logs = np.array([math.log(self.measured[c][0]) - 2 * math.log(self.law.at(c.regime.parameters)) for c in cells])
        return cells, logs - digamma(half) + np.log(half), polygamma(1, half)

    @cached_property
    def _alike(self) -> Matrix:
        """`_likeness` between all cells with a spread, (cells, cells)."""
        return _likeness(self._evidence[0], self._evidence[0])

    @cached_property
    def distance(self) -> float:
        """The variance of log sigma^2 between cells: where the likelihood of all log s^2 times the default peaks.

        The default is a scaled inverse chi-square with `DEFAULT_CELLS` degrees of freedom about `DEFAULT_SPREAD`.
        """
        cells, residuals, noise = self._evidence
        grid = np.geomspace(polygamma(1, MOST_PRIOR / 2), polygamma(1, LEAST_PRIOR / 2), 61)
        default = np.log(DEFAULT_SPREAD / grid) * (1 + DEFAULT_CELLS / 2) - DEFAULT_CELLS * DEFAULT_SPREAD / grid / 2
        if not cells:
            return DEFAULT_SPREAD
        covariances = LEVEL + grid[:, None, None] * self._alike + np.diag(noise)  # (grid, cells, cells)
        fits = log_densities(covariances, np.broadcast_to(residuals, (len(grid), len(cells))))
        return float(grid[np.argmax(fits + default)])


def _likeness(rows: Sequence[Cell], columns: Sequence[Cell]) -> Matrix:
    """Correlation of log sigma^2 between cells, (rows, columns)."""
    places = [np.log(np.reshape([cell.regime for cell in cells], (-1, 2))) for cells in (rows, columns)]  # (cells, 2)
    apart = np.abs(places[0][:, None] - places[1][None]) / np.array([SCALE_REACH, RATIO_REACH])  # (rows, columns, 2)
    same = np.array([[one.optimizer == other.optimizer for other in columns] for one in rows]).reshape(apart.shape[:2])
    return np.asarray(np.exp(-apart.sum(axis=2)) * np.where(same, 1, OPTIMIZERS))
