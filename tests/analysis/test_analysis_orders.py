"""What ranking unfinished runs would have done, on curves with planted crossings and ties."""

import numpy as np
import pytest
from analysis_samples import DENSE, curves_of, known_noise, result

from tuneopt.analysis.inputs import read_runs
from tuneopt.analysis.ranking import rankings
from tuneopt.analysis.runs import FRACTIONS, Curves, TrainingRun
from tuneopt.analysis.training import TrainingOrder, curve_noise, orders, training_flips
from tuneopt.analysis.winner import Winner

SIGMA = 0.01


def planted(
    offsets: dict[str, tuple[float, float, float]], noise: float = 0.0, seed: int = 0
) -> tuple[list[Winner], Curves]:
    """Each optimizer lies ``early`` above the common curve until ``cross`` of the run and ``late`` after it."""
    rng = np.random.default_rng(seed)
    results, curves = [], {}
    for name, (early, late, cross) in offsets.items():
        losses = 4 - DENSE + np.where(cross - 1e-9 > DENSE, early, late) + noise * rng.standard_normal(len(DENSE))
        results.append(result(name, 1, float(losses[-1])))
        curves[results[-1].trials[0]] = losses
    return results, curves_of(curves)


def order(
    results: list[Winner], curves: Curves, runs: tuple[TrainingRun, ...] = (), among: str = "optimizers"
) -> TrainingOrder:
    noise = known_noise(SIGMA, results)
    found = orders(results, rankings(results, noise), runs, curves, noise)
    return next(each for each in found if each.among == among)


def test_a_late_winner_is_thrown_away_by_an_early_cut() -> None:
    results, curves = planted({"late": (0.3, -0.3, 0.65), "a": (0, 0, 0), "b": (0.1, 0.1, 0), "c": (0.2, 0.2, 0)})
    found = order(results, curves)
    assert found.fractions == FRACTIONS and found.curves == 4
    # The step lies between the points 0.6 and 0.65; 0.6 is the last fraction before it.
    assert found.winner_rank == (4,) * 6 + (1,) * 4
    assert found.crossed == (3,) * 6 + (0,) * 4 and found.significant == found.crossed
    assert found.tau == pytest.approx((0.0,) * 6 + (1.0,) * 4)
    assert found.thrown_away == (("late",),) * 6 + ((),) * 4
    assert found.cut_regret == pytest.approx((0.3,) * 6 + (0.0,) * 4)


def test_a_tied_winner_that_is_cut_is_named_too_and_costs_little() -> None:
    results, curves = planted(
        {"a": (0.2, 0.0, 0.5), "b": (0.0, 0.001, 0.5), "c": (0.1, 0.4, 0.5), "d": (0.5, 0.5, 0.5)}
    )
    found = order(results, curves)
    assert found.thrown_away[0] == ("a",) and found.cut_regret[0] == pytest.approx(0.001)
    assert found.thrown_away[-1] == ()


def test_trials_of_a_tuning_are_ordered_by_the_select_loss() -> None:
    final = [3.0, 3.1, 3.2, 3.3, 3.4]
    shapes = {f"t{k}": final[k] + (1 - DENSE) * (1.0 if k else 2.0) for k in range(5)}  # the best one starts worst
    runs = read_runs(
        {"optimizer": "muon", "scale": "130m", "ratio": 1, "seed": 0, "loss": loss, "hp_lr": k + 1.0, "trial": f"t{k}"}
        for k, loss in enumerate(final)
    )
    found = order([result("muon", 1, 3.0)], curves_of(shapes), runs, "muon")
    assert found.curves == 5 and found.winner_rank[0] == 5 and found.winner_rank[-1] == 1
    assert found.thrown_away[0] == ("t0",) and found.cut_regret[0] == pytest.approx(0.1)
    assert found.thrown_away[-1] == () and found.crossed[0] == 4
    few = orders([], (), runs[:3], curves_of(shapes), known_noise(SIGMA, []))
    assert few == ()


def test_without_curves_there_is_no_order() -> None:
    results, _ = planted({"a": (0, 0, 0), "b": (1, 1, 0)})
    noise = known_noise(SIGMA, results)
    assert orders(results, rankings(results, noise), (), curves_of({"other": 4 - DENSE}), noise) == ()


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_no_flip_is_invented_beyond_the_declared_rate(spread: float) -> None:
    """Six optimizers that never cross, ``spread`` sigmas apart; noise of its own at each point of each curve."""
    offsets = {f"o{number}": (spread * SIGMA * number, spread * SIGMA * number, 0.5) for number in range(6)}
    called = ordered = 0
    for seed in range(200):
        results, curves = planted(offsets, SIGMA, seed)
        noise = known_noise(SIGMA, results)
        called += any(flip.significant for flip in training_flips(results, curves, noise))
        (found,) = orders(results, rankings(results, noise), (), curves, noise)
        ordered += any(found.significant)
    assert called / 200 <= 0.05 and ordered / 200 <= 0.05


def test_all_planted_crossings_are_found_among_ties() -> None:
    offsets = {
        "late": (0.3, -0.2, 0.75), "later": (0.6, -0.1, 0.85), "steady": (0.0, 0.0, 0.5), "tied": (0.0, 0.0, 0.5),
    }  # fmt: skip
    for seed in range(25):
        results, curves = planted(offsets, SIGMA, seed)
        flips = training_flips(results, curves, known_noise(SIGMA, results))
        sure = {flip.pair: flip.fraction for flip in flips if flip.significant}
        assert sure == {
            ("steady", "late"): 0.7, ("tied", "late"): 0.7, ("steady", "later"): 0.8, ("tied", "later"): 0.8,
        }  # fmt: skip
        within = [flip for flip in flips if not flip.significant]
        assert all(set(flip.pair) == {"steady", "tied"} for flip in within)


def test_the_noise_of_curves_is_measured_where_replicates_allow() -> None:
    rng = np.random.default_rng(1)
    wide = np.where(DENSE < 0.5, 0.1, 0.01)
    names = [(rate, seed) for rate in range(8) for seed in range(4)]
    shapes = {f"t{rate}-{seed}": 4 - DENSE + wide * rng.standard_normal(len(DENSE)) for rate, seed in names}
    runs = read_runs(
        {"optimizer": "a", "scale": "130m", "ratio": 1, "seed": seed, "hp_lr": rate + 1.0, "trial": f"t{rate}-{seed}",
         "loss": float(shapes[f"t{rate}-{seed}"][-1])}
        for rate, seed in names
    )  # fmt: skip
    final = known_noise(SIGMA, [result("a", 1, 3.0)])
    measured = curve_noise(runs, curves_of(shapes), final)[runs[0].regime, "a"]
    assert measured[0] is not None and measured[0].sigma == pytest.approx(0.1, rel=0.35) and measured[0].freedom == 24
    assert measured[-1] is not None and measured[-1].sigma == pytest.approx(0.01, rel=0.35)
    few = curve_noise(runs[:3], curves_of(shapes), final)[runs[0].regime, "a"]
    assert all(noise == final.of(runs[0].regime) for noise in few)
    assert curve_noise(runs[::4], curves_of(shapes), final) == {}
