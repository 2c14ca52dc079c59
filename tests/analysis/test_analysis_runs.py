import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneopt.analysis import measure, read_results, read_runs, winners
from tuneopt.analysis.inputs import from_rows
from tuneopt.analysis.runs import RegimeKey
from tuneopt.spec import SCALES, InputError

ROW = {"optimizer": "muon", "scale": "130m", "ratio": 2, "loss": 3.4}


def test_a_plain_row() -> None:
    (run,) = read_runs([ROW])
    assert run.regime == RegimeKey("", "130m", 2.0) and run.regime.label == "130m/2x"
    assert run.parameters == SCALES["130m"].parameters and run.tokens == 20 * run.parameters * 2
    assert (run.status, run.report_loss) == ("completed", 3.4)


@pytest.mark.parametrize(
    ("row", "scale", "ratio"),
    [
        ({"optimizer": "a", "params": 134217728, "ratio": 1, "loss": 3}, "130m", 1),
        ({"Optimizer": "a", "Parameters": "5e6", "TOKENS": "2e8", "Loss": "3"}, "5m", 2),
        ({"optimizer": "a", "scale": "130M", "tokens": 20 * 134217728 * 4, "loss": 3}, "130m", 4),
        ({"optimizer": "a", "scale": "mine", "tokens": 100_000, "ratio": 3, "loss": 3}, "mine", 3),
    ],
)
def test_other_names_and_ways_to_say_a_regime(row: dict[str, object], scale: str, ratio: float) -> None:
    (run,) = read_runs([row])
    assert (run.regime.scale, run.regime.ratio) == (scale, ratio)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"optimizer": ""}, "names no optimizer"),
        ({"scale": ""}, "no model size"),
        ({"scale": "mine"}, "token budget"),
        ({"ratio": None}, "token budget"),
        ({"ratio": -1}, "ratio must be positive"),
        ({"tokens": -5}, "tokens must be positive"),
        ({"params": 0}, "parameters must be positive"),
        ({"loss": float("nan")}, "loss is nan; leave it empty"),
        ({"loss": float("inf")}, "loss is inf"),
        ({"loss": -3.0}, "loss must be positive"),
        ({"sigma": -0.1}, "sigma must be positive"),
        ({"seconds": -1}, "seconds must not be negative"),
        ({"scale": "", "params": 1.2}, "is of 1.2 parameters; write the count itself, such as 1300000000 or 1.3B"),
        ({"scale": "mine", "params": 0.5}, "is of 0.5 parameters"),
        ({"scale": "0b"}, "is of 0 parameters"),
        ({"scale": "-5m"}, "is of -5e[+]06 parameters"),
        ({"steps": 100, "batch_tokens": 1000}, "but 100 steps of 1000 tokens are 1e[+]05; correct one"),
        ({"config": {"lr": 0.1, "learning_rate": 0.2}}, "config has learning_rate twice, 0.1 and 0.2; keep one"),
        ({"status": "crashed"}, "completed or diverged"),
        ({"status": "completed", "loss": None}, "completed and has no loss"),
        ({"lerning_rate": 0.1}, "unknown column 'lerning_rate'; name a hyperparameter hp_"),
        ({"val_loss": 3.4}, "loss twice"),
        ({"config": "lr: 3"}, "no JSON object"),
        ({"config": [1]}, "must be an object"),
        ({"hp_lr": float("nan")}, "finite number"),
        ({"curve": [[0.5]]}, "curve that cannot be read"),
        ({"curve": [[0, 3.0]]}, "bad point"),
        ({"curve": [[0.5, 3.0]] * 10_001}, "thin it"),
        ({"ratio": "two"}, "ratio must be a number"),
        ({"loss": "low"}, "loss must be a number"),
        ({"ratio": float("inf")}, "finite"),
    ],
)
def test_bad_rows_are_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=f"row 2 .*{word}"):
        read_runs([ROW, {**ROW, **change}])
    with pytest.raises(InputError, match="unknown column 'los'; did you mean 'loss'"):
        read_runs([{"optimizer": "a", "scale": "130m", "ratio": 1, "los": 3}])
    with pytest.raises(InputError, match=r"no columns optimizer, tokens or ratio and loss .*--columns optimizer="):
        from_rows([{"config.rule": "a", "scale": "130m"}], columns={"drop": "config.rule"})
    with pytest.raises(InputError, match="give --columns once for each name"):
        from_rows([ROW], columns={"loss": "val/loss,optimizer=rule"})
    with pytest.raises(InputError, match="no column loss"):
        read_runs([{"optimizer": "a", "scale": "130m", "ratio": 1}])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"optimizer": "a", "tokens": 5e9}, r"no columns parameters or scale and loss \(found 'optimizer', 'tokens'\)"),
        ({"loss": 3.1}, "no columns optimizer, parameters or scale and tokens or ratio .*--columns optimizer=algo"),
        ({"optimizer": "a", "scale": "gpt2-small", "steps": 9, "loss": 3}, "no columns parameters and batch_tokens "),
        ({"optimizer": "a", "scale": "mine", "ratio": 1, "loss": 3}, "not known here; add a column parameters"),
        ({"optimizer": "a", "scale": "130m", "steps": 9, "loss": 3}, "no column batch_tokens .*batch_tokens=524288"),
        ({"optimizer": "a", "target_steps": 9, "target": 0.1}, "no column workload"),
        (
            {"optimizer": "a", "accuracy": 0.6},
            r"'accuracy'; .*needed still: parameters or scale, tokens or ratio, loss",
        ),
    ],
)
def test_all_columns_that_a_table_lacks_are_named_at_once(row: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_runs([row, row])


def test_a_loss_that_is_not_in_nats_is_named() -> None:
    row = {"optimizer": "a", "scale": "130m", "ratio": 1, "bpb": 0.98}
    with pytest.raises(InputError, match="'bpb' is not: bits per byte times ln 2"):
        read_runs([row])
    (note,) = from_rows([row], columns={"loss": "bpb"}).notes
    assert "column bpb, which by its name is not in nats" in note
    assert not from_rows([{"optimizer": "a", "scale": "130m", "ratio": 1, "val/loss": 3.2}]).notes


def test_an_export_of_runs_that_never_finished_says_so() -> None:
    row = {"config.optimizer": "a", "config.scale": "130m", "config.ratio": 1, "eval/loss": 3.2, "State": "crashed"}
    with pytest.raises(InputError, match="none of the 2 runs of the export finished"):
        read_runs([row, row])


def test_the_same_run_twice_is_refused_only_when_seeds_are_named() -> None:
    with pytest.raises(InputError, match="rows 1 and 2"):
        read_runs([{**ROW, "seed": 0}, {**ROW, "seed": 0}])
    assert len(read_runs([{**ROW, "seed": 0, "hp_lr": 1.0}, {**ROW, "seed": 0, "hp_lr": 2.0}])) == 2
    runs = read_runs([ROW, {**ROW, "loss": 3.3}])
    (best,) = winners(runs, measure(runs))
    assert (best.loss, best.runs) == (3.3, 1)


@pytest.mark.parametrize("change", [{"loss": None}, {"loss": ""}, {"status": "diverged"}, {"loss": None, "status": ""}])
def test_an_empty_loss_is_a_divergence(change: dict[str, object]) -> None:
    runs = read_runs([ROW, {**ROW, "optimizer": "lion", **change}])
    assert [run.status for run in runs] == ["completed", "diverged"]
    assert [item.optimizer for item in winners(runs, measure(runs))] == ["muon"]


def configured(losses: dict[float, dict[int, float]]) -> tuple:
    """Results by learning rate and seed."""
    return read_runs(
        {**ROW, "scale": "nano-65k", "config": {"learning_rate": rate}, "seed": seed, "loss": loss}
        for rate, seeds in losses.items()
        for seed, loss in seeds.items()
    )


def test_the_confirmed_configuration_stands_among_near_equals() -> None:
    runs = configured({0.1: {0: 3.400, 1: 3.402, 2: 3.404}, 0.2: {0: 3.398}, 0.4: {0: 3.6}})
    (best,) = winners(runs, measure(runs))
    assert dict(best.config) == {"learning_rate": 0.1}
    assert best.runs == 3 and best.loss == pytest.approx(3.402) and len(best.trials) == 3


def test_a_clearly_lower_configuration_stands_without_confirmation() -> None:
    runs = configured({0.1: {0: 3.400, 1: 3.402, 2: 3.404}, 0.2: {0: 3.3}, 0.4: {0: 3.298}})
    (best,) = winners(runs, measure(runs))
    assert dict(best.config) == {"learning_rate": 0.4} and best.runs == 1


def test_a_lucky_extra_seed_does_not_choose() -> None:
    runs = configured({0.1: {0: 3.4}, 0.2: {0: 3.5, 1: 3.0}})
    (best,) = winners(runs, measure(runs, sigma=0.001))
    assert dict(best.config) == {"learning_rate": 0.1}


def test_files_of_every_kind_read_alike(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "optimizer": "soap", "loss": 3.38}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerows(rows)
    expected = read_runs(rows)
    for suffix in ("json", "jsonl", "parquet", "csv"):
        assert read_runs(read_results(tmp_path / f"a.{suffix}")) == expected


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.txt", "x", "ends in"),
        ("a.json", "[{", "cannot be read"),
        ("a.json", "{}", "list of objects"),
        ("a.json", "[]", "no row"),
        ("a.json", "[1]", "list of objects"),
        ("a.parquet", "no", "cannot be read"),
        ("a.csv", "a,b\n1,2,3\n", "cannot be read"),
        ("absent.csv", None, "no results file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, word: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=word) as caught:
        read_results(tmp_path / name)
    assert "\n" not in str(caught.value)
