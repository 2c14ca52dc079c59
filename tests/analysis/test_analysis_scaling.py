import numpy as np
import pytest
from analysis_samples import ALPHA, BETA, EXPONENT, PARAMETERS, law
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from tuneopt.analysis.scaling import EXPONENTS, describe, fit
from tuneopt.spec import InputError

BUDGETS = 20.0 * PARAMETERS * np.array([1, 2, 4, 8])


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0.1, 1.5),
    st.floats(0.05, 2.0),
    st.floats(0.5, 4.0),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0]), min_size=3, max_size=7, unique=True),
)
def test_a_noiseless_law_is_recovered(exponent: float, fall: float, beta: float, ratios: list[float]) -> None:
    budgets = 1e9 * np.array(ratios)
    found = fit(budgets, fall * (budgets / 1e9) ** -exponent + beta)
    assert float(found.exponent) == pytest.approx(exponent, rel=1e-3)
    assert float(found.beta) == pytest.approx(beta, abs=2e-3)
    assert float(found.coefficient) == pytest.approx(fall * 1e9**exponent, rel=0.03)
    assert float(found.residual) < 1e-6
    assert found.loss(budgets) == pytest.approx(fall * np.array(ratios) ** -exponent + beta, abs=1e-6)


def test_plain_numbers_of_a_fit() -> None:
    plain = describe(fit(BUDGETS, law(BUDGETS)))
    assert plain["kind"] == "power"
    assert plain["alpha"] == pytest.approx(ALPHA, rel=1e-3)
    assert plain["exponent"] == pytest.approx(EXPONENT, rel=1e-4)
    assert plain["beta"] == pytest.approx(BETA, abs=1e-4)
    assert (plain["from_tokens"], plain["to_tokens"]) == (BUDGETS[0], BUDGETS[-1])


@settings(deadline=None, max_examples=60)
@given(st.floats(0.2, 1.0), st.floats(2, 3), st.floats(0.3, 5))
def test_budget_inverts_loss(exponent: float, beta: float, where: float) -> None:
    budgets = 1e9 * np.array([1, 2, 4])
    found = fit(budgets, (budgets / 1e9) ** -exponent + beta)
    assert float(found.budget(found.loss(where * 1e9))) == pytest.approx(where * 1e9, rel=1e-6)


def test_under_the_floor_no_budget_is_enough() -> None:
    found = fit(BUDGETS, law(BUDGETS))
    assert np.isinf(found.budget(float(found.beta)))
    assert np.isinf(found.budget(float(found.beta) - 0.1))
    assert np.isfinite(found.budget(float(found.beta) + 1e-4))
    assert found.budget([4.0, 3.5]).shape == (2,)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(3, 6))
def test_no_general_solver_finds_a_better_fit(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    budgets = 1e9 * np.sort(rng.choice([1, 2, 3, 4, 6, 8, 16], count, replace=False)).astype(float)
    losses = (budgets / 1e9) ** -rng.uniform(0.2, 1) + 3 + 0.02 * rng.standard_normal(count)
    found = fit(budgets, losses)
    own = np.sum((found.loss(budgets) - losses) ** 2)

    def misses(x: np.ndarray) -> np.ndarray:
        return x[0] * (budgets / found.unit) ** -x[1] + x[2] - losses

    for start in (0.3, 0.8, 2.0):
        bounds = ([0, EXPONENTS[0], 0], [np.inf, EXPONENTS[1], np.inf])
        other = least_squares(misses, (1.0, start, 3.0), bounds=bounds)
        assert own <= 2 * other.cost + 1e-7


def test_a_batch_of_fits_equals_each_alone() -> None:
    rng = np.random.default_rng(0)
    losses = law(BUDGETS) + 0.002 * rng.standard_normal((2, 5, 4))
    batch = fit(BUDGETS, losses)
    assert batch.alpha.shape == (2, 5)
    assert batch.loss(BUDGETS).shape == (2, 5, 4)
    for index in np.ndindex(2, 5):
        alone = fit(BUDGETS, losses[index])
        assert float(batch.exponent[index]) == pytest.approx(float(alone.exponent), rel=1e-6)
        assert float(batch.beta[index]) == pytest.approx(float(alone.beta), abs=1e-7)


def test_the_order_of_the_points_does_not_matter() -> None:
    losses = law(BUDGETS) + np.array([0.001, -0.002, 0.001, 0.0])
    weights, turned = np.array([1.0, 2.0, 3.0, 1.0]), [2, 0, 3, 1]
    one, other = fit(BUDGETS, losses, weights), fit(BUDGETS[turned], losses[turned], weights[turned])
    assert float(one.exponent) == pytest.approx(float(other.exponent), rel=1e-9)
    assert float(one.residual) == pytest.approx(float(other.residual), rel=1e-9)


def test_a_heavier_point_is_fitted_closer() -> None:
    losses = law(BUDGETS) + np.array([0.0, 0.004, -0.004, 0.0])
    even = abs(fit(BUDGETS, losses).loss(BUDGETS) - losses)[1]
    heavy = abs(fit(BUDGETS, losses, [1, 50, 1, 1]).loss(BUDGETS) - losses)[1]
    assert heavy < even / 5


def test_beta_stays_a_loss_and_alpha_never_rises() -> None:
    straight = fit(BUDGETS, 3.0 - 0.4 * np.log(BUDGETS / BUDGETS[0]))
    assert float(straight.beta) >= 0
    concave = fit(BUDGETS, [3.5, 3.49, 3.45, 3.3])
    assert float(concave.beta) >= 0 and float(concave.alpha) > 0
    rising = fit(BUDGETS, [3.0, 3.1, 3.2, 3.3])
    assert float(rising.alpha) == 0 and float(rising.beta) == pytest.approx(3.15)
    assert float(rising.budget(3.2)) == 0 and np.isinf(rising.budget(3.1))


def test_two_budgets_are_joined_by_a_line_in_log_tokens() -> None:
    line = fit([1e9, 4e9], [3.4, 3.2])
    assert line.kind == "log-linear" and describe(line)["exponent"] == 0
    assert float(line.loss(2e9)) == pytest.approx(3.3)
    assert float(line.budget(3.1)) == pytest.approx(8e9)
    assert describe(line)["beta"] - describe(line)["alpha"] * np.log(2e9) == pytest.approx(3.3)
    rising = fit([1e9, 4e9], [3.2, 3.4])
    assert float(rising.budget(3.1)) == np.inf and float(rising.budget(3.5)) == 0


@pytest.mark.parametrize(
    ("budgets", "losses", "word"),
    [
        ([1e9], [3.0], "two different"),
        ([1e9, 1e9, 2e9], [3.0, 3.0, 2.9], "two different"),
        ([1e9, 2e9, 4e9], [3.0, float("nan"), 2.9], "finite"),
        ([1e9, -2e9, 4e9], [3.0, 2.9, 2.8], "positive"),
    ],
)
def test_what_cannot_be_fitted_is_refused(budgets: list[float], losses: list[float], word: str) -> None:
    with pytest.raises(InputError, match=word):
        fit(budgets, losses)
