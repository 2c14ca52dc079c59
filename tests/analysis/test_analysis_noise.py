import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.analysis.inputs import read_runs
from tuneopt.analysis.noise import PAPER_LADDER_SIGMA, Noise, measure, pooled
from tuneopt.analysis.runs import TrainingRun
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
    noise = measure(runs).of(runs[0].regime)
    assert noise is not None and noise.source == "measured" and noise.freedom == 240
    assert noise.sigma == pytest.approx(0.01, rel=0.1)


def test_few_replicates_borrow_from_the_scale_and_then_from_all() -> None:
    runs = rows(
        {
            ("adamw", 1.0, "nano-65k", 1.0): [4.0, 4.1, 4.2],
            ("adamw", 1.0, "nano-65k", 2.0): [3.0, 3.2, 3.4],
            ("adamw", 1.0, "nano-147k", 1.0): [2.0, 2.1],
            ("adamw", 1.0, "nano-147k", 2.0): [2.0],
        }
    )
    model = measure(runs)
    places = {(run.regime.scale, run.regime.ratio): model.of(run.regime) for run in runs}
    assert places["nano-65k", 1.0] == places["nano-65k", 2.0]
    assert places["nano-65k", 1.0].pool == "scale nano-65k" and places["nano-65k", 1.0].freedom == 4
    assert places["nano-147k", 1.0].pool == "all scales" and places["nano-147k", 1.0].freedom == 5
    assert places["nano-147k", 2.0] == places["nano-147k", 1.0]


def test_what_comes_first_given_measured_assumed_nothing() -> None:
    single = rows({("adamw", 1.0, "nano-65k", 1.0): [4.0]})
    assert measure(single).of(single[0].regime) is None
    assert measure(single, 0.02).of(single[0].regime) == Noise(0.02, None, "given", "everywhere")
    paper = rows({("adamw", 1.0, "130m", 1.0): [3.5]})
    assumed = measure(paper).of(paper[0].regime)
    assert assumed is not None and (assumed.sigma, assumed.source) == (PAPER_LADDER_SIGMA, "assumed")
    told = read_runs([{"optimizer": "a", "scale": "130m", "ratio": 1, "loss": 3.0, "sigma": 0.004}])
    assert measure(told).of(told[0].regime).sigma == pytest.approx(0.004)  # type: ignore[union-attr]
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="sigma"):
            measure(single, bad)


def test_diverged_runs_do_not_count() -> None:
    runs = rows({("adamw", 1.0, "nano-65k", 1.0): [4.0, None, 4.2]})
    noise = measure(runs).of(runs[0].regime)
    assert noise is not None and noise.freedom == 1 and noise.sigma == pytest.approx(0.2 / np.sqrt(2))


def test_the_threshold_is_the_designs_tolerance_and_wider_for_few_replicates() -> None:
    known = Noise(0.01, None, "given", "")
    assert known.threshold() == pytest.approx(1.645 * np.sqrt(2) * 0.01, rel=1e-3)
    assert known.threshold(4, 4) == pytest.approx(known.threshold() / 2)
    assert Noise(0.01, 2, "measured", "").threshold() > 1.7 * known.threshold()
    rng = np.random.default_rng(1)
    difference = 0.01 * (rng.standard_normal(20_000) - rng.standard_normal(20_000))
    assert np.mean(difference > known.threshold()) == pytest.approx(0.05, abs=0.006)
