import dataclasses

import numpy as np
import pytest
from analysis_samples import ALPHA, BETA, EXPONENT, known_noise, result, study
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from tuneopt.analysis.joint import JointFit, joint_fits
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.speedup import IntervalSettings
from tuneopt.analysis.winner import Winner

SPEEDS = {"adamw": 1.0, "lion": 0.9, "muon": 1.35, "soap": 1.2}
SILENT = NoiseModel({})


def factors(fit: JointFit) -> dict[str, float | None]:
    return {factor.optimizer: factor.factor for factor in fit.factors}


@settings(deadline=None, max_examples=20)
@given(st.floats(0.7, 2.0))
def test_exact_laws_are_recovered(speed: float) -> None:
    (fit,) = joint_fits(study({"adamw": 1.0, "muon": speed}), SILENT)
    assert factors(fit) == {"adamw": pytest.approx(1.0), "muon": pytest.approx(speed, rel=1e-3)}
    assert fit.exponent == pytest.approx(EXPONENT, rel=2e-3)
    assert fit.floors[0].beta == pytest.approx(BETA, abs=1e-3)
    assert fit.amplitude == pytest.approx(ALPHA, rel=0.05)
    assert fit.rms < 1e-4 and fit.excess is None and fit.exponent_low is None


def test_an_independent_fit_agrees() -> None:
    """scipy's least squares over all parameters at once, on noisy data with unequal numbers of runs."""
    rng = np.random.default_rng(3)
    results = study(SPEEDS, noise=lambda: 0.002 * rng.standard_normal())
    results = [dataclasses.replace(item, runs=1 + number % 3) for number, item in enumerate(results)]
    names = list(SPEEDS)
    tokens = np.array([item.tokens for item in results]) / 1e10
    index = np.array([names.index(item.optimizer) for item in results])
    losses = np.array([item.loss for item in results])
    weights = np.sqrt([item.runs for item in results])

    def misses(parts: np.ndarray) -> np.ndarray:
        beta, amplitude, exponent, *rho = parts
        return weights * (beta + amplitude * (np.array([1.0, *rho])[index] * tokens) ** -exponent - losses)

    found = least_squares(misses, [3.0, 0.3, 0.4, 1.0, 1.0, 1.0], xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    (fit,) = joint_fits(results, known_noise(0.002, results), IntervalSettings(draws=50))
    assert fit.exponent == pytest.approx(found[2], rel=2e-3)
    for name, rho in zip(names[1:], found[3:], strict=True):
        assert factors(fit)[name] == pytest.approx(rho, rel=1e-3)
    assert fit.floors[0].beta == pytest.approx(found[0], abs=1e-3)
    ours = np.array([item.residual for item in fit.residuals]) * weights
    assert np.sum(ours**2) == pytest.approx(np.sum(misses(found) ** 2), rel=1e-3)
    assert fit.rms == pytest.approx(np.sqrt(np.sum(misses(found) ** 2) / (16 - 6)), rel=1e-3)


def scales(gain: float) -> list[Winner]:
    """Two scales with floors of their own; at the larger one muon's speedup is ``gain`` times that of the smaller."""
    small = study(SPEEDS)
    large = [result(item.optimizer, item.regime.ratio, 0.0, scale="520m", n=536_870_912) for item in study(SPEEDS)]
    moved = []
    for item in large:
        speed = SPEEDS[item.optimizer] * (gain if item.optimizer == "muon" else 1.0)
        moved.append(dataclasses.replace(item, loss=BETA - 0.3 + ALPHA * (speed * item.tokens) ** -EXPONENT))
    return [*small, *moved]


def test_scales_together_and_apart() -> None:
    together, small, large = joint_fits(scales(1.0), known_noise(0.0012, scales(1.0)))
    assert (together.scale, small.scale, large.scale) == (None, "130m", "520m")
    assert factors(together)["muon"] == pytest.approx(1.35, rel=1e-3) and together.flags == ()
    assert [floor.beta for floor in together.floors] == pytest.approx([BETA, BETA - 0.3], abs=1e-3)
    for factor in together.factors:
        assert factor.low is not None and factor.high is not None and factor.factor is not None
        assert factor.low <= factor.factor <= factor.high
        assert factor.results == 8
    narrow, wide = (next(item for item in fit.factors if item.optimizer == "muon") for fit in (together, small))
    assert narrow.high - narrow.low < wide.high - wide.low  # type: ignore[operator]


def test_speedups_that_differ_between_scales_are_a_misfit_and_widen_the_intervals() -> None:
    results = scales(0.7)
    together, small, large = joint_fits(results, known_noise(0.0012, results))
    assert "misfit" in together.flags and together.excess is not None and together.excess > 2
    assert small.flags == large.flags == ()
    assert factors(small)["muon"] == pytest.approx(1.35, rel=1e-3)
    assert factors(large)["muon"] == pytest.approx(0.945, rel=1e-3)
    plain = joint_fits(scales(1.0), known_noise(0.0012, results))[0].factors[2]
    worse = together.factors[2]
    assert worse.high - worse.low > 2 * (plain.high - plain.low)  # type: ignore[operator]
    left = {item.regime.scale: item.residual for item in together.residuals if item.optimizer == "muon"}
    assert left["130m"] < 0 < left["520m"]  # one factor is too low for the small scale and too high for the large


def test_a_misfit_is_called_no_more_often_than_declared() -> None:
    rng = np.random.default_rng(9)
    for freedom in (None, 6):
        called = 0
        for _ in range(50):
            estimate = 1.0 if freedom is None else float(np.sqrt(rng.chisquare(freedom) / freedom))
            results = study(SPEEDS, noise=lambda: 0.0012 * rng.standard_normal())
            (fit,) = joint_fits(results, known_noise(0.0012 * estimate, results, freedom), IntervalSettings(draws=1))
            called += "misfit" in fit.flags
        assert called <= 7  # 5% of 50, and three standard errors


def test_what_has_too_little_data() -> None:
    assert joint_fits(study(SPEEDS, ratios=(1, 2)), SILENT) == ()
    assert joint_fits(study({"adamw": 1.0}), SILENT) == ()
    assert joint_fits(study({"muon": 1.2, "soap": 1.1}), SILENT) == ()
    assert joint_fits([], SILENT) == ()
    (fit,) = joint_fits([*study({"adamw": 1.0}), result("muon", 2, 3.3)], SILENT)
    assert fit.factors[1].results == 1 and fit.factors[1].factor is not None


def test_an_optimizer_under_the_shared_floor_has_no_finite_factor() -> None:
    results = [*study({"adamw": 1.0, "muon": 1.2}), *(result("magic", ratio, BETA - 0.1) for ratio in (1, 2, 4, 8))]
    (fit,) = joint_fits(results, known_noise(0.0012, results))
    magic = fit.factors[1]
    assert magic.optimizer == "magic" and (magic.factor is None or magic.factor > 5)
    assert "misfit" in fit.flags


@pytest.mark.slow
def test_joint_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(8)
    hits = []
    for number in range(150):
        results = study(SPEEDS, noise=lambda: 0.0012 * rng.standard_normal())
        (fit,) = joint_fits(results, known_noise(0.0012, results), IntervalSettings(draws=400, seed=number))
        for factor in fit.factors[1:]:
            hits.append((factor.low or 0.0) <= SPEEDS[factor.optimizer] <= (factor.high or np.inf))
    assert 0.85 <= np.mean(hits) <= 0.95
