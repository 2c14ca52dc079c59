"""The falling and convex law whose exponent drifts: what it is, what it recovers, and what its draws leave open."""

import numpy as np
import pytest
from analysis_samples import PARAMETERS, RATIOS, law
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq, minimize

from tuneopt.analysis.local_law import EXPONENT, LIMITS, LocalLaw, draw_local, fit_local
from tuneopt.spec import InputError

BUDGETS = 20.0 * PARAMETERS * np.array(RATIOS)
ERRORS = np.full(4, 0.002)


def crooked(seed: int, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Budgets up to eight times apart, and losses that fall but need not be convex."""
    rng = np.random.default_rng(seed)
    budgets = 1e9 * np.exp(np.cumsum(rng.uniform(0.3, 2.1, count)))
    return budgets, 3.5 - np.cumsum(rng.uniform(0.001, 0.1, count))


def on_a_line(found: LocalLaw, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(np.log(found.budgets[0]) - 3, np.log(found.budgets[-1]) + 3, count)
    return x, found.loss(np.exp(x))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 7))
def test_every_law_falls_and_is_convex_in_log_tokens_whatever_the_losses_are(seed: int, count: int) -> None:
    budgets, losses = crooked(seed, count)
    found = fit_local(budgets, losses, np.full(count, 0.003))
    drawn = draw_local(budgets, losses, np.full(count, 0.003), np.zeros((5, count)), np.random.default_rng(seed))
    for one in (found, drawn):
        _, values = on_a_line(one)
        assert np.all(np.diff(values, axis=-1) < 1e-12)
        assert np.all(np.diff(values, 2, axis=-1) > -1e-9)
    assert found.misfit >= 1


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 0.55), st.floats(0.05, 2.0), st.floats(0.5, 4.0))
def test_a_usual_power_law_is_recovered_inside_and_beyond(exponent: float, fall: float, floor: float) -> None:
    ratio = np.array([1.0, 2.0, 3.0, 16.0])

    def truth(x: np.ndarray) -> np.ndarray:
        return np.asarray(fall * x**-exponent + floor)

    found = fit_local(1e9 * ratio, truth(ratio), np.full(4, 0.002))
    assert found.exponents == pytest.approx(np.full(len(found.exponents), exponent), rel=1e-5)
    elsewhere = np.array([0.2, 1.5, 8.0, 60.0])
    assert found.loss(1e9 * elsewhere) == pytest.approx(truth(elsewhere), abs=1e-6)
    assert found.misfit == 1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.02, 0.98))
def test_budget_inverts_loss(seed: int, where: float) -> None:
    budgets, losses = crooked(seed)
    found = fit_local(budgets, losses, np.full(5, 0.01))
    x = np.log(budgets[0] / 4) + where * np.log(16 * budgets[-1] / budgets[0])
    assert np.log(found.budget(found.loss(np.exp(x)))) == pytest.approx(x, abs=1e-5)


def test_between_its_knots_the_slope_is_continuous_and_the_loss_its_integral() -> None:
    budgets, losses = crooked(3)
    found = fit_local(budgets, losses, np.full(5, 0.001))
    for knot in found.knots[1:-1]:
        slopes = [
            (found.loss(np.exp(knot + s * 2e-4)) - found.loss(np.exp(knot + s * 1e-4))) / (s * 1e-4) for s in (-1, 1)
        ]
        assert slopes[0] == pytest.approx(slopes[1], rel=2e-3)

    def slope(x: float) -> float:  # from the definition: log S falls by B along the way
        width = np.clip(x - found.knots[:-1], 0, np.diff(found.knots))
        return float(np.exp(found.slopes[0] - np.sum(found.exponents * width)))

    fallen, _ = quad(slope, found.knots[0], found.knots[-1], points=list(found.knots), limit=200)
    assert found.loss(budgets[0]) - found.loss(budgets[-1]) == pytest.approx(fallen, rel=1e-6)


def test_no_general_solver_finds_a_better_fit() -> None:
    """An independent statement of what is minimised, and scipy's simplex started from the fit and from elsewhere."""
    ratio = np.array(RATIOS, float)
    losses, errors, drift = np.array([3.53, 3.41, 3.335, 3.262]), 0.002, 0.5
    found = fit_local(1e9 * ratio, losses, np.full(4, errors), drift)

    def cost(parts: np.ndarray) -> float:
        loss, slope, logs = parts[0], np.exp(parts[1]), parts[2:]
        total = ((loss - losses[0]) / errors) ** 2
        for place, exponent in enumerate(np.exp(logs)):
            loss -= slope * (1 - 2**-exponent) / exponent
            slope *= 2**-exponent
            total += ((loss - losses[place + 1]) / errors) ** 2
        total += float(np.sum((np.diff(logs) / drift) ** 2 / np.log(2)))
        mean = logs.mean()
        return float(total + ((mean - np.clip(mean, np.log(0.28), np.log(0.57))) / 0.5) ** 2)

    own = np.concatenate([[found.losses[0], found.slopes[0]], np.log(found.exponents)])
    starts = (own, [3.53, np.log(0.2), *np.log([0.4, 0.4, 0.4])], [3.53, np.log(0.2), *np.log([0.6, 0.3, 0.3])])
    options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 40_000, "maxfev": 40_000}
    best = min(minimize(cost, start, method="Nelder-Mead", options=options).fun for start in starts)
    assert cost(own) == pytest.approx(best, abs=1e-4)
    assert found.misfit == pytest.approx(max(1, np.sqrt(cost(own) / 2)), rel=1e-4)


def test_a_misfit_is_told_by_its_size() -> None:
    bump = np.array([0.0, 0.02, -0.02, 0.0])
    assert fit_local(BUDGETS, law(BUDGETS), ERRORS).misfit == 1
    one, two = (fit_local(BUDGETS, law(BUDGETS) + size * bump, ERRORS).misfit for size in (1, 2))
    assert 2 < one < two < 4 * one


def test_draws_without_drift_are_the_power_laws_that_noise_allows() -> None:
    """With the exponent held, the spread of a fitted value is that of linear theory around the fit."""
    rng = np.random.default_rng(0)
    drawn = draw_local(BUDGETS, law(BUDGETS), ERRORS, ERRORS * rng.standard_normal((4000, 4)), rng, drift=0.0)
    inner = drawn.exponents[:, 8:-8]
    assert inner.std(axis=0) == pytest.approx(inner.std(axis=0)[0], rel=0.01)  # one exponent for all parts
    x = BUDGETS / BUDGETS[0]
    power = x**-0.495
    parts = np.stack([np.ones(4), power, power * np.log(x)], axis=1) / ERRORS[:, None]
    # The prior is one more observation, of log B: with error 0.5, seen through the third parameter.
    amplitude = 19421.6 * BUDGETS[0] ** -0.495
    prior = np.array([0.0, 0.0, 1 / (0.5 * 0.495 * amplitude)])
    covariance = np.linalg.inv(parts.T @ parts + np.outer(prior, prior))
    expected = np.sqrt(np.diag(parts @ covariance @ parts.T)) * ERRORS
    assert drawn.loss(BUDGETS).std(axis=0) == pytest.approx(expected, rel=0.06)


def test_drift_widens_what_is_beyond_and_hardly_what_is_between() -> None:
    rng = np.random.default_rng(1)
    pushes = ERRORS * rng.standard_normal((2000, 4))
    still, loose = (draw_local(BUDGETS, law(BUDGETS), ERRORS, pushes, rng, drift=drift) for drift in (0.0, 0.5))
    between, beyond = 20 * PARAMETERS * 2.8, 20 * PARAMETERS * 32.0
    assert loose.loss(between).std() < 1.25 * still.loss(between).std()
    assert loose.loss(beyond).std() > 1.3 * still.loss(beyond).std()
    assert np.all((loose.exponents >= LIMITS[0]) & (loose.exponents <= LIMITS[1]))


def test_two_budgets_have_the_usual_bend_and_their_draws_others() -> None:
    found = fit_local(BUDGETS[:2], law(BUDGETS[:2]), ERRORS[:2])
    assert found.exponents == pytest.approx([EXPONENT]) and found.loss(BUDGETS[:2]) == pytest.approx(law(BUDGETS[:2]))
    rng = np.random.default_rng(2)
    drawn = draw_local(BUDGETS[:2], law(BUDGETS[:2]), ERRORS[:2], np.zeros((3000, 2)), rng)
    logs = np.log(drawn.exponents[:, 8])
    assert logs.mean() == pytest.approx(np.log(EXPONENT), abs=0.03) and logs.std() == pytest.approx(0.5, rel=0.1)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(-0.02, 1.1))
def test_form_free_bounds_hold_every_falling_convex_law_through_the_points(seed: int, share: float) -> None:
    """Another law through the same points: straight lines between them, which are convex where the points are."""
    budgets, losses = crooked(seed)
    found = fit_local(budgets, losses, np.full(5, 1e-3))
    points = found.loss(budgets)
    loss = points[0] + share * (points[-1] - points[0])
    low, high = found.bounds(loss)
    assert low * (1 - 1e-9) <= float(found.budget(loss)) <= high * (1 + 1e-9)
    if points[-1] <= loss <= points[0]:
        chord = np.exp(np.interp(-loss, -points, np.log(budgets)))
        assert high == pytest.approx(chord, rel=1e-6) and low <= chord * (1 + 1e-9)
        assert budgets[0] * (1 - 1e-9) <= low and high <= budgets[-1] * (1 + 1e-9)


def test_beyond_the_longest_run_only_the_last_chord_bounds() -> None:
    """Muon's published loss at 130M and 8x over AdamW's four runs: 1.30 at least, and nothing above."""
    losses = np.array([3.529143, 3.407787, 3.321656, 3.260564])
    low, high = fit_local(BUDGETS, losses, np.full(4, 1e-4)).bounds(3.237313)
    assert low / BUDGETS[-1] == pytest.approx(2 ** ((3.260564 - 3.237313) / (3.321656 - 3.260564)), rel=2e-3)
    assert high == np.inf
    # Above the shortest run: no further down than its chord drawn on, and not above the run itself.
    low, high = fit_local(BUDGETS, losses, np.full(4, 1e-4)).bounds(3.60)
    assert 0.6 * BUDGETS[0] < low < high == pytest.approx(BUDGETS[0])


def test_losses_that_do_not_fall_give_a_law_that_hardly_does() -> None:
    found = fit_local(BUDGETS, [3.3, 3.31, 3.3, 3.305], np.full(4, 0.002))
    assert found.loss(BUDGETS[0]) - found.loss(BUDGETS[-1]) < 0.006
    assert np.all(np.isfinite(found.loss(BUDGETS)))


@pytest.mark.parametrize(
    ("budgets", "losses", "errors"),
    [
        ([1e9], [3.0], [0.1]),
        ([1e9, 1e9], [3.0, 2.9], [0.1, 0.1]),
        ([1e9, 2e9], [3.0, np.nan], [0.1, 0.1]),
        ([1e9, -2e9], [3.0, 2.9], [0.1, 0.1]),
        ([1e9, 2e9], [3.0, 2.9], [0.1, 0.0]),
    ],
)
def test_what_cannot_be_fitted_is_refused(budgets: list[float], losses: list[float], errors: list[float]) -> None:
    with pytest.raises(InputError, match="loss law needs"):
        fit_local(budgets, losses, errors)


def test_a_batch_of_draws_reads_losses_one_by_one() -> None:
    rng = np.random.default_rng(4)
    drawn = draw_local(BUDGETS, law(BUDGETS), ERRORS, ERRORS * rng.standard_normal((50, 4)), rng)
    losses = 3.3 + 0.01 * rng.standard_normal(50)
    for number in (0, 7, 49):

        def off(x: float, row: int = number) -> float:
            return float(drawn.loss(np.exp(x))[row] - losses[row])

        x = brentq(off, np.log(BUDGETS[0]) - 3, np.log(BUDGETS[-1]) + 3)
        assert np.log(drawn.budget(losses)[number]) == pytest.approx(x, abs=1e-8)
