import numpy as np
import pytest

from tuneopt.analysis.noise import Noise, range_probability, range_quantile


@pytest.mark.parametrize(
    ("confidence", "groups", "freedom"),
    [(0.95, 11, None), (0.95, 2, None), (0.95, 3, 4), (0.99, 8, 8), (0.95, 2, 2), (0.9995, 11, 6), (0.5, 5, 30)],
)
def test_the_range_agrees_with_scipy(confidence: float, groups: int, freedom: int | None) -> None:
    from scipy.stats import studentized_range

    expected = studentized_range.ppf(confidence, groups, 1e6 if freedom is None else freedom)
    assert range_quantile(confidence, groups, freedom) == pytest.approx(expected, rel=1e-4)
    assert range_probability(expected, groups, freedom) == pytest.approx(confidence, abs=1e-5)


def test_the_range_agrees_with_a_table() -> None:
    # Upper 5% points of the studentized range (Harter 1960): k = 3, v = 10; k = 10, v = 20; k = 5, v infinite.
    assert range_quantile(0.95, 3, 10) == pytest.approx(3.877, abs=0.001)
    assert range_quantile(0.95, 10, 20) == pytest.approx(5.008, abs=0.001)
    assert range_quantile(0.95, 5, None) == pytest.approx(3.858, abs=0.001)


def test_the_span_of_two_is_the_two_sided_difference() -> None:
    noise = Noise(0.01, None, "given", "")
    assert noise.span(1, 1, 2) == pytest.approx(1.95996 * np.sqrt(2) * 0.01, rel=1e-4)
    assert noise.span(4, 4, 2) == pytest.approx(noise.span(1, 1, 2) / 2)
    assert noise.span(1, 1, 1) == noise.span(1, 1, 2)
    spans = [noise.span(1, 1, compared) for compared in range(2, 12)]
    assert spans == sorted(spans) and noise.span(1, 1, 5, rate=0.01) > noise.span(1, 1, 5)
    assert Noise(0.01, 3, "measured", "").span(1, 1, 5) > 1.5 * noise.span(1, 1, 5)


def test_the_family_error_by_simulation() -> None:
    rng = np.random.default_rng(4)
    noise = Noise(1.0, None, "given", "")
    draws = rng.standard_normal((20_000, 6))
    assert np.mean(np.ptp(draws, axis=1) > noise.span(1, 1, 6)) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize(("groups", "freedom"), [(2, 1.0), (3, 3.7), (11, 20.0), (80, 6.0)])
def test_an_estimated_sigma_averages_the_known_range(groups: int, freedom: float) -> None:
    # By definition: the known range's probability at q s, over s^2 ~ chi-square / freedom, in steps of probability.
    from scipy.stats import chi2

    nodes, weights = np.polynomial.legendre.leggauss(240)
    sigma = np.sqrt(chi2.isf(1 - (1 + nodes) / 2, freedom) / freedom)
    for quantile in (0.5, 2.0, 4.0, 30.0):
        averaged = sum(
            weight / 2 * range_probability(quantile * one, groups) for weight, one in zip(weights, sigma, strict=True)
        )
        assert range_probability(quantile, groups, freedom) == pytest.approx(averaged, abs=2e-9)
