"""A falling and convex L(D) that need not be one power law, and what the data leave open of it.

One law L = alpha D^-B + beta over all budgets is stiff: a run that lies off it moves D_eff everywhere, and beyond the
longest run its interval forgets that the next run may lie off it too. Here the exponent drifts instead. Between two
neighbouring knots in log D the loss is a power law with a floor; at a knot loss and slope are continuous, and log B
takes a random step:

    L(x) = L_j - S_j (1 - exp(-B_j (x - x_j))) / B_j,   x = log D, S_j = -dL/dx at x_j,
    S_j+1 = S_j exp(-B_j (x_j+1 - x_j)),                log B_j+1 - log B_j ~ N(0, drift^2 (distance of the middles))

S and B are positive, so that every such law falls and is convex in log D. Without drift it is the power law. Loss and
slope at one point are free, and the mean of log B has a prior (`EXPONENT`, `EXPONENT_SPREAD`), which leaves the fitted
law alone among `USUAL` exponents. Beyond the budgets that were run nothing is measured: there the law goes on with the
last exponent, and draws of it let the exponent drift on.

The fit minimises squared residuals and squared steps, each over its standard deviation (damped Gauss-Newton, for many
data sets at once). Draws perturb every loss and every step and are fitted anew (randomize then optimize: Bardsley,
Solonen, Haario and Laine, SIAM J. Sci. Comput. 36, 2014), which for a linear model samples the posterior. Where the fit
misses its points by more than losses and drift explain, both are taken as much larger (Birge 1932).

Units: tokens and nats per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tuneopt.analysis.runs import Array
from tuneopt.spec import InputError

EXPONENT, EXPONENT_SPREAD = 0.4, 0.5
"""Prior of the exponent: its median, and the standard deviation of its logarithm, so that 90% lie between 0.18 and
0.91."""

USUAL = (0.28, 0.57)
"""Exponents among which the fitted law is chosen by the data alone. Published laws of loss over tokens lie here, and
the tables on which this was tried. Outside, the prior pulls."""

DRIFT = 0.5
"""Standard deviation by which log B drifts over one unit of log D. Chosen on left-out runs (docs/analysis.md)."""

LIMITS = (0.005, 4.0)
"""Exponents beyond which none goes: a straight line in log D, and a law that is at its floor after one doubling."""

WIDEST = math.log(2) * 1.01
"""Widest distance of two knots in log D: wider gaps between budgets are cut in equal parts of at most a doubling."""

OUTER = 8
"""Doublings beyond either end over which a drawn exponent drifts on; further out the last one stays."""

_LOG_LIMITS = np.log(LIMITS)
_LOG_USUAL = np.log(USUAL)
_FLATTEST = math.log(1e-9)
_STEPS = 60
_BLOCK = 2**15
"""Derivatives that are held at once: 256 KiB of them."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalLaw:
    """One law, or a batch of them; ``losses``, ``slopes`` and ``exponents`` have the batch's shape in front.

    ``knots``: (m + 1,), log tokens, ascending. ``losses``: (..., m + 1), nats at the knots. ``slopes``: (..., m + 1),
    the logarithm of -dL/d(log D) there. ``exponents``: (..., m), B between knots. ``budgets``: (n,), tokens that were
    fitted, ascending. ``misfit`` is the factor, 1 or more, by which losses and drift were widened.
    """

    knots: Array
    losses: Array
    slopes: Array
    exponents: Array
    budgets: Array
    misfit: float = 1.0

    def loss(self, budgets: npt.ArrayLike) -> Array:
        """L(D) in nats; shape: that of the batch, then that of ``budgets``. The outer parts go on for ever."""
        x = np.log(np.asarray(budgets, float))
        part = np.clip(np.searchsorted(self.knots, x, side="right") - 1, 0, len(self.knots) - 2)
        exponent, away = self.exponents[..., part], x - self.knots[part]
        return np.asarray(
            self.losses[..., part] + np.exp(self.slopes[..., part]) * np.expm1(-exponent * away) / exponent
        )

    def budget(self, losses: npt.ArrayLike) -> Array:
        """The D at which L(D) = loss, in tokens; infinite at or under the floor. ``losses`` broadcasts with the batch.

        An axis of several losses for each law stands in front of the batch.
        """
        losses = np.asarray(losses, float)
        part = np.clip((self.losses > losses[..., None]).sum(axis=-1) - 1, 0, self.exponents.shape[-1] - 1)
        start, slope, exponent = (self._at(values, part) for values in (self.losses, self.slopes, self.exponents))
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            fallen = (start - losses) * exponent / np.exp(slope)  # share of the way to the part's floor
            away = np.where(fallen < 1, -np.log1p(-np.minimum(fallen, 1)), np.inf) / exponent
            return np.asarray(np.exp(self.knots[part] + away))

    def _at(self, values: Array, part: npt.NDArray[np.intp]) -> Array:
        """One value for each law: that of its ``part``."""
        wide = np.broadcast_to(values, part.shape + values.shape[-1:])
        return np.asarray(np.take_along_axis(wide, part[..., None], axis=-1)[..., 0])

    def bounds(self, loss: float) -> tuple[float, float]:
        """Budgets (tokens) between which every falling convex law through this one's points reaches ``loss``.

        A convex law lies under the chord between two neighbours, and above the chords of the next pairs drawn on. So
        no form is assumed, and no noise: the points are this single law's own at the budgets that were fitted.
        Beyond the longest run nothing bounds D_eff from above (infinity), as the loss may level off.
        """
        x, y = np.log(self.budgets), self.loss(self.budgets)

        def reach(pair: int) -> float:
            """Where the straight line through points ``pair`` and ``pair + 1`` has the loss."""
            fall = y[pair] - y[pair + 1]
            away = (y[pair] - loss) / fall if fall > 0 else math.inf if loss < y[pair] else -math.inf
            return float(x[pair] + away * (x[pair + 1] - x[pair]))

        place = int(np.sum(y > loss))  # points above the loss
        if place == 0:
            return _tokens(reach(0)), float(self.budgets[0])
        if place == len(x):
            return _tokens(reach(len(x) - 2)), math.inf
        low = float(x[place - 1])
        if place > 1:
            low = max(low, reach(place - 2))
        if place < len(x) - 1:
            low = max(low, reach(place))
        high = reach(place - 1)
        return _tokens(min(low, high)), _tokens(high)


def _tokens(log_tokens: float) -> float:
    return math.exp(log_tokens) if log_tokens < 700 else math.inf


def fit_local(budgets: npt.ArrayLike, losses: npt.ArrayLike, errors: npt.ArrayLike, drift: float = DRIFT) -> LocalLaw:
    """The law that explains the losses at ``budgets`` best; those of a usual power law give that law.

    ``budgets``: (n,) tokens, n >= 2, distinct. ``losses``: (n,) nats. ``errors``: (n,), their standard deviations,
    above 0. Two budgets show no bend: theirs is that of `EXPONENT`. Raises `InputError` for fewer, or a bad number.
    """
    return _Problem(budgets, losses, errors, drift).best


def draw_local(
    budgets: npt.ArrayLike,
    losses: npt.ArrayLike,
    errors: npt.ArrayLike,
    drawn: Array,
    rng: np.random.Generator,
    drift: float = DRIFT,
) -> LocalLaw:
    """Laws that the data leave possible, as a batch (k,): one for each row of ``drawn`` (k, n), perturbations in nats.

    ``drawn`` is what is added to the losses, of about the size of ``errors``; the rest is as in `fit_local`.
    """
    return _Problem(budgets, losses, errors, drift).draw(np.asarray(drawn, float), rng)


class _Problem:
    """One data set: its knots, and what a law is judged by.

    A law is a row of parameters (2 + m): loss and log slope at the first knot, log B after it, and the further steps of
    log B in their standard deviations, so that a small drift leaves the search as easy as a large one.
    """

    def __init__(self, budgets: npt.ArrayLike, losses: npt.ArrayLike, errors: npt.ArrayLike, drift: float) -> None:
        points, targets, errors = (np.asarray(part, float) for part in (budgets, losses, errors))
        if points.ndim != 1 or len(points) < 2 or len(np.unique(points)) != len(points):
            raise InputError("a loss law needs at least two different token budgets; train the baseline at another one")
        good = (
            np.all(np.isfinite(points)) and np.all(points > 0) and np.all(np.isfinite(targets)) and np.all(errors > 0)
        )
        if not good or targets.shape != points.shape:
            raise InputError("a loss law needs finite losses at positive token budgets; leave diverged trials out")
        order = np.argsort(points)
        self.budgets, self.targets, self.errors = points[order], targets[order], errors[order]
        x = np.log(self.budgets)
        parts = [max(1, math.ceil(gap / WIDEST)) for gap in np.diff(x)]
        ends = np.concatenate([[0], np.cumsum(parts)])
        self.knots = np.interp(np.arange(ends[-1] + 1), ends, x)
        self.points = ends  # which knots are budgets
        self.widths = np.diff(self.knots)
        self.drift = drift
        middles = self.knots[:-1] + self.widths / 2
        self.step_errors = self.drift * np.sqrt(np.diff(middles))
        # Loss and slope at one point are free, so n - 2 squares are left to judge the others by.
        self.freedom = len(points) - 2
        start = self._start()
        self.parameters, cost = self._solve(start[None], self.targets[None], None, 1.0)
        self.misfit = max(1.0, math.sqrt(float(cost[0]) / self.freedom)) if self.freedom else 1.0

    def _start(self) -> Array:
        """A power law of the usual exponent with the fall that the ends show, or a little one where they rise."""
        span = float(self.knots[-1] - self.knots[0])
        fall = max(float(self.targets[0] - self.targets[-1]), 0.1 * float(self.errors.max()))
        slope = math.log(fall * EXPONENT / -math.expm1(-EXPONENT * span))
        return np.concatenate([[self.targets[0], slope, math.log(EXPONENT)], np.zeros(len(self.step_errors))])

    def _log_exponents(self, rows: Array) -> Array:
        """log B between knots, (k, m)."""
        logs = np.cumsum(np.concatenate([rows[:, 2:3], rows[:, 3:] * self.step_errors], axis=1), axis=1)
        return np.asarray(np.clip(logs, *_LOG_LIMITS))

    def _along(self, rows: Array) -> tuple[Array, Array]:
        """Losses and log slopes at the knots, (k, m + 1) each."""
        exponents = np.exp(self._log_exponents(rows))
        slopes = rows[:, 1:2] - _cumulated(exponents * self.widths)
        fallen = np.exp(slopes[:, :-1]) * -np.expm1(-exponents * self.widths) / exponents
        return rows[:, :1] - _cumulated(fallen), slopes

    def _residuals(self, rows: Array, targets: Array, pushed: Array | None) -> Array:
        """What is squared and summed, (k, n + m): losses, the mean exponent, then its steps, over their errors.

        ``pushed`` (k, m) moves the prior and the steps of each data set, in their standard deviations. Without it the
        prior is flat among `USUAL` exponents, so that it moves no law that looks like others.
        """
        losses, _ = self._along(rows)
        mean = self._log_exponents(rows) @ (self.widths / self.widths.sum())
        steps = rows[:, 3:]
        if pushed is None:
            away = (mean - np.clip(mean, *_LOG_USUAL)) / EXPONENT_SPREAD
        else:
            away, steps = (mean - math.log(EXPONENT)) / EXPONENT_SPREAD - pushed[:, 0], steps - pushed[:, 1:]
        return np.concatenate([(losses[:, self.points] - targets) / self.errors, away[:, None], steps], axis=1)

    def _step(self, rows: Array, residuals: Array, flat_prior: bool, damping: Array) -> Array:
        """The damped step of each data set, (k, p): -(J'J + damping diag(J'J))^-1 J'r, J the residuals' derivatives.

        In blocks of data sets, as their derivatives then stay in the processor's cache.
        """
        block = max(1, _BLOCK // ((len(self.points) + 1) * rows.shape[1]))
        steps = np.empty_like(rows)
        for start in range(0, len(rows), block):
            part = slice(start, start + block)
            squares, gradient = self._normal(rows[part], residuals[part], flat_prior)
            diagonal = np.einsum("kii->ki", squares)
            diagonal += damping[part, None] * diagonal + 1e-12
            steps[part] = -np.linalg.solve(squares, gradient[..., None])[..., 0]
        return steps

    def _normal(self, rows: Array, residuals: Array, flat_prior: bool) -> tuple[Array, Array]:
        """J'J (k, p, p) and J'r (k, p) for the derivatives J of the residuals by the p parameters."""
        logs, shares = self._log_exponents(rows), self.widths / self.widths.sum()
        free = (logs > _LOG_LIMITS[0]) & (logs < _LOG_LIMITS[1])  # at a limit an exponent does not move
        exponents = np.exp(logs)
        falls = exponents * self.widths  # of the log slope along a part
        left = np.exp(-falls)
        starts = np.exp(rows[:, 1:2] - _cumulated(falls)[:, :-1])
        fallen = starts * (1 - left) / exponents
        own = starts * self.widths * left - fallen  # of a part's fall by its own log B
        below = _cumulated(fallen)
        at_points = below[:, self.points]
        mean = logs @ shares
        pulled = (mean < _LOG_USUAL[0]) | (mean > _LOG_USUAL[1]) if flat_prior else np.ones(len(rows), bool)
        points = len(self.points)
        scale = np.concatenate([[1.0], self.step_errors])  # of log B by the parameters from the third on
        # A knot's loss depends on log B of the parts before it alone: by their own fall, and by that of the parts
        # between, which begin flatter.
        before = (self.points[:, None] > np.arange(len(self.widths))) / self.errors[:, None]
        bends = (falls * free)[:, None] * (at_points[..., None] - below[:, None, 1:]) - (own * free)[:, None]
        bends *= before
        slopes = np.zeros((len(rows), points + 1, rows.shape[1]))
        slopes[:, :points, 0] = 1 / self.errors
        slopes[:, :points, 1] = -at_points / self.errors
        slopes[:, :points, 2:] = np.cumsum(bends[..., ::-1], axis=-1)[..., ::-1] * scale
        pull = shares * free * (pulled / EXPONENT_SPREAD)[:, None]
        slopes[:, points, 2:] = np.cumsum(pull[:, ::-1], axis=1)[:, ::-1] * scale
        turned = np.swapaxes(slopes, 1, 2)
        squares, gradient = turned @ slopes, (turned @ residuals[:, : points + 1, None])[..., 0]
        steps = np.arange(3, rows.shape[1])
        squares[:, steps, steps] += 1.0  # each step of log B is a residual of its own
        gradient[:, 3:] += residuals[:, points + 1 :]
        return squares, gradient

    def _solve(self, rows: Array, targets: Array, pushed: Array | None, precision: float) -> tuple[Array, Array]:
        """The best parameters (k, 2 + m) for each data set from a start, and their sums of squares (k,).

        Levenberg and Marquardt's damped steps. ``precision`` scales when it is enough:
        until no sum of squares falls by more than 1e-9 of it, or of one.
        """
        rows = rows.copy()
        cost = np.sum(self._residuals(rows, targets, pushed) ** 2, axis=1)
        damping = np.full(len(rows), 1e-3)
        going = np.arange(len(rows))  # a few data sets take far longer than the rest, which then are left alone
        for _ in range(_STEPS):
            here, aims, pushes = rows[going], targets[going], None if pushed is None else pushed[going]
            residuals = self._residuals(here, aims, pushes)
            step = self._step(here, residuals, pushes is None, damping[going])
            step[:, 1:] = np.clip(step[:, 1:], -2, 2)
            trial = here + step
            trial[:, 1] = np.maximum(trial[:, 1], _FLATTEST)
            trial[:, 2] = np.clip(trial[:, 2], *_LOG_LIMITS)
            fresh = np.sum(self._residuals(trial, aims, pushes) ** 2, axis=1)
            better = fresh < cost[going]
            gained = np.where(better, cost[going] - fresh, 0.0)
            rows[going[better]], cost[going[better]] = trial[better], fresh[better]
            damping[going] = np.where(better, damping[going] / 5, damping[going] * 8)
            ended = (gained <= 1e-9 * precision * (1 + cost[going])) & (better | (damping[going] > 1e6))
            going = going[~ended]
            if not len(going):
                break
        return rows, cost

    @property
    def best(self) -> LocalLaw:
        """The fitted law, which goes on with its outermost exponents."""
        losses, slopes = self._along(self.parameters)
        law = LocalLaw(self.knots, losses[0], slopes[0], np.exp(self._log_exponents(self.parameters)[0]), self.budgets)
        return replace(law, misfit=self.misfit)

    def draw(self, drawn: Array, rng: np.random.Generator) -> LocalLaw:
        """A law for each perturbation of the losses (k, n), with exponents that drift on beyond the budgets."""
        pushed = self.misfit * rng.standard_normal((len(drawn), len(self.widths)))
        start = np.repeat(self.parameters, len(drawn), axis=0)
        rows, _ = self._solve(start, self.targets + self.misfit * drawn, pushed, 1e3)
        step, shape = math.log(2), (len(drawn), OUTER)
        sizes = self.misfit * self.drift * np.sqrt(np.full(OUTER, step))

        def walk(logs: Array, width: float) -> Array:
            sizes[0] = self.misfit * self.drift * math.sqrt((width + step) / 2)
            away = np.cumsum(sizes * rng.standard_normal(shape), axis=1)
            return np.asarray(np.exp(np.clip(logs[:, None] + away, *_LOG_LIMITS)))

        inner = self._log_exponents(rows)
        right, left = walk(inner[:, -1], self.widths[-1]), walk(inner[:, 0], self.widths[0])  # outwards, (k, OUTER)
        losses, slopes = self._along(rows)
        before = left * step
        first_slopes = slopes[:, :1] + np.cumsum(before, axis=1)
        first_losses = losses[:, :1] + np.cumsum(np.exp(first_slopes) * -np.expm1(-before) / left, axis=1)
        after = right * step
        last_slopes = slopes[:, -1:] - np.cumsum(after, axis=1)
        fallen = np.exp(last_slopes + after) * -np.expm1(-after) / right
        last_losses = losses[:, -1:] - np.cumsum(fallen, axis=1)
        outer = step * np.arange(1, OUTER + 1)
        return LocalLaw(
            np.concatenate([self.knots[0] - outer[::-1], self.knots, self.knots[-1] + outer]),
            np.concatenate([first_losses[:, ::-1], losses, last_losses], axis=1),
            np.concatenate([first_slopes[:, ::-1], slopes, last_slopes], axis=1),
            np.concatenate([left[:, ::-1], np.exp(inner), right], axis=1),
            self.budgets,
            self.misfit,
        )


def _cumulated(parts: Array) -> Array:
    """Sums of the parts (k, m) before each knot, (k, m + 1)."""
    return np.concatenate([np.zeros((len(parts), 1)), np.cumsum(parts, axis=1)], axis=1)
