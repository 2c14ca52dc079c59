"""Laws of hyperparameters, planted in the tuned points of a declared space."""

from dataclasses import replace

import numpy as np
import pytest
from analysis_samples import public_table, result
from scipy.stats import linregress, t

from tuneopt.analysis.hyper_laws import HyperLaw, hyper_laws
from tuneopt.analysis.inputs import load, published, read_runs
from tuneopt.analysis.noise import measure
from tuneopt.analysis.surface import surface
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
    # One 0 has no log, and the others are equal: no machine may show what is left in the last bits of their mean.
    held = dict.fromkeys((1, 2, 4, 8), 0.35) | {0: 0.0}
    results = [replace(one, config=TrialSpec.freeze({**dict(one.config), "weight_decay": held[at]}))
               for at, one in enumerate(planted(0.0, 0.0)) if at in held]  # fmt: skip
    (law,) = [law for law in hyper_laws(results, ()) if law.coordinate == "weight_decay"]
    assert law.method == "law" and (law.b, law.b_low, law.b_high) == (0.0, 0.0, 0.0)


def test_the_interval_is_that_of_a_regression() -> None:
    """One scale only, so that a straight line in log ratio is the whole law."""
    results = planted(0.0, -0.4, scatter=0.1, sizes=("130m",))
    law = rate_law(results)
    line = linregress(np.log([item.regime.ratio for item in results]),
                      np.log([dict(item.config)["learning_rate"] for item in results]))  # fmt: skip
    assert law.b_low is None and law.c_low is not None and law.c_high is not None and law.c is not None
    assert law.c == pytest.approx(line.slope)
    assert (law.c_low + law.c_high) / 2 == pytest.approx(line.slope)
    assert (law.c_high - law.c_low) / 2 == pytest.approx(t.ppf(0.95, 2) * line.stderr)


def test_the_intervals_cover_the_truth() -> None:
    held = []
    for seed in range(120):
        law = rate_law(planted(-0.2, -0.15, scatter=0.35, seed=seed))
        if law.b_low is not None and law.b_high is not None and law.c_low is not None and law.c_high is not None:
            held += [law.b_low <= -0.2 <= law.b_high, law.c_low <= -0.15 <= law.c_high]
    assert len(held) == 240 and 0.85 <= np.mean(held) <= 0.97


def test_few_regimes_have_no_law() -> None:
    assert hyper_laws(planted(0.1, 0.1)[:3], ()) == ()


def test_scales_that_are_not_built_in_have_laws_too() -> None:
    sizes = {name: f"{SCALES[name].parameters}" for name in SIZES}
    own = [replace(one, regime=one.regime._replace(scale=sizes[one.regime.scale])) for one in planted(-0.5, 0.2)]
    law = rate_law(own)
    assert (law.b, law.c, law.scales) == (pytest.approx(-0.5), pytest.approx(0.2), 4)
    assert law.by_tokens is not None and law.by_tokens.size == pytest.approx(-0.7)
    for one in own:
        tokens = 20 * one.parameters * one.regime.ratio
        assert law.by_tokens.at(one.parameters, tokens) == pytest.approx(dict(one.config)["learning_rate"])
    # What was never varied has no law: nobody knows whether it would move.
    assert {one.coordinate for one in hyper_laws(own, ())} == {"learning_rate"}


def test_a_law_of_tokens_alone_where_size_does_not_matter_at_equal_tokens() -> None:
    own = [replace(one, regime=one.regime._replace(scale=f"mine {one.regime.scale}"))
           for one in planted(0.57, 0.57, scatter=0.02, seed=3)]  # fmt: skip
    law = rate_law(own)
    assert law.by_tokens is not None and law.by_tokens.size is None
    assert law.by_tokens.tokens == pytest.approx(0.57, abs=0.03)
    assert law.by_tokens.tokens_low < 0.57 < law.by_tokens.tokens_high


def test_an_exponent_lies_in_its_own_interval() -> None:
    runs = published().runs
    for law in hyper_laws(winners(runs, measure(runs)), ()):
        for value, low, high in ((law.b, law.b_low, law.b_high), (law.c, law.c_low, law.c_high)):
            if value is not None and low is not None and high is not None:
                assert low <= value <= high and high > low, law


def test_regimes_of_one_scale_are_not_independent() -> None:
    """Each scale has luck of its own, shared by its ratios: intervals that count every regime would miss the truth."""
    held = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        luck = {name: float(np.exp(0.3 * rng.standard_normal())) for name in SIZES}
        moved = []
        for one in planted(-0.2, -0.15, scatter=0.05, seed=seed):
            config = {"learning_rate": dict(one.config)["learning_rate"] * luck[one.regime.scale]}
            moved.append(replace(one, config=TrialSpec.freeze(config)))
        law = rate_law(moved)
        held.append(law.b_low <= -0.2 <= law.b_high)
    assert 0.84 <= np.mean(held) <= 0.96


def test_the_centre_of_near_optimal_runs_speaks_for_a_regime() -> None:
    """The best run of a flat grid is one of several equals; their centre finds the planted law."""
    rng = np.random.default_rng(1)
    rows = []
    for millions, ratio in ((100, 1), (100, 4), (200, 1), (200, 4), (400, 1), (400, 4)):
        best = 0.004 * (millions / 100) ** -0.6 * ratio**0.3
        for rate in 0.0005 * 2 ** (np.arange(12) / 2):
            loss = 3 + 0.02 * np.log2(rate / best) ** 2 + 0.001 * rng.standard_normal()
            rows.append({"optimizer": "adamw", "scale": f"my {millions}", "parameters": millions * 1e6, "ratio": ratio,
                         "loss": loss, "hp_learning_rate": float(rate)})  # fmt: skip
    runs = read_runs(rows)
    best_of = winners(runs, measure(runs, sigma=0.001))
    (law,) = hyper_laws(best_of, (), runs=runs)
    assert law.b == pytest.approx(-0.6, abs=0.06) and law.c == pytest.approx(0.3, abs=0.05)


def test_the_step_law_is_found_in_the_runs_of_its_authors() -> None:
    runs = load(public_table("steplaw_dense.csv")).runs
    best = winners(runs, measure(runs))
    laws = {law.coordinate: law.by_tokens for law in hyper_laws(best, (), runs=runs)}
    rate, batch = laws["learning_rate"], laws["train_batch_size"]
    assert rate is not None and batch is not None
    # Published: learning rate 1.79 N^-0.713 D^0.307, batch 0.58 D^0.571 tokens (arXiv 2503.04715), 2048 to a sequence.
    assert rate.size_low < -0.713 < rate.size_high and rate.tokens_low < 0.307 < rate.tokens_high
    assert rate.tokens == pytest.approx(0.307, abs=0.03)
    # The lowest points here lie on D^0.65 [0.56, 0.75]; the authors' sizes reach further.
    assert batch.size is None and batch.tokens == pytest.approx(0.571, abs=0.1)
    assert batch.tokens_low is not None and batch.tokens_high is not None
    assert batch.tokens_low < 0.571 < batch.tokens_high
    for parameters, tokens in ((2.7e8, 2e10), (5.4e8, 5e10), (1.1e9, 1e11)):
        published_rate = 1.79 * parameters**-0.713 * tokens**0.307
        assert abs(np.log(rate.at(parameters, tokens) / published_rate)) < np.log(1.25)  # two thirds of a step
        assert abs(np.log(batch.at(parameters, tokens) * 2048 / (0.58 * tokens**0.571))) < np.log(1.2)


def test_the_step_law_predicts_its_largest_size_from_the_smaller_ones() -> None:
    """The predicted pair costs at most 0.002 nats over the lowest point, by the surface of the runs left out."""
    runs = load(public_table("steplaw_dense.csv")).runs
    largest = max(run.parameters for run in runs)
    known, left = ([run for run in runs if (run.parameters == largest) is out] for out in (False, True))
    laws = {law.coordinate: law.by_tokens for law in hyper_laws(winners(known, measure(known)), (), runs=known)}
    names = ("learning_rate", "train_batch_size")
    for regime in {run.regime for run in left}:
        inside = [run for run in left if run.regime == regime]
        places = np.log([[dict(run.config)[name] for name in names] for run in inside])
        fitted = surface(places, np.array([run.report_loss for run in inside]))
        at = np.log([[laws[name].at(largest, inside[0].tokens) for name in names]])
        assert fitted is not None and fitted.at(at)[0] - fitted.loss < 0.002, regime


@pytest.mark.parametrize("skew", [0.0, 0.35])
def test_a_surface_finds_the_lowest_point_of_a_skewed_bowl(skew: float) -> None:
    """Loss rises faster towards large rates: the middle of what is near-optimal lies below the lowest point."""
    steps = np.array([[x, y] for x in np.arange(-2.5, 2.6, 0.5) for y in np.arange(-2, 2.1, 0.5)])
    bowl = [0.008 * (u**2 + v**2 - 0.6 * u * v) * np.exp(skew * u) for u, v in steps - (0.15, -0.2)]
    misses = []
    for seed in range(8):
        losses = 2.4 + np.array(bowl) + 0.001 * np.random.default_rng(seed).standard_normal(len(bowl))
        fitted = surface(steps, losses)
        assert fitted is not None and fitted.loss == pytest.approx(2.4, abs=0.0015)
        misses.append(fitted.lowest - (0.15, -0.2))
    assert np.abs(np.mean(misses, axis=0)).max() < 0.07 and np.std(misses, axis=0).max() < 0.2


def test_what_is_no_grid_has_no_surface() -> None:
    rng = np.random.default_rng(0)
    points, losses = rng.uniform(-1, 1, (60, 2)), rng.uniform(2.4, 2.44, 60)
    assert surface(points, losses) is not None
    assert surface(points[:20], losses[:20]) is None  # too few runs
    assert surface(rng.uniform(-1, 1, (60, 4)), losses) is None  # too many coordinates
    assert surface(points * (1, 0), losses) is None  # one of them never varied
    assert surface(points, losses + np.where(np.arange(60) < 40, 1.0, 0.0)) is None  # too few near the lowest


def test_the_published_learning_rates_fall_with_size() -> None:
    runs = published().runs
    laws = {(law.optimizer, law.coordinate): law for law in hyper_laws(winners(runs, measure(runs)), ())}
    muon = laws["muon", "learning_rate"]
    assert muon.method == "law" and muon.b is not None and muon.b < 0
    assert laws["muon", "weight_decay"].method == "constant"
    assert all(law.method != "law" or law.b_low is not None for law in laws.values() if law.optimizer != "sophia")
