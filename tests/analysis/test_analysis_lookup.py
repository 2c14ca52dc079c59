"""Small parts that others stand on: finding trials, aligning curves, spaces, and plain data."""

import math
from dataclasses import replace

import numpy as np
import pytest
from analysis_samples import result
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.analysis.costs import budgets
from tuneopt.analysis.document import plain
from tuneopt.analysis.fairness import Lookup
from tuneopt.analysis.inputs import read_runs
from tuneopt.analysis.runs import Curves, CurveSample, RegimeKey, TrainingRun
from tuneopt.analysis.spaces import axes, searched
from tuneopt.analysis.winner import Winner

REGIME = RegimeKey("", "130m", 1.0)
OWN = (("lr", 0.1),)
OTHER = (("lr", 0.2),)


def run(
    trial: str, config: tuple = OWN, seed: int = 0, loss: float | None = 3.0, status: str = "completed"
) -> TrainingRun:
    return TrainingRun(trial, "a", REGIME, 1, 20.0, config, seed, status, loss, loss)


def chosen(*trials: str, loss: float = 3.0) -> Winner:
    return replace(result("a", 1, loss), config=OWN, trials=trials, runs=len(trials))


def test_the_results_own_configuration_is_the_same() -> None:
    found = Lookup([run("x")]).find(chosen("x"), OWN)
    assert (found.status, found.trial, found.loss, found.regret, found.runs) == ("same", "x", 3.0, 0.0, 1)


def test_a_configuration_that_was_not_run_is_missing_and_a_lost_one_diverged() -> None:
    lookup = Lookup([run("x"), run("lost", OTHER, loss=None, status="diverged")])
    assert lookup.find(chosen("x"), OTHER).status == "diverged" and lookup.find(chosen("x"), OTHER).trial == "lost"
    assert lookup.find(chosen("x"), (("lr", 0.3),)).status == "missing"
    unproven = Lookup([run("x"), run("u", OTHER, loss=1.0, status="unproven")])
    assert unproven.find(chosen("x"), OTHER).status == "missing"


def test_a_regret_pairs_the_seeds() -> None:
    own = [run("x0", seed=0, loss=3.0), run("x1", seed=1, loss=3.2)]
    lookup = Lookup([*own, run("y1", OTHER, 1, 3.5), run("y7", OTHER, 7, 9.0)])
    found = lookup.find(chosen("x0", "x1", loss=3.1), OTHER)
    assert found.regret == pytest.approx(0.3) and found.loss == 3.5 and found.runs == 1 and found.trial == "y1"
    apart = Lookup([*own, run("y7", OTHER, 7, 3.6)]).find(chosen("x0", "x1", loss=3.1), OTHER)
    assert apart.regret == pytest.approx(0.5) and apart.trial == "y7"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(2, 9)), min_size=1, max_size=12, unique_by=lambda p: p[0]))
def test_curves_are_read_in_any_order_and_stay_within_their_losses(points: list[tuple[int, float]]) -> None:
    samples = [CurveSample(at / 40, loss, None) for at, loss in points]
    one = Curves({"t": samples}).at(["t"], (0.1, 0.5, 1.0))[0]
    other = Curves({"t": samples[::-1]}).at(["t"], (0.1, 0.5, 1.0))[0]
    assert np.array_equal(one, other, equal_nan=True)
    first, last = min(points)[0] / 40, max(points)[0] / 40
    for at, loss in zip((0.1, 0.5, 1.0), one, strict=True):
        assert np.isnan(loss) == (not first <= at <= last)
        low, high = min(loss for _, loss in points), max(loss for _, loss in points)
        assert np.isnan(loss) or low - 1e-9 <= loss <= high + 1e-9


def test_many_curves_do_not_mix() -> None:
    curves = Curves(
        {f"t{number}": [CurveSample(at, number + at, -number - at) for at in (1.0, 0.5)] for number in range(50)}
    )
    names = [f"t{number}" for number in (7, 3, 49)]
    assert curves.at(names, (0.5, 0.75)).tolist() == [[7.5, 7.75], [3.5, 3.75], [49.5, 49.75]]
    assert curves.at(names, (0.5,), "report_loss").tolist() == [[-7.5], [-3.5], [-49.5]]


def test_what_tuning_varies() -> None:
    config = {"learning_rate": 0.1, "lr_schedule": "cosine", "min_lr_ratio": 0, "nesterov": False, "strange": 3}
    assert searched("adamw", "130m", config) == ("learning_rate",)
    assert searched("mine", "130m", config) == ("learning_rate", "min_lr_ratio", "strange")
    assert searched("adamw", "unknown", config) == ("learning_rate", "min_lr_ratio", "strange")
    assert axes("mine", "130m") is None and axes("adamw", "unknown") is None
    paper, nano = axes("adamw", "130m"), axes("adamw", "nano-65k")
    assert paper is not None and nano is not None and paper["train_batch_size"] != nano["train_batch_size"]


def test_plain_data_has_no_numbers_that_json_lacks() -> None:
    assert plain((1.0, math.inf, float("nan"), "x", None, {"a": (2,)})) == [1.0, None, None, "x", None, {"a": [2]}]
    row = plain(chosen("x"))
    assert row["config"] == {"lr": 0.1} and (row["corpus"], row["scale"], row["ratio"]) == ("", "130m", 1.0)
    assert "regime" not in row and row["trials"] == ["x"]


def test_budgets_of_a_table_from_elsewhere() -> None:
    rows = [
        {"optimizer": "a", "scale": "130m", "ratio": ratio, "seed": seed, "loss": loss, "seconds": seconds}
        for ratio, seed, loss, seconds in ((1, 0, 3.0, 3600), (1, 1, 3.1, 1800), (2, 0, None, None))
    ]
    (total,) = budgets(read_runs(rows))
    assert (total.trials, total.diverged, total.configurations, total.device_hours) == (3, 1, 2, 1.5)
    assert total.flops is None and total.tokens == 2 * 20 * 134217728 and total.corpus is None
    first, second = budgets(read_runs(rows), by_regime=True)
    assert (first.ratio, first.trials, second.ratio, second.device_hours) == (1.0, 2, 2.0, None)
