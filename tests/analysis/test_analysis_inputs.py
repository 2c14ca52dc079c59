"""Sources of results: synonyms, curves and costs in a table, the published study, and the tables that come out."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from analysis_samples import published as paper

from tuneopt import analysis
from tuneopt.analysis.inputs import Inputs, as_inputs, from_rows, load, published, read_runs
from tuneopt.analysis.results import LARGEST_FILE
from tuneopt.analysis.rows import LARGEST_ROWS, parse
from tuneopt.analysis.runs import Role, TrainingRun
from tuneopt.analysis.study import Analysis, analyse
from tuneopt.analysis.vocabulary import COLUMNS
from tuneopt.spec import InputError

ROW = {"optimizer": "muon", "scale": "130m", "ratio": 2, "loss": 3.4}


@pytest.mark.parametrize(
    ("column", "word"), [(column, word) for column, words in COLUMNS.items() for word in (column, *words)]
)
def test_every_synonym_is_read(column: str, word: str) -> None:
    values = {
        "optimizer": "muon", "scale": "130m", "parameters": 134217728, "status": "completed", "corpus": "c4",
        "curve": [[0.5, 4.0]], "config": {"lr": 1}, "trial": "x", "tokens": 5_368_709_120, "tokens_per_parameter": 40,
        "peak_bytes": 2**30, "checkpoint_bytes": 2**30,
    }  # fmt: skip
    row: dict[str, object] = {key: value for key, value in ROW.items() if key != column}
    spelled = word.upper().replace("_", "-")
    (run,) = read_runs([row | {spelled: values.get(column, 2)}])
    (plain,) = read_runs([row | {column: values.get(column, 2)}])
    assert run == plain


def test_columns_aside_are_left_alone_and_costs_are_read() -> None:
    row = ROW | {
        "family": "matrix",
        "Notes": "x",
        "seconds": 3,
        "flops": "1e18",
        "peak_memory": "23.5G",
        "checkpoint_bytes": 0,
    }
    (run,) = read_runs([row])
    assert (run.seconds, run.device_seconds, run.flops, run.peak_bytes, run.checkpoint_bytes) == (
        3, 3, 1e18, 23_500_000_000, 0
    )  # fmt: skip


@pytest.mark.parametrize(
    "curve",
    [
        [[0.5, 4.0], [1.0, 3.4]],
        "[[1.0, 3.4], [0.5, 4.0]]",
        [{"fraction": 0.5, "loss": 4.0}, {"fraction": 1, "loss": 3.4}],
    ],
)
def test_curves_in_a_table(curve: object) -> None:
    inputs = from_rows([ROW | {"curve": curve, "trial": "t"}, ROW])
    assert [run.curve for run in inputs.runs] == [((0.5, 4.0, 4.0), (1.0, 3.4, 3.4)), ()]


def test_curves_may_come_apart_from_their_rows() -> None:
    table = pa.table(
        {"trial": ["t", "t"], "fraction": [1.0, 0.5], "select_loss": [3.4, None], "report_loss": [3.5, 4.1]}
    )
    first, second = from_rows([ROW | {"trial": "t"}, ROW], curves=table).runs
    assert first.curve == ((0.5, None, 4.1), (1.0, 3.4, 3.5)) and second.curve == ()


def test_config_as_text_as_columns_or_as_an_object() -> None:
    rows = [ROW | {"config": '{"lr": 0.1}'}, ROW | {"hp_lr": 0.1}, ROW | {"config": {"lr": 0.1, "gone": None}}]
    assert {run.config for run in read_runs(rows)} == {(("learning_rate", 0.1),)}, "one name, wherever it stands"
    assert [run.variant for run in read_runs(rows)] == [(0,), (1,), (2,)]  # unnamed seeds never pass for replicates


def test_doubled_names_and_too_many_rows_are_refused() -> None:
    with pytest.raises(InputError, match="rows 1 and 2 of the results are both called 'x'"):
        read_runs([ROW | {"trial": "x"}, ROW | {"trial": "x", "ratio": 4}])
    with pytest.raises(InputError, match="over the limit"):
        parse([ROW] * (LARGEST_ROWS + 1))
    with pytest.raises(InputError, match="row 1 of the results is no object"):
        parse([3])  # type: ignore[list-item]


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LARGEST_FILE, ".json", 10)
    (tmp_path / "a.json").write_text(json.dumps([ROW]))
    with pytest.raises(InputError, match="larger than"):
        load(tmp_path / "a.json")


def test_an_exported_file_gives_the_same_runs_as_rows(tmp_path: Path) -> None:
    rows = [
        ROW | {"curve": [[0.5, 4.0], [1.0, 3.4]], "config": {"lr": 0.1}},
        ROW | {"optimizer": "soap", "curve": None, "config": None},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.json", "a.parquet"):
        inputs = load(tmp_path / name)
        assert inputs.source == f"file {name}" and inputs.runs == read_runs(rows)
        assert [len(run.curve) for run in inputs.runs] == [2, 0]
    assert as_inputs(inputs) is inputs and as_inputs(inputs.runs).runs == inputs.runs


def test_the_published_study_is_the_papers_table() -> None:
    inputs = published()
    assert len(inputs.runs) == 126 and len(inputs.notes) == 2 and "2509.02046" in inputs.source
    ours = {(run.optimizer, run.regime.scale, run.regime.ratio): run for run in inputs.runs}
    for row in paper("results.json"):
        run = ours[row["optimizer"], row["scale"], row["ratio"]]
        assert run.report_loss == pytest.approx(row["loss"], abs=6e-5)
        config = dict(run.config)
        assert all(config[name] == value for name, value in row["config"].items() if name in config)


@pytest.fixture(scope="module")
def study() -> Analysis:
    return analyse(published(), draws=100)


TABLES = {
    "speedups": ("optimizer", "corpus", "scale", "ratio", "speedup", "low", "high", "flags"),
    "rankings": ("scale", "ratio", "place", "optimizer", "loss", "tie_group", "span"),
    "leaders": ("scale", "ratio", "leaders", "optimizer", "nats", "speedup", "sentence"),
    "joint_factors": ("scale", "optimizer", "factor", "low", "high", "exponent", "rms"),
    "joint_residuals": ("fit", "optimizer", "scale", "ratio", "residual"),
    "order_flips": ("kind", "pair", "where", "significant"),
    "training_orders": (),
    "transfers": ("optimizer", "donor", "taken", "config", "status", "regret", "speedup_regret"),
    "undertuned_runs": ("kind", "what", "gpt3", "status", "manufactured"),
    "budgets": ("optimizer", "scale", "ratio", "trials"),
    "edge_values": ("optimizer", "coordinate", "value", "side"),
    "sensitivities": (),
    "coordinate_scaling": ("optimizer", "coordinate", "tuned", "shared", "scales"),
    "hyper_scaling": ("optimizer", "coordinate", "method", "b", "b_low", "c_high", "points"),
    "cost_ranks": ("optimizer", "tokens", "seconds", "rank_loss", "rank_seconds"),
    "pareto_points": (),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_figure_comes_as_a_table(study: Analysis, name: str) -> None:
    table = getattr(analysis, name)(study)
    assert isinstance(table, pa.Table) and set(TABLES[name]) <= set(table.column_names)
    assert (table.num_rows > 0) == bool(TABLES[name])
    assert "regime" not in table.column_names


def test_tables_take_any_source(tmp_path: Path) -> None:
    rows = [
        {"optimizer": name, "scale": "130m", "ratio": ratio, "loss": 3.0 + (factor * ratio) ** -0.5,
         "curve": [[at, 5.0 - at] for at in (0.1, 0.5, 1.0)]}
        for name, factor in (("adamw", 1.0), ("muon", 1.3)) for ratio in (1, 2, 4)
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(rows))
    expected = analysis.speedups(rows, draws=50)
    assert (
        analysis.speedups(tmp_path / "a.json", draws=50)
        == expected
        == analysis.speedups(str(tmp_path / "a.json"), draws=50)
    )
    assert analysis.speedups(from_rows(rows), draws=50) == expected
    assert analysis.speedups(read_runs(rows), draws=50, sigma=0.1) != expected
    assert expected["speedup"].to_pylist()[-1] == pytest.approx(1.3, rel=1e-3)
    orders = analysis.training_orders(rows, draws=50)
    assert orders.num_rows == 3 * 10 and set(orders["among"].to_pylist()) == {"optimizers"}


def test_options_are_checked() -> None:
    inputs = Inputs((), "nothing")
    assert analyse(inputs).winners == ()
    for options, word in (({"level": 1.0}, "level"), ({"near": 0.0}, "near-optimal"), ({"sigma": -1.0}, "sigma")):
        with pytest.raises(InputError, match=word):
            analyse(inputs, **options)  # type: ignore[arg-type]


def test_only_candidates_are_chosen_but_all_runs_count() -> None:
    rows = [
        {
            "optimizer": "adamw",
            "scale": "130m",
            "ratio": 1,
            "seed": 0,
            "loss": loss,
            "hp_learning_rate": rate,
            "trial": name,
        }
        for name, loss, rate in (("lucky", 3.40, 0.004), ("winner", 3.41, 0.008), ("gpt3", 3.6, 0.0006))
    ]
    runs: tuple[TrainingRun, ...] = read_runs(rows)
    ended_on = [run if run.trial == "winner" else replace(run, role=Role.EXPLORED) for run in runs]
    free, judged = analyse(from_rows(runs)), analyse(from_rows(ended_on))
    assert free.winners[0].trials == ("lucky",) and judged.winners[0].trials == ("winner",)
    assert judged.budgets[0].trials == 3 and len(judged.stars[0].sensitivities[0].values) == 3
    assert [each.regret for each in judged.undertuned if each.gpt3] == pytest.approx([0.19])


BASELINE_ALONE = [
    {"optimizer": "adamw", "scale": "130m", "ratio": ratio, "seed": 0, "loss": loss}
    for ratio, loss in ((1, 3.5), (2, 3.4), (4, 3.3))
]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("more", [{}, {"scale": "mine", "parameters": 10**8}, {"seconds": 3.0, "curve": [[1.0, 3.4]]}])
def test_a_table_of_the_baseline_alone_gives_every_figure(name: str, more: dict[str, object]) -> None:
    """Three budgets of AdamW, one seed each: there is nothing to compare, and every table says so without failing."""
    table = getattr(analysis, name)([row | more for row in BASELINE_ALONE], draws=50)
    assert isinstance(table, pa.Table)


def test_a_scale_without_a_gain_keeps_its_row_and_its_columns() -> None:
    rows = [*BASELINE_ALONE, {**BASELINE_ALONE[0], "scale": "300m"}, {**BASELINE_ALONE[0], "scale": "300m",
            "optimizer": "muon", "loss": 3.4}]  # fmt: skip
    alone, led = analysis.leaders(rows, draws=50).to_pylist()
    assert (alone["scale"], alone["leaders"], alone["optimizer"], alone["nats"]) == ("130m", ["adamw"], None, None)
    assert (led["scale"], led["leaders"], led["optimizer"]) == ("300m", ["muon"], "muon")
    assert led["nats"] == pytest.approx(0.1) and "only adamw has a result" in alone["sentence"]
