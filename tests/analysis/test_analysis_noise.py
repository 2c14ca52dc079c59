from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from tuneopt.analysis.inputs import read_runs
from tuneopt.analysis.noise import PAPER_LADDER_SIGMA, Noise, difference_noise, measure, pair_span, pooled
from tuneopt.analysis.ranking import rankings
from tuneopt.analysis.runs import TrainingRun
from tuneopt.analysis.winner import winners
from tuneopt.spec import InputError


def rows(losses: dict[tuple[str, float, str, float], list[float | None]]) -> tuple[TrainingRun, ...]:
    """Keys: optimizer, learning rate, scale, ratio; values: losses by seed, None for a divergence."""
    return read_runs(
        {"optimizer": name, "scale": scale, "ratio": ratio, "config": {"lr": rate}, "seed": seed, "loss": loss}
        for (name, rate, scale, ratio), values in losses.items()
        for seed, loss in enumerate(values)
    )


def test_pooled_is_the_root_of_the_shared_variance() -> None:
    assert pooled([[1.0, 3.0], [10.0, 12.0, 14.0], [5.0]]) == (pytest.approx(np.sqrt(10 / 3)), 3)
    assert pooled([[1.0], []]) == (0.0, 0)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.floats(-5, 5), max_size=4), max_size=4), st.floats(-3, 3))
def test_pooled_ignores_the_level_of_each_group(groups: list[list[float]], shift: float) -> None:
    moved = [[value + shift * number for value in group] for number, group in enumerate(groups)]
    assert pooled(moved)[0] == pytest.approx(pooled(groups)[0], abs=1e-6)
    assert pooled(moved)[1] == pooled(groups)[1] == sum(max(len(group) - 1, 0) for group in groups)


def test_sigma_is_recovered_from_replicates() -> None:
    rng = np.random.default_rng(0)
    groups = {("adamw", float(rate), "nano-65k", 1.0): list(4 + 0.01 * rng.standard_normal(5)) for rate in range(60)}
    runs = rows(groups)
    noise = measure(runs).of(runs[0].regime, "adamw")
    assert noise is not None and noise.source == "measured" and noise.pool == "adamw at nano-65k/1x"
    assert noise.sigma == pytest.approx(0.01, rel=0.1)
    assert noise.freedom is not None and 240 < noise.freedom < 300  # 240 measured, the rest from the prior


def test_few_replicates_borrow_from_neighbours_and_many_do_not() -> None:
    """A cell without replicates lies between the law over N and what its neighbours show; others stand on their own."""
    rng = np.random.default_rng(2)
    loud = {("adamw", float(rate), "nano-65k", 1.0): list(4 + 0.1 * rng.standard_normal(4)) for rate in range(5)}
    runs = rows(loud | {("adamw", 1.0, "nano-65k", 2.0): [3.0], ("muon", 1.0, "nano-1m", 8.0): [2.0]})
    model = measure(runs)
    by_place = {(run.regime.ratio, run.optimizer): model.of(run.regime, run.optimizer) for run in runs}
    own, near, far = by_place[1.0, "adamw"], by_place[2.0, "adamw"], by_place[8.0, "muon"]
    assert own is not None and near is not None and far is not None
    assert own.sigma == pytest.approx(0.1, rel=0.35)
    assert 0.025 < near.sigma < own.sigma and near.freedom < own.freedom  # type: ignore[operator]
    assert far.sigma < near.sigma and far.source == "measured" and "other regimes" in far.pool


def test_scales_of_unknown_size_pool_replicates() -> None:
    known = rows(
        {
            ("adamw", 1.0, "nano-65k", 1.0): [4.0, 4.1, 4.2],
            ("adamw", 1.0, "nano-65k", 2.0): [3.0, 3.2, 3.4],
            ("adamw", 1.0, "nano-147k", 1.0): [2.0],
        }
    )
    runs = [replace(run, parameters=None) for run in known]
    model = measure(runs)
    places = {(run.regime.scale, run.regime.ratio): model.of(run.regime) for run in runs}
    assert places["nano-65k", 1.0] == places["nano-65k", 2.0]
    assert places["nano-65k", 1.0].pool == "scale nano-65k"  # type: ignore[union-attr]
    assert places["nano-65k", 1.0].freedom == 4  # type: ignore[union-attr]
    assert places["nano-147k", 1.0].pool == "all scales"  # type: ignore[union-attr]


REAL = {
    ("adamw", 1.0, "nano-65k", 0.25): [5.88, 5.12, 5.36],
    ("muon", 1.0, "nano-65k", 0.25): [4.87, 4.84, 4.83],
    ("soap", 1.0, "nano-65k", 0.25): [5.02, 4.99, 5.01],
}
"""Select losses of a small real study: AdamW's seeds lie 0.39 nats apart, those of the others 0.02."""


def test_optimizers_of_unequal_noise_keep_their_own_and_are_told_apart() -> None:
    """Pooled, AdamW's 0.39 would be everybody's, and would tie Muon with SOAP, nine of their own sigmas away."""
    runs = rows(REAL)
    model = measure(runs)
    noise = {run.optimizer: model.of(run.regime, run.optimizer) for run in runs}
    adamw, muon, soap = (noise[name] for name in ("adamw", "muon", "soap"))
    assert adamw is not None and muon is not None and soap is not None
    assert adamw.sigma > 5 * muon.sigma and muon.sigma < 0.1 and soap.sigma < 0.1
    assert model.of(runs[0].regime) == adamw  # the one bar for all is the largest
    groups = {ranking.order: ranking.groups for ranking in rankings(winners(runs, model), model)}
    assert groups == {("muon", "soap", "adamw"): (1, 2, 2)}
    means = {name: np.mean(losses) for (name, *_), losses in REAL.items()}
    assert means["soap"] - means["muon"] > pair_span(muon, 3, soap, 3, compared=3)
    assert means["adamw"] - means["muon"] < pair_span(muon, 3, adamw, 3, compared=3)  # p = 0.11 by Welch's test


def test_a_difference_is_welchs_where_sigmas_differ_and_students_where_they_are_one() -> None:
    rng = np.random.default_rng(5)
    one, other = rng.standard_normal(5), 4 * rng.standard_normal(9)
    first = Noise(float(np.std(one, ddof=1)), 4, "measured", "a")
    second = Noise(float(np.std(other, ddof=1)), 8, "measured", "b")
    apart = difference_noise(first, 5, second, 9)
    welch = ttest_ind(one, other, equal_var=False)
    assert apart.sigma == pytest.approx(abs((one.mean() - other.mean()) / welch.statistic))
    assert apart.freedom == pytest.approx(welch.df)
    assert difference_noise(first, 5, first, 5).freedom == 4
    known = Noise(0.01, None, "given", "")
    assert difference_noise(known, 1, Noise(0.02, None, "given", ""), 1).freedom is None
    assert difference_noise(known, 1, first, 5).freedom == pytest.approx(4, rel=0.01)


def test_two_results_of_equal_optimizers_differ_as_rarely_as_declared_whatever_their_sigmas() -> None:
    """Games and Howell's bar for three means of unequal noise, sigmas estimated from the very runs."""
    rng = np.random.default_rng(11)
    sigmas, runs, hits = (0.01, 0.03, 0.1), (4, 5, 6), 0
    studies = 600
    for _ in range(studies):
        losses = [sigma * rng.standard_normal(count) for sigma, count in zip(sigmas, runs, strict=True)]
        noise = [Noise(float(np.std(each, ddof=1)), len(each) - 1, "measured", str(len(each))) for each in losses]
        hits += any(
            abs(losses[a].mean() - losses[b].mean()) > pair_span(noise[a], runs[a], noise[b], runs[b], 3)
            for a, b in ((0, 1), (0, 2), (1, 2))
        )
    assert hits / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_what_comes_first_given_measured_assumed_nothing() -> None:
    single = rows({("adamw", 1.0, "nano-65k", 1.0): [4.0]})
    assert measure(single).of(single[0].regime) is None
    assert measure(single, 0.02).of(single[0].regime) == Noise(0.02, None, "given", "everywhere")
    paper = rows({("adamw", 1.0, "130m", 1.0): [3.5]})
    assumed = measure(paper).of(paper[0].regime)
    assert assumed is not None and (assumed.sigma, assumed.source) == (PAPER_LADDER_SIGMA, "assumed")
    for scale, own in (({"parameters": 130_000_000}, False), ({"parameters": 134_000_000}, False),
                       ({"model": "130M", "parameters": 130_000_000}, False), ({"model": "130M"}, True)):  # fmt: skip
        runs = read_runs([{"optimizer": "a", "ratio": 1, "loss": 3.0, **scale}])
        assert (measure(runs).of(runs[0].regime) is not None) == own, scale
    told = read_runs([{"optimizer": "a", "scale": "130m", "ratio": 1, "loss": 3.0, "sigma": 0.004}])
    assert measure(told).of(told[0].regime).sigma == pytest.approx(0.004)  # type: ignore[union-attr]
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="sigma"):
            measure(single, bad)


def test_diverged_runs_do_not_count() -> None:
    runs = rows({("adamw", 1.0, "nano-65k", 1.0): [4.0, None, 4.2]})
    both = measure(runs).of(runs[0].regime)
    assert both == measure(run for run in runs if run.status == "completed").of(runs[0].regime)
    assert both is not None and 0.025 < both.sigma < 0.2


def test_the_threshold_is_the_designs_tolerance_and_wider_for_few_replicates() -> None:
    known = Noise(0.01, None, "given", "")
    assert known.threshold() == pytest.approx(1.645 * np.sqrt(2) * 0.01, rel=1e-3)
    assert known.threshold(4, 4) == pytest.approx(known.threshold() / 2)
    assert Noise(0.01, 2, "measured", "").threshold() > 1.7 * known.threshold()
    rng = np.random.default_rng(1)
    difference = 0.01 * (rng.standard_normal(20_000) - rng.standard_normal(20_000))
    assert np.mean(difference > known.threshold()) == pytest.approx(0.05, abs=0.006)
