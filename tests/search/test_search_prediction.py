"""Predicted hyperparameters: laws that are there are found, the grid and bounds hold, degenerate cases end well."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import axis, run, space

from tuneopt.search.axis import Axis
from tuneopt.search.prediction import PowerLaw, TunedRegime, fit_law, forecast, predict, published_regimes, star_regime
from tuneopt.search.space import load_space, space_names
from tuneopt.spec import InputError

SIZES = (134217728, 301989888, 536870912)
GROUND = [(size, ratio) for size in SIZES for ratio in (1, 2, 4, 8)]
RATE = axis("learning_rate", 0.001, 0.002, 0.004, 0.008, 0.016, start=0.008, extend="geometric", low=1e-6, high=10.0)


def regimes(name, value_at, **near):
    return [TunedRegime(size, ratio, {name: value_at(size, ratio)}, near) for size, ratio in GROUND]


def steps(line: Axis, one, other):
    order = [*reversed(line.below), *line.values, *line.above]
    return abs(order.index(one) - order.index(other))


def test_adamw_at_the_largest_tuned_regime_follows_from_the_eleven_smaller_ones():
    declared = load_space("adamw")
    *smaller, largest = published_regimes(declared)
    assert (len(smaller), largest.params, largest.ratio) == (11, 536870912, 8)
    found = forecast(declared.on("paper"), smaller, largest.params, largest.ratio)
    for name in ("learning_rate", "train_batch_size", "weight_decay", "warmup"):
        line = declared.on("paper").by_name[name]
        assert steps(line, found.coordinates[name].value, largest.config[name]) <= 1, name
    assert found.extrapolation == {"params": 1.0, "ratio": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in space_names() if load_space(name).published])
def test_held_out_published_optima_are_mostly_within_a_step(name):
    declared = load_space(name)
    *rest, last = published_regimes(declared)
    ladder = declared.on("paper")
    found = forecast(ladder, rest, last.params, last.ratio)
    away = [
        steps(line, found.coordinates[line.name].value, last.config[line.name])
        for line in ladder.axes
        if line.numeric
        and not line.pinned
        and line.off not in (found.coordinates[line.name].value, last.config[line.name])
    ]
    assert sum(each <= 1 for each in away) >= 0.8 * len(away)


def test_several_results_of_one_regime_are_no_law():
    values = (0.001, 0.002, 0.008, 0.016)
    same = [TunedRegime(SIZES[0], 1, {"learning_rate": value}) for value in values]
    assert predict(RATE, same, 1e9, 1).method == "median"
    apart = [TunedRegime(SIZES[0], ratio, {"learning_rate": value}) for ratio, value in enumerate(values, 1)]
    assert predict(RATE, apart, 1e9, 1).method == "law"


@pytest.mark.parametrize(("b", "c"), [(-0.5, 0.0), (0.4, 0.3), (-0.3, -0.4)])
def test_a_law_without_noise_is_recovered(b, c):
    sizes, ratios = np.array(GROUND, float).T
    h = 0.01 * (sizes / 1e8) ** b * ratios**c
    law = fit_law(sizes, ratios, h, np.full(len(h), 1e4))
    assert (law.b, law.c) == (pytest.approx(b, abs=0.1), pytest.approx(c, abs=0.1))
    assert law.at(1.2e9, 8) == pytest.approx(0.01 * 12**b * 8**c, rel=0.25)


def test_an_offset_is_taken_where_it_explains_the_points():
    sizes, ratios = np.array(GROUND, float).T
    h = 4.0 * (sizes / 1e8) ** -1.5 + 1.0
    law = fit_law(sizes, ratios, h, np.full(len(h), 1e4))
    assert law.e > 0
    assert law.at(1e10, 1) > 0.5, "a power law alone would fall to nothing"
    assert PowerLaw(2.0, 1.0, 0.5, 0.25).at(2e8, 4) == pytest.approx(2 * 2 * 2 + 0.25)


def test_values_are_snapped_to_the_continued_grid_with_an_interval_around_them():
    found = predict(
        RATE, regimes("learning_rate", lambda n, r: 0.008 if n < 2e8 else 0.004 if n < 4e8 else 0.002), 1.2e9, 1
    )
    assert found.method == "law" and found.law is not None
    assert found.value in (0.001, 0.0005)
    assert found.low <= found.value <= found.high
    assert found.support > 0.7
    again = predict(
        RATE, regimes("learning_rate", lambda n, r: 0.008 if n < 2e8 else 0.004 if n < 4e8 else 0.002), 1.2e9, 1
    )
    assert again == found


def test_a_decay_is_fitted_in_its_averaging_rate():
    decay = axis("beta2", 0.9, 0.95, 0.975, start=0.95, extend="complement", low=0, high=0.9999, off=0)
    found = predict(decay, regimes("beta2", lambda n, r: {1: 0.9, 2: 0.95, 4: 0.975, 8: 0.9875}[r]), 3e8, 16)
    assert found.law is not None and found.law.complement
    assert 0.9875 <= found.value < 1
    assert found.law.at(3e8, 1) == pytest.approx(0.9, abs=0.03)


def test_one_value_for_all_regimes_is_kept_and_near_optimal_sets_can_make_it_one():
    constant = predict(RATE, regimes("learning_rate", lambda n, r: 0.004), 1e10, 1)
    assert (constant.value, constant.low, constant.high, constant.method) == (0.004, 0.004, 0.004, "constant")
    tied = regimes("learning_rate", lambda n, r: 0.004 if r < 4 else 0.008, learning_rate={0.004: 0.001, 0.008: 0.002})
    found = predict(RATE, tied, 1e10, 1)
    assert (found.value, found.method, found.support) == (0.004, "constant", 0.5)


def test_near_values_pull_the_fit_by_how_near_they_are():
    near = {0.004: 0.0, 0.016: 0.0001, 0.001: 0.05}
    pulled = [TunedRegime(n, r, {"learning_rate": 0.004 if n < 2e8 else 0.008}, {}) for n, r in GROUND]
    both = [TunedRegime(x.params, x.ratio, x.config, {"learning_rate": near} if x.params < 2e8 else {}) for x in pulled]
    assert predict(RATE, both, 1e8, 1).law.at(1e8, 1) > predict(RATE, pulled, 1e8, 1).law.at(1e8, 1)


def test_off_words_and_few_regimes():
    clip = axis("max_grad_norm", 0, 1.0, 2.0, start=1.0, extend="geometric", low=0, off=0)
    mostly_off = predict(clip, regimes("max_grad_norm", lambda n, r: 1 if r == 1 else 0), 1e9, 1)
    assert (mostly_off.value, mostly_off.method, mostly_off.support) == (0, "majority", 0.75)
    rarely_off = predict(clip, regimes("max_grad_norm", lambda n, r: 0 if r == 1 else 2 if r == 8 else 1), 1e9, 4)
    assert (rarely_off.value in (1, 2), rarely_off.method) == (True, "law")
    word = Axis.of("lr_schedule", ("cosine", "linear"), "cosine")
    chosen = predict(word, regimes("lr_schedule", lambda n, r: "linear" if n > 2e8 else "cosine"), 1e9, 1)
    assert (chosen.value, chosen.method, chosen.support) == ("linear", "majority", pytest.approx(2 / 3))
    few = [TunedRegime(1e8, ratio, {"learning_rate": value}) for ratio, value in ((1, 0.016), (2, 0.008), (4, 0.004))]
    middle = predict(RATE, few, 1e9, 8)
    assert (middle.value, middle.low, middle.high, middle.method) == (0.008, 0.004, 0.016, "median")
    assert predict(RATE, [TunedRegime(1e8, 1, {})], 1e9, 1).method == "start"


def test_only_the_sensitive_coordinates_follow_a_law():
    plane = space(RATE, axis("weight_decay", 0.1, 0.2, start=0.1, extend="geometric"))
    told = [
        TunedRegime(n, r, {"learning_rate": 0.004 if n > 4e8 else 0.008, "weight_decay": 0.2 if r == 8 else 0.1})
        for n, r in GROUND
    ]
    found = forecast(plane, told, 1.2e9, 16, only=["learning_rate"])
    assert [each.method for each in found.coordinates.values()] == ["law", "majority"]
    assert found.coordinates["weight_decay"].value == 0.1
    assert found.extrapolation == {"params": pytest.approx(1.2e9 / SIZES[-1]), "ratio": 2.0}
    assert {name for name, _ in found.config} == {name for name, _ in plane.start}
    assert json.loads(json.dumps(found.to_dict()))["config"]["learning_rate"]["method"] == "law"


def test_a_finished_descent_is_a_tuned_regime():
    plane = space(RATE)
    done = run(plane, lambda config: 3 + abs(dict(config)["learning_rate"] - 0.004), 0.0001)
    regime = star_regime(1e8, 2, done)
    assert regime.config["learning_rate"] == 0.004
    assert regime.near["learning_rate"][0.008] == pytest.approx(0.004)
    assert set(regime.near_optimal("learning_rate")) == {0.001, 0.002, 0.004, 0.008}
    nothing = run(plane, lambda config: None, 0.0001)
    with pytest.raises(InputError, match="leave it out"):
        star_regime(1e8, 2, nothing)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(RATE.values), min_size=12, max_size=12), st.floats(1e6, 1e12), st.floats(0.1, 100))
def test_a_prediction_is_on_the_grid_and_within_the_bounds(values, params, ratio):
    told = [TunedRegime(n, r, {"learning_rate": value}) for (n, r), value in zip(GROUND, values, strict=True)]
    found = predict(RATE, told, params, ratio, resamples=20)
    lattice = {*RATE.below, *RATE.values, *RATE.above}
    assert {found.low, found.value, found.high} <= lattice
    assert 1e-6 <= found.low <= found.value <= found.high <= 10


def test_bad_questions_are_refused_in_one_sentence():
    for params, ratio, words in ((0, 1, "params must be"), (1e9, float("nan"), "ratio must be"), (-1, 1, "try 1.2e9")):
        with pytest.raises(InputError, match=words):
            predict(RATE, regimes("learning_rate", lambda n, r: 0.004), params, ratio)
    with pytest.raises(InputError, match="at least one tuned regime"):
        forecast(space(RATE), [], 1e9, 1)
