"""Blind transfer, the under-tuned baseline, and edges, on trials whose losses follow a known surface."""

import math
from dataclasses import replace
from typing import Any

import pytest
from analysis_samples import PARAMETERS, law

from tuneopt.analysis.coordinates import edges
from tuneopt.analysis.fairness import GPT3_RATE, Transfer, Undertuned, transfers, undertuned
from tuneopt.analysis.inputs import published, read_runs
from tuneopt.analysis.noise import NoiseModel, measure
from tuneopt.analysis.runs import TrainingRun
from tuneopt.analysis.speedup import baseline_laws
from tuneopt.analysis.winner import winners

BEST = {"adamw": {"learning_rate": 0.008, "weight_decay": 0.1}, "lion": {"learning_rate": 0.001, "weight_decay": 0.4}}
SPEEDS = {"adamw": 1.0, "lion": 1.2}


def loss(name: str, ratio: float, config: dict[str, float]) -> float:
    """The law's loss and a bowl in log space around the optimizer's best values."""
    bowl = sum((math.log(value / BEST[name][key])) ** 2 for key, value in config.items() if key in BEST[name])
    return float(law(20 * PARAMETERS * ratio * SPEEDS[name])) + 0.01 * bowl


def row(name: str, ratio: float, seed: int = 0, **change: Any) -> dict[str, Any]:
    config = BEST[name] | change
    return {
        "optimizer": name, "scale": "130m", "ratio": ratio, "seed": seed,
        "loss": loss(name, ratio, config), "config": config,
    }  # fmt: skip


def tuned() -> list[dict[str, Any]]:
    return [row(name, ratio) for name in BEST for ratio in (1, 2, 4, 8)]


def matrix(rows: list[dict[str, Any]]) -> dict[tuple[str, str, float], Transfer]:
    runs = read_runs(rows)
    noise = measure(runs)
    results = winners(runs, noise)
    return {
        (cell.optimizer, cell.donor, cell.regime.ratio): cell
        for cell in transfers(results, runs, baseline_laws(results, noise))
    }


def test_an_existing_trial_fills_its_cell() -> None:
    blind = {"learning_rate": 0.001, "weight_decay": 0.4}
    cells = matrix([*tuned(), row("adamw", 1, **blind)])
    assert len(cells) == 8
    cell = cells["adamw", "lion", 1.0]
    assert cell.status == "trial" and dict(cell.taken) == blind and dict(cell.config) == blind
    expected = 0.01 * (math.log(8) ** 2 + math.log(4) ** 2)
    assert cell.regret == pytest.approx(expected) and cell.loss == pytest.approx(loss("adamw", 1, blind))
    # The speedup lost, from the law that the losses were made with: D_eff solves law(D_eff) = loss.
    effective = ((cell.loss - 3.1113) / 19421.6) ** (-1 / 0.495)
    assert cell.speedup == pytest.approx(effective / (20 * PARAMETERS), rel=1e-3)
    assert cell.speedup_tuned == pytest.approx(1.0, rel=1e-3)
    assert cell.speedup_regret == pytest.approx(cell.speedup_tuned - cell.speedup)


def test_a_transfer_that_no_run_of_the_baseline_is_near_has_a_regret_and_no_speedup() -> None:
    """A sixteenth of AdamW's smallest budget is as far down as its law says anything."""
    blind = {**row("adamw", 8, learning_rate=0.001, weight_decay=0.4), "loss": loss("adamw", 8, BEST["adamw"]) + 5.0}
    cell = matrix([*tuned(), blind])["adamw", "lion", 8.0]
    assert cell.status == "trial" and cell.regret == pytest.approx(5.0)
    assert (cell.speedup, cell.speedup_regret) == (None, None) and cell.speedup_tuned == pytest.approx(1.0, rel=1e-3)


def test_a_missing_trial_names_its_configuration() -> None:
    cell = matrix(tuned())["lion", "adamw", 2.0]
    assert cell.status == "missing" and cell.trial is None
    assert dict(cell.config) == {"learning_rate": 0.008, "weight_decay": 0.1}
    assert (cell.loss, cell.regret, cell.speedup, cell.speedup_regret) == (None,) * 4
    assert cell.speedup_tuned == pytest.approx(1.2, rel=1e-3)


def test_a_diverged_trial_is_said() -> None:
    lost = {**row("lion", 1, learning_rate=0.008, weight_decay=0.1), "loss": None}
    cell = matrix([*tuned(), lost])["lion", "adamw", 1.0]
    assert (cell.status, cell.regret) == ("diverged", None) and cell.trial is not None


def test_equal_shared_values_cost_nothing() -> None:
    rows = [*tuned(), *({**each, "optimizer": "twin"} for each in tuned() if each["optimizer"] == "adamw")]
    cell = matrix(rows)["twin", "adamw", 1.0]
    assert (cell.status, cell.regret, cell.taken, cell.speedup_regret) == ("same", 0.0, (), 0.0)


def test_only_what_both_tune_is_taken_over() -> None:
    extra = [
        {**each, "config": each["config"] | {"beta": 0.9}} if each["optimizer"] == "lion" else each for each in tuned()
    ]
    cells = matrix(extra)
    assert {name for name, _ in cells["lion", "adamw", 1.0].taken} == {"learning_rate", "weight_decay"}
    assert "beta" not in dict(cells["adamw", "lion", 1.0].config)
    # Schedules are fixed by the declared spaces of muon and adamw, not tuned.
    runs = published().runs
    noise = measure(runs)
    results = winners(runs, noise)
    found = transfers(results, runs, baseline_laws(results, noise))
    cell = next(cell for cell in found if (cell.optimizer, cell.donor) == ("muon", "adamw"))
    assert not {"lr_schedule", "min_lr_ratio", "warmup", "nesterov"} & dict(cell.taken).keys()


def test_regret_is_taken_on_the_seeds_that_both_have() -> None:
    rows = tuned()
    offset = {0: 0.0, 1: 0.05, 2: -0.02}
    blind = {"learning_rate": 0.001, "weight_decay": 0.4}
    for seed in (1, 2):
        rows.append({**row("adamw", 1, seed), "loss": loss("adamw", 1, BEST["adamw"]) + offset[seed]})
    rows.append({**row("adamw", 1, 1, **blind), "loss": loss("adamw", 1, blind) + offset[1]})
    cell = matrix(rows)["adamw", "lion", 1.0]
    assert cell.regret == pytest.approx(0.01 * (math.log(8) ** 2 + math.log(4) ** 2))


def under(rows: list[dict[str, Any]], sigma: float | None = 0.0012) -> dict[tuple[str, float], Undertuned]:
    runs: tuple[TrainingRun, ...] = read_runs(rows)
    noise = measure(runs, sigma) if sigma else NoiseModel({})
    results = winners(runs, noise)
    found = undertuned(results, runs, baseline_laws(results, noise), noise)
    return {(each.what, each.regime.ratio): each for each in found}


def test_the_speedup_that_gpt3s_learning_rate_manufactures() -> None:
    rows = [*tuned(), row("adamw", 2, learning_rate=GPT3_RATE), row("adamw", 2, learning_rate=0.004)]
    found = under(rows)
    gpt3, half = found["learning_rate = 0.0006", 2.0], found["learning_rate = 0.004", 2.0]
    for each, rate in ((gpt3, GPT3_RATE), (half, 0.004)):
        assert each.gpt3 == (rate == GPT3_RATE) and each.status == "trial" and each.kind == "learning rate"
        assert each.regret == pytest.approx(0.01 * math.log(0.008 / rate) ** 2)
        effective = ((loss("adamw", 2, BEST["adamw"] | {"learning_rate": rate}) - 3.1113) / 19421.6) ** (-1 / 0.495)
        assert each.manufactured == pytest.approx(40 * PARAMETERS / effective, rel=2e-3)
        assert each.low is not None and each.high is not None and each.low < each.manufactured < each.high
    assert gpt3.manufactured > half.manufactured > 1  # type: ignore[operator]
    other = found["learning_rate = 0.0006", 1.0]
    assert other.status == "missing" and dict(other.config) == {"learning_rate": GPT3_RATE, "weight_decay": 0.1}
    assert under(rows, None)["learning_rate = 0.0006", 2.0].low is None


def test_a_baseline_tuned_at_another_ratio() -> None:
    rows = tuned()
    rows[0] = {**rows[0], "config": {"learning_rate": 0.016, "weight_decay": 0.1}}  # tuned at 1x
    rows.append(row("adamw", 8, learning_rate=0.016))
    found = under(rows)
    moved = found["tuned at 1x", 8.0]
    assert moved.kind == "other ratio" and moved.status == "trial" and moved.manufactured > 1  # type: ignore[operator]
    assert found["tuned at 2x", 8.0].status == "same" and found["tuned at 2x", 8.0].manufactured == 1.0
    assert found["tuned at 1x", 4.0].status == "missing"
    assert "tuned at 8x" not in {what for what, ratio in found if ratio == 8.0}


def test_the_published_study_names_what_it_does_not_hold() -> None:
    runs = published().runs
    noise = measure(runs)
    results = winners(runs, noise)
    found = undertuned(results, runs, baseline_laws(results, noise), noise)
    assert len(found) == 12 * 4
    rates = [each for each in found if each.gpt3]
    assert len(rates) == 12 and all(each.status == "missing" and each.manufactured is None for each in rates)
    assert all(dict(each.config)["learning_rate"] == GPT3_RATE for each in rates)
    assert {each.status for each in found if each.kind == "other ratio"} == {"same", "missing"}


def test_edges_by_what_was_run() -> None:
    rows = [row("adamw", 1, **{key: value}) for key, value in (
        ("learning_rate", 0.008), ("learning_rate", 0.004), ("weight_decay", 0.2), ("weight_decay", 0.05))]  # fmt: skip
    runs = read_runs(rows)
    (edge,) = edges(winners(runs, measure(runs)), runs)
    assert (edge.coordinate, edge.value, edge.side, edge.tried) == ("learning_rate", 0.008, "high", 2)
    closed = read_runs([*rows, row("adamw", 1, learning_rate=0.016)])
    assert edges(winners(closed, measure(closed)), closed) == ()


def test_off_and_bounds_are_no_edges_and_grids_stand_in() -> None:
    runs = published().runs
    found = edges(winners(runs, measure(runs)), runs)
    assert found and all(each.tried == 1 and "declared grid" in each.why for each in found)
    values = {(each.coordinate, each.value) for each in found}
    assert ("max_grad_norm", 0) not in values and ("weight_decay", 0) not in values
    assert all(each.side in ("low", "high") for each in found)
    muon = {each.coordinate: each.side for each in found if (each.optimizer, each.regime.label) == ("muon", "300m/2x")}
    assert muon["learning_rate"] == "low" and muon["momentum"] == "high" and "weight_decay" not in muon


def test_a_trial_of_the_same_precision_is_preferred() -> None:
    runs = [*read_runs(tuned()), *read_runs([row("adamw", 1, 0, learning_rate=0.001, weight_decay=0.4)])]
    blind = runs.pop()
    other = replace(blind, trial="bf16", variant=("bf16",), report_loss=9.0)
    same = replace(blind, trial="fp32")
    results = winners(runs, NoiseModel({}))
    for order in ([other, same], [same, other]):
        cells = transfers(results, [*runs, *order], ())
        cell = next(each for each in cells if (each.optimizer, each.regime.ratio) == ("adamw", 1.0))
        assert cell.trial == "fp32" and cell.loss == blind.report_loss
    (only,) = [each for each in transfers(results, [*runs, other], ()) if each.trial == "bf16"]
    assert only.loss == 9.0
