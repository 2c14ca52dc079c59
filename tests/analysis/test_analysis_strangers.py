"""Tables as strangers' tools write them: what is whole is read, what is lost or contradicts itself is named."""

import gzip
import json
import lzma
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from analysis_samples import load_table as load
from analysis_samples import losses

from tuneopt.analysis import inputs
from tuneopt.analysis.cells import folded
from tuneopt.analysis.rows import parse
from tuneopt.spec import InputError

HEAD = "optimizer,scale,ratio,loss\n"
TWO = HEAD + "adamw,130m,1,3.53\nmuon,130m,1,3.49\n"
BASE: dict[str, Any] = {
    "optimizer": ["adamw", "muon"], "scale": ["130m", "130m"], "ratio": [1.0, 1.0], "loss": [3.53, 3.49],
}  # fmt: skip


# ---- No row is lost, and no two things are taken for one.


@pytest.mark.parametrize(
    "rows",
    [
        'adamw,130m,1,3.5,"open\nmuon,130m,1,3.4,foo\nsoap,130m,1,3.3,bar\n',
        'adamw,130m,1,3.5,"5 inch\nmuon,130m,1,3.4,6" wide\nsoap,130m,1,3.3,bar\n',
    ],
)
def test_a_quotation_mark_that_swallows_rows_is_refused(tmp_path: Path, rows: str) -> None:
    with pytest.raises(InputError, match="a cell in line 2 that begins with a quotation mark and does not"):
        load(tmp_path, "a.csv", "optimizer,scale,ratio,loss,note\n" + rows)


def test_marks_and_lines_inside_of_cells_are_text(tmp_path: Path) -> None:
    rows = 'adamw,130m,1,3.53,"two\nlines, ""quoted"""\nmuon,130m,1,3.49,5" wide\n'
    assert losses(load(tmp_path, "a.csv", "optimizer,scale,ratio,loss,note\n" + rows)) == {"adamw": 3.53, "muon": 3.49}


def test_twelve_billion_is_no_1_2_billion(tmp_path: Path) -> None:
    (run,) = load(tmp_path, "a.csv", HEAD + "adamw,12B,1,2.5\n").runs
    assert (run.regime.scale, run.parameters) == ("12B", 12_000_000_000)
    (run,) = load(tmp_path, "a.csv", HEAD + "adamw,1_2B,1,2.5\n").runs
    assert run.regime.scale == "1.2b"
    names = [run.optimizer for run in load(tmp_path, "a.csv", HEAD + "sgd-1.0,130m,1,3\nsgd-10,130m,1,3.5\n").runs]
    assert names == ["sgd-1.0", "sgd-10"]


@pytest.mark.parametrize(
    ("scales", "corpora"),
    [(("GPT-2", "gpt2"), ("C4", "c4")), (("1.3B", "1300M"), ("", "")), (("1.3b", "1.3 B"), ("fine web", "FineWeb"))],
)
def test_one_scale_and_corpus_may_be_spelled_in_several_ways(
    tmp_path: Path, scales: tuple[str, str], corpora: tuple[str, str]
) -> None:
    rows = [f"{name},{scale},124M,1,3.5,{corpus}\n" for name, scale, corpus in zip("ab", scales, corpora, strict=True)]
    if scales[0].startswith("1.3"):
        rows = [row.replace("124M", "1.3B") for row in rows]
    table = load(tmp_path, "a.csv", "optimizer,scale,parameters,ratio,loss,corpus\n" + "".join(rows))
    assert len({run.regime for run in table.runs}) == 1


def test_one_name_in_two_unicode_forms_is_one(tmp_path: Path) -> None:
    table = load(tmp_path, "a.csv", HEAD + "cafe\u0301,130m,1,3.5\ncaf\u00e9,130m,1,3.6\nadamw\u00a0,130m,1,3.5\n")
    assert len({run.optimizer for run in table.runs}) == 2 and table.runs[2].optimizer == "adamw"


def test_seeds_are_whole_and_exact(tmp_path: Path) -> None:
    head = "optimizer,scale,ratio,loss,seed\n"
    large = load(tmp_path, "a.csv", head + "adamw,130m,1,3.53,9007199254740993\nadamw,130m,1,3.54,9007199254740992\n")
    assert [run.seed for run in large.runs] == [9007199254740993, 9007199254740992]
    for seed in ("-1", "1.5"):
        with pytest.raises(InputError, match="row 1 of the results: seed must be a whole number that is not negative"):
            load(tmp_path, "a.csv", head + f"adamw,130m,1,3.53,{seed}\n")


# ---- Contradictions.


def test_tokens_and_steps_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    head = "optimizer,parameters,steps,batch_tokens,tokens,loss\n"
    with pytest.raises(InputError, match=r"row 1 of the results has 9\.9e\+10 tokens, but 5000 steps of 500000"):
        load(tmp_path, "a.csv", head + "adamw,134M,5000,0.5M,99B,3.5\n")
    assert load(tmp_path, "a.csv", head + "adamw,134M,5000,0.5M,2.5B,3.5\n").runs[0].tokens == 2.5e9


@pytest.mark.parametrize("other", ["drop", "select_loss"])
def test_a_column_cannot_be_named_twice(tmp_path: Path, other: str) -> None:
    with pytest.raises(InputError, match=f"--columns gives 'loss' twice, as loss and as {other}; keep one"):
        load(tmp_path, "a.csv", TWO, {"loss": "loss", other: "loss"})


def test_one_scale_of_two_sizes_is_named_as_that(tmp_path: Path) -> None:
    text = "optimizer,scale,parameters,ratio,loss\nadamw,mine,134M,1,3.5\nmuon,mine,300M,1,3.4\n"
    with pytest.raises(InputError, match="134,000,000 and 300,000,000 parameters; correct one, or give the scales two"):
        load(tmp_path, "a.csv", text)


# ---- Whole tables.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "sep=;\r\noptimizer;scale;ratio;loss\r\nadamw;130m;1;3,53\r\nmuon;130m;1;3,49\r\n"),
        ("a.csv", "optimizer,scale,ratio,loss,,\nadamw,130m,1,3.53,,\nmuon,130m,1,3.49,,\n,,,,,\n"),
        ("a.csv", ",optimizer,scale,ratio,loss\n3,adamw,130m,1,3.53\n7,muon,130m,1,3.49\n"),
        (
            "a.jsonl",
            json.dumps([{name: cells[row] for name, cells in BASE.items()} for row in (0, 1)], indent=1),
        ),
        (
            "a.jsonl",
            '{"optimizer":"adamw","scale":"130m","ratio":1,"loss":3.53,"note":"a\u2028b\u0085c"}\n'
            '{"optimizer":"muon","scale":"130m","ratio":1,"loss":3.49}\n',
        ),
    ],
    ids=["sep", "empty cells", "index with gaps", "a list as jsonl", "line separators"],
)
def test_tables_of_other_tools_are_read(tmp_path: Path, name: str, text: str) -> None:
    assert losses(load(tmp_path, name, text)) == {"adamw": 3.53, "muon": 3.49}


OBJECT: dict[str, Any] = {"optimizer": "adamw", "scale": "130m", "ratio": 1, "loss": 3.5}


def test_a_configuration_as_text_is_read_as_an_object_is() -> None:
    given = [({"lr": 0.01, "seed": seed}, loss) for seed, loss in ((1, 3.53), (2, 3.54), (3, 3.52))]
    as_objects = parse([OBJECT | {"config": config, "loss": loss} for config, loss in given])
    mixed = [OBJECT | {"config": config if loss == 3.53 else json.dumps(config), "loss": loss}
             for config, loss in given]  # fmt: skip
    assert parse(mixed) == as_objects
    assert [(run.seed, run.config) for run in as_objects.runs] == [
        (seed, (("learning_rate", 0.01),)) for seed in (1, 2, 3)
    ]
    same = OBJECT | {"config": '{"optimizer": "AdamW", "scale": "130M", "lr": 0.01}'}
    assert parse([same]).runs[0].config == (("learning_rate", 0.01),)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"config": '{"lr": 0.01, "lr": 0.02}'}, "row 1 .* config is no JSON object .*key twice"),
        ({"config": '{"optimizer": "muon", "scale": "300m"}'}, "row 1 .* optimizer 'adamw' and, in its config, 'muon'"),
        ({"config": {"model": "300m"}}, "row 1 .* scale '130m' and, in its config, '300m'"),
        ({"summary": {"acc": 3.5}, "metrics": {"acc": 3.1}}, "row 1 .* acc 3.5 and, in its metrics, 3.1"),
        ({"config": {"seed": 1}, "hparams": {"seed": 2}}, "row 1 .* seed 1 and, in its hparams, 2"),
    ],
)
def test_objects_that_contradict_a_column_or_each_other_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse([OBJECT | more])


def test_what_is_left_aside_is_named_in_the_order_of_the_table() -> None:
    summary = {"loss": 3.5, "third": 1, "second": 1, "first": 1}
    row = {"config": {"optimizer": "adamw", "scale": "130m", "ratio": 1}, "summary": summary}
    assert "summary.third, summary.second, summary.first" in parse([row]).notes[0]


@pytest.mark.parametrize("budget", [{"tpp": 20}, {"steps": 5000, "batch_tokens": 524_288}, {"ratio": 1}])
def test_rows_with_a_budget_and_a_loss_are_runs_also_where_they_say_when_a_target_was_reached(
    budget: dict[str, float],
) -> None:
    rows = [{"optimizer": name, "scale": "130m", "loss": loss, "steps_to_target": 4000} | budget
            for name, loss in (("adamw", 3.5), ("muon", 3.4))]  # fmt: skip
    table = parse(rows)
    assert losses(table) == {"adamw": 3.5, "muon": 3.4} and not table.trials
    assert any("steps_to_target is not read" in note for note in table.notes)
    race = parse([{key: cell for key, cell in row.items() if key not in budget} for row in rows])
    assert not race.runs and len(race.trials) == 2


def test_a_column_without_a_name_in_which_something_stands_is_not_left_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a column without a name"):
        load(tmp_path, "a.csv", "optimizer,scale,ratio,loss,\nadamw,130m,1,3.53,\nmuon,130m,1,3.49,x\n")


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("optimizer", pa.array([b"adamw", b"muon"])),  # as Spark writes texts
        ("loss", pa.array([3.53, 3.49], pa.float32())),
        ("config", pa.array([[("a", 1.0)], [("a", 2.0)]], pa.map_(pa.string(), pa.float64()))),
        ("seconds", pa.array([5_000_000, 6_000_000], pa.duration("us"))),
    ],
    ids=["bytes", "float32", "map", "duration"],
)
def test_kinds_of_parquet_columns(tmp_path: Path, column: str, values: pa.Array) -> None:
    table = load(tmp_path, "a.parquet", pa.table({**BASE, column: values}))
    assert losses(table) == {"adamw": 3.53, "muon": 3.49}
    if column == "config":
        assert dict(table.runs[1].config) == {"a": 2.0}
    if column == "seconds":
        assert table.runs[0].seconds == 5.0


# ---- What is no table.


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", gzip.compress(TWO.encode(), mtime=0), "no text but a compressed file; unpack it first"),
        ("a.csv", lzma.compress(TWO.encode()), "no text but a compressed file; unpack it first"),
        ("a.jsonl", gzip.compress(b"{}", mtime=0), "no text but a compressed file; unpack it first"),
        ("a.csv.gz", gzip.compress(TWO.encode(), mtime=0), "unpack it first, and give a file that ends in"),
        ("a.csv", b"\x28\xb5\x2f\xfd" + bytes(30), "no text but a compressed file"),
        ("a.csv", "<html><body>log in</body></html>", "a web page or XML, and no table"),
        ("a.csv", '[{"optimizer": "adamw"}]', r"holds JSON; let its name end in \.json"),
        ("a.csv", TWO.encode("utf-16-le"), "holds zero bytes, as UTF-16 has them; save it as UTF-8"),
        ("a.csv", "optimizer,scale,ratio,train_loss\nadamw,130m,1,3.5\n", "say --columns loss=train_loss"),
    ],
)
def test_what_is_no_table_is_called_what_it_is(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(tmp_path, name, content)


def test_a_part_of_an_exported_table_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lacks its status, scale, .* export it again"):
        load(tmp_path, "a.csv", "trial,comparable,budget_tokens,optimizer,loss\na,true,1,adamw,3.5\n")


@pytest.fixture
def exported() -> pa.Table:
    from tuneopt.reporting.example import example_ledger

    return example_ledger().table()


def changed(table: pa.Table, **cells: object) -> list[dict[str, object]]:
    rows = [row for row in table.to_pylist() if row["status"] == "completed"][:4]
    return [rows[0] | cells, *rows[1:]]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"report_loss": None}, "completed and has no report_loss"),
        ({"select_loss": float("nan")}, "completed and has no select_loss"),
        ({"status": "diverged"}, "diverged and has a select_loss"),
        ({"status": "running"}, "status is not as it was exported, 'running'"),
        ({"report_loss": -5.0}, "report_loss is not as it was exported"),
        ({"ratio": 0.0}, "ratio is not as it was exported"),
        ({"parameters": 0}, "parameters is not as it was exported"),
        ({"parameters": 0.5}, "parameters is not as it was exported"),
        ({"budget_tokens": 0}, "budget_tokens is not as it was exported"),
        ({"devices": -3}, "devices is not as it was exported"),
        ({"seconds_train": -3.0}, "seconds_train is not as it was exported"),
        ({"trial": None}, "trial is not as it was exported"),
        ({"comparable": "False"}, "comparable is not as it was exported"),
        ({"hp_learning_rate": -0.1}, "hp_learning_rate is not as it was exported"),
        ({"hp_warmup": "x"}, "hp_warmup is not as it was exported"),
    ],
)
def test_a_changed_cell_of_an_exported_table_is_refused(exported: pa.Table, cells: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"row 1 of the results: .*{said}"):
        parse(changed(exported, **cells))


def test_an_empty_text_of_an_exported_table_is_no_value(exported: pa.Table) -> None:
    rows = [row | {"hp_fallback": word} for row, word in zip(changed(exported), ("", "lion", "", None), strict=True)]
    assert [dict(run.config).get("fallback") for run in parse(rows).runs] == [None, "lion", None, None]


def test_rows_of_overlapping_exports_count_once(exported: pa.Table) -> None:
    rows = changed(exported)
    both = parse([*rows, *rows[:2]])
    assert both.runs == parse(rows).runs and both.notes == ("rows that repeat another one are counted once (2)",)
    with pytest.raises(InputError, match=r"rows 1 and 5 of the results are both the trial .* differ in 'report_loss'"):
        parse([*rows, rows[0] | {"report_loss": 1.0}])


def test_counts_that_a_null_made_real_numbers_are_read(exported: pa.Table, tmp_path: Path) -> None:
    rows = changed(exported, peak_bytes=None)
    real = [row | {"peak_bytes": None if (peak := row["peak_bytes"]) is None else float(str(peak))} for row in rows]
    pacsv.write_csv(pa.Table.from_pylist(rows, exported.schema), tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text(re.sub(r",([0-9]{6,}),", r",\1.0,", (tmp_path / "a.csv").read_text()))
    assert parse(real).runs == parse(rows).runs
    read = inputs.load(tmp_path / "b.csv").runs
    assert read == inputs.load(tmp_path / "a.csv").runs and [type(run.peak_bytes) for run in read[1:]] == [int] * 3
    assert read[0].peak_bytes is None and [run.seed for run in read] == [row["seed"] for row in rows]


# ---- One name for two things, two names for one, and what a row says twice.


def test_the_sizes_of_a_family_are_no_one_scale(tmp_path: Path) -> None:
    head = "optimizer,model,parameters,tokens,loss\n"
    rows = "adamw,llama,130000000,2600000000,3.4\nmuon,llama,350000000,7000000000,3.0\n"
    with pytest.raises(InputError, match=r"rows 1 and 2 .* both at llama, with 130,000,000 and 350,000,000 parameters"):
        load(tmp_path, "a.csv", head + rows)
    assert len(load(tmp_path, "a.csv", head + rows.replace("350000000,7", "170000000,3")).runs) == 2  # with embeddings
    with pytest.raises(InputError, match=r"row 1 .* at scale 350M, but says 35,000,000 parameters"):
        load(tmp_path, "a.csv", head + "adamw,350M,35000000,7000000000,3.0\n")


def test_counts_of_parameters_that_nearly_agree_are_one_size(tmp_path: Path) -> None:
    head = "optimizer,parameters,ratio,loss\n"
    runs = load(tmp_path, "a.csv", head + "adamw,124439808,1,3.4\nmuon,124475904,1,3.3\nsoap,130000000,1,3.2\n").runs
    assert [run.regime.scale for run in runs] == ["124.4m", "124.4m", "130m"]


@pytest.mark.parametrize("tokens", [2484000000, 2475000000])
def test_two_rows_of_nearly_one_budget_and_one_seed_are_refused(tmp_path: Path, tokens: int) -> None:
    rows = f"adamw,124M,2480000000,0,3.4\nadamw,124M,{tokens},0,3.3\nmuon,124M,2480000000,0,3.35\n"
    with pytest.raises(InputError, match=r"rows 1 and 2 .* same optimizer, regime and seed; they are at 2.48e\+09 and"):
        load(tmp_path, "a.csv", "optimizer,parameters,tokens,seed,loss\n" + rows)


def test_rows_without_seeds_that_differ_in_nothing_are_said(tmp_path: Path) -> None:
    table = load(tmp_path, "a.csv", HEAD + "muon,130m,1,3.40\n" * 10 + "adamw,130m,1,3.41\nadamw,130m,1,3.40\n")
    assert "differ in nothing count as configurations, of which the best stands (muon up to 10, adamw up to 2)" in str(
        table.doubts
    )
    assert not load(tmp_path, "a.csv", TWO).doubts


def test_rows_without_a_corpus_among_others_are_said(tmp_path: Path) -> None:
    rows = "adamw,130m,1,3.53,C4\nmuon,130m,1,3.49,\n"
    assert "1 row names no corpus" in str(load(tmp_path, "a.csv", HEAD.strip() + ",corpus\n" + rows).doubts)


@pytest.mark.parametrize(
    ("metrics", "says"),
    [(("accuracy", "accuracy"), "'accuracy', which by its name is better where it is larger"),
     (("val_loss", "train_loss"), "names 2 metrics"), (("val_loss", "val_loss"), "")],
)  # fmt: skip
def test_a_column_metric_says_what_the_loss_is(tmp_path: Path, metrics: tuple[str, str], says: str) -> None:
    text = HEAD.strip() + f",metric\nadamw,130m,1,.53,{metrics[0]}\nmuon,130m,1,.49,{metrics[1]}\n"
    if not says:
        assert losses(load(tmp_path, "a.csv", text)) == {"adamw": 0.53, "muon": 0.49}
        return
    with pytest.raises(InputError, match=says):
        load(tmp_path, "a.csv", text)
    assert len(load(tmp_path, "a.csv", text, {"drop": "metric"}).runs) == 2


def test_a_row_says_how_long_its_sequences_are(tmp_path: Path) -> None:
    head = "optimizer,scale,steps,hp_train_batch_size,hp_sequence_length,loss\n"
    (run,) = load(tmp_path, "a.csv", head + "adamw,130m,10000,128,1024,3.4\n").runs
    assert run.tokens == 10_000 * 128 * 1024


def test_tokens_and_steps_that_disagree_are_refused(tmp_path: Path) -> None:
    head = "optimizer,parameters,tokens,steps,batch_tokens,loss\n"
    with pytest.raises(InputError, match=r"3300 steps of 524288 tokens are 1.73e"):
        load(tmp_path, "a.csv", head + "adamw,124M,2.48B,3300,524288,3.4\n")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("Muon (wd .1)", "Muon (wd 1)", False), ("Shampoo p=-0.5", "Shampoo p=0.5", False),
     ("Muon 1e-3", "Muon 1e3", False), ("Muon²", "Muon2", False),
     ("wd .1", "WD 0.1", True), ("Adam-W", "adam_w", True), ("GPT-2", "gpt 2", True)],
)  # fmt: skip
def test_what_a_number_begins_with_is_no_separator(one: str, other: str, same: bool) -> None:
    assert (folded(one) == folded(other)) is same


def test_a_trial_of_a_race_has_one_time() -> None:
    row = {"optimizer": "adamw", "workload": "wmt", "study": "0", "trial": "1", "target_seconds": "100"}
    others = [row | {"trial": "2", "target_seconds": "90"}, row | {"study": "1", "target_seconds": "80"}]
    assert len(parse([row, row, *others]).trials) == 4
    with pytest.raises(InputError, match=r"^rows 1 and 4 of the results are the same trial \(1 of adamw at wmt\)"):
        parse([row, *others, row | {"target_seconds": ""}])


def test_a_race_has_one_name_for_a_task_and_one_target_in_every_row() -> None:
    rows = [{"optimizer": name, "workload": task, "target": "30", "target_seconds": str(seconds)}
            for name, task, seconds in (("adamw", "wmt", 100), ("muon", "WMT", 80), ("lion", "Wmt", 90))]  # fmt: skip
    assert {trial.task for trial in parse(rows).trials} == {"wmt"}
    rows[1]["target"] = ""
    with pytest.raises(InputError, match=r"^row 2 of the results names no target, and other rows of wmt do \(30\)"):
        parse(rows)
    assert len(parse([row | {"target": ""} for row in rows]).trials) == 3  # AlgoPerf's own logs say none
