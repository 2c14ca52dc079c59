"""Stars from whatever trials exist, and which coordinates scale, on surfaces whose optimum moves as told."""

import math
from typing import Any

import pytest
from analysis_samples import published

from tuneopt.analysis.coordinates import CoordinateScaling, coordinate_scaling
from tuneopt.analysis.inputs import read_runs
from tuneopt.analysis.noise import measure
from tuneopt.analysis.sensitivity import Star, stars
from tuneopt.analysis.winner import winners

RATES = (0.001, 0.002, 0.004, 0.008, 0.016)
DECAYS = (0.0, 0.1, 0.2)


def rows(
    moves: float, ratios: tuple[float, ...] = (1, 2, 4), skip: tuple[tuple[float, float], ...] = ()
) -> list[dict[str, Any]]:
    """The best rate is 0.004 at 1x and falls as ratio^-moves; the best decay is 0.1 everywhere."""
    found = []
    for ratio in ratios:
        best = 0.004 * ratio**-moves
        for rate in RATES:
            for decay in DECAYS:
                if (ratio, rate) not in skip:
                    loss = 3.0 / ratio**0.1 + 0.02 * math.log2(rate / best) ** 2 + 2 * (decay - 0.1) ** 2
                    found.append(
                        {
                            "optimizer": "custom", "scale": "mine", "params": 1e8, "ratio": ratio, "seed": 0,
                            "loss": loss, "hp_learning_rate": rate, "hp_weight_decay": decay,
                        }
                    )  # fmt: skip
    return found


def scaling(
    table: list[dict[str, Any]], near: float | None = None
) -> tuple[dict[str, CoordinateScaling], tuple[Star, ...]]:
    runs = read_runs(table)
    noise = measure(runs)
    results = winners(runs, noise)
    around = stars(results, runs, noise, near)
    return {each.coordinate: each for each in coordinate_scaling(results, around)}, around


def test_a_moving_optimum_scales_and_a_still_one_does_not() -> None:
    found, around = scaling(rows(moves=1.0))
    rate, decay = found["learning_rate"], found["weight_decay"]
    assert rate.scales is True and rate.shared == ()
    assert [value for _, value in rate.tuned] == [0.004, 0.002, 0.001]
    assert decay.scales is False and decay.shared == (0.1,) and decay.regimes == 3
    assert len(around) == 3 and all(len(star.sensitivities) == 2 for star in around)
    assert around[0].sensitivities[0].coordinate == "learning_rate"  # the most sensitive first
    assert around[0].sensitivities[0].losses == pytest.approx([3.0 + 0.02 * step**2 for step in (-2, -1, 0, 1, 2)])


def test_a_wide_threshold_makes_a_value_shared() -> None:
    found, _ = scaling(rows(moves=0.5, ratios=(1, 4)), near=0.021)
    assert found["learning_rate"].scales is False and found["learning_rate"].shared == (0.002, 0.004)
    assert found["learning_rate"].threshold == 0.021
    assert scaling(rows(moves=0.5, ratios=(1, 4)))[0]["learning_rate"].scales is True


def test_a_value_that_was_not_run_everywhere_decides_nothing() -> None:
    found, _ = scaling(rows(moves=1.0, ratios=(1, 2), skip=((2, 0.004),)))
    assert found["learning_rate"].scales is None and found["learning_rate"].shared == ()


def test_noise_widens_what_counts_as_near() -> None:
    table = [row | {"sigma": 0.02} for row in rows(moves=0.0)]
    _, around = scaling(table)
    assert around[0].threshold == pytest.approx(1.645 * math.sqrt(2) * 0.02, rel=1e-3)
    assert len(around[0].sensitivities[0].near_optimal) == 3


def test_one_regime_or_no_configuration_says_nothing() -> None:
    assert scaling(rows(moves=1.0, ratios=(1,)))[0] == {}
    bare = [{"optimizer": "a", "scale": "130m", "ratio": ratio, "loss": 3.0} for ratio in (1, 2)]
    assert scaling(bare) == ({}, ())


def test_the_published_stars_give_the_published_coordinates() -> None:
    """Phase II of the study retunes what has no single near-optimal value; its list must not be contradicted."""
    table = []
    for star in published("stars.json"):
        place = {key: star[key] for key in ("optimizer", "scale", "ratio")}
        table.append({**place, "loss": star["incumbent_loss"], "config": star["incumbent"]})
        table += [
            {**place, "loss": loss, "config": star["incumbent"] | {name: value}}
            for name, value, loss in star["changes"]
            if value != star["incumbent"][name]
        ]
    runs = read_runs(table)
    noise = measure(runs)
    results = winners(runs, noise)
    around = stars(results, runs, noise)
    assert len(around) >= 75
    found = {(each.optimizer, each.coordinate): each.scales for each in coordinate_scaling(results, around)}
    for optimizer, name in (("muon", "learning_rate"), ("adamw", "train_batch_size"), ("mars", "warmup")):
        assert found[optimizer, name] is not False
    for optimizer, name in (("adamw", "epsilon"), ("muon", "muon_epsilon"), ("muon", "weight_decay")):
        assert found[optimizer, name] is not True
