"""Laws of hyperparameters, planted in the tuned points of a declared space."""

import numpy as np
import pytest
from analysis_samples import result
from scipy.stats import linregress, t

from tuneopt.analysis.hyper_laws import HyperLaw, hyper_laws
from tuneopt.analysis.inputs import published
from tuneopt.analysis.noise import measure
from tuneopt.analysis.winner import Winner, winners
from tuneopt.spec import SCALES, TrialSpec

SIZES = ("130m", "300m", "520m", "1.2b")


def planted(b: float, c: float, scatter: float = 0.0, seed: int = 0, sizes: tuple[str, ...] = SIZES) -> list[Winner]:
    rng = np.random.default_rng(seed)
    found = []
    for name in sizes:
        parameters = SCALES[name].parameters
        for ratio in (1, 2, 4, 8):
            rate = 0.008 * (parameters / 1e8) ** b * ratio**c * float(np.exp(scatter * rng.standard_normal()))
            config = {"learning_rate": rate, "weight_decay": 0.1, "beta1": 0.9, "lr_schedule": "cosine"}
            base = result("adamw", ratio, 3.0, scale=name, n=parameters)
            found.append(Winner(**{**{key: getattr(base, key) for key in base.__dataclass_fields__},
                                   "config": TrialSpec.freeze(config)}))  # fmt: skip
    return found


def rate_law(results: list[Winner]) -> HyperLaw:
    return next(law for law in hyper_laws(results, ()) if law.coordinate == "learning_rate")


def test_planted_exponents_are_found() -> None:
    law = rate_law(planted(-0.3, -0.2))
    assert law.method == "law" and law.regimes == 16 and not law.complement
    assert law.b == pytest.approx(-0.3, abs=0.06) and law.c == pytest.approx(-0.2, abs=0.04)  # shrunk a little to 0
    for _, tuned, said in law.points:
        assert said == pytest.approx(tuned, rel=0.08)
    assert {each.coordinate for each in hyper_laws(planted(-0.3, -0.2), ())} == {
        "learning_rate",
        "weight_decay",
        "beta1",
    }


def test_a_value_that_never_moves_is_a_constant() -> None:
    laws = {law.coordinate: law for law in hyper_laws(planted(0.0, 0.0), ())}
    for name in ("learning_rate", "weight_decay", "beta1"):
        assert laws[name].method == "constant" and laws[name].support == 1.0
        assert laws[name].b is None and laws[name].b_low is None and laws[name].points[0][2] is None


def test_the_interval_is_that_of_a_regression() -> None:
    """One scale only, so that a straight line in log ratio is the whole law."""
    results = planted(0.0, -0.4, scatter=0.1, sizes=("130m",))
    law = rate_law(results)
    line = linregress(np.log([item.regime.ratio for item in results]),
                      np.log([dict(item.config)["learning_rate"] for item in results]))  # fmt: skip
    assert law.b_low is None and law.c_low is not None and law.c_high is not None and law.c is not None
    assert abs(law.c) <= abs(line.slope) and law.c == pytest.approx(line.slope, abs=0.1)
    assert (law.c_low + law.c_high) / 2 == pytest.approx(line.slope)
    assert (law.c_high - law.c_low) / 2 == pytest.approx(t.ppf(0.95, 2) * line.stderr)


def test_the_intervals_cover_the_truth() -> None:
    held = []
    for seed in range(120):
        law = rate_law(planted(-0.2, -0.15, scatter=0.35, seed=seed))
        if law.b_low is not None and law.b_high is not None and law.c_low is not None and law.c_high is not None:
            held += [law.b_low <= -0.2 <= law.b_high, law.c_low <= -0.15 <= law.c_high]
    assert len(held) == 240 and 0.85 <= np.mean(held) <= 0.97


def test_few_regimes_and_unknown_scales_have_no_law() -> None:
    assert hyper_laws(planted(0.1, 0.1)[:3], ()) == ()
    strange = planted(0.1, 0.1)
    moved = [Winner(**{**{key: getattr(item, key) for key in item.__dataclass_fields__},
                       "regime": item.regime._replace(scale="mine")}) for item in strange]  # fmt: skip
    assert hyper_laws(moved, ()) == ()


def test_the_published_learning_rates_fall_with_size() -> None:
    runs = published().runs
    laws = {(law.optimizer, law.coordinate): law for law in hyper_laws(winners(runs, measure(runs)), ())}
    muon = laws["muon", "learning_rate"]
    assert muon.method == "law" and muon.b is not None and muon.b < 0
    assert laws["muon", "weight_decay"].method == "constant"
    assert all(law.method != "law" or law.b_low is not None for law in laws.values() if law.optimizer != "sophia")
