"""Somebody's table: how its numbers, names and columns are read, and what is refused because it contradicts itself."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.analysis import measure, winners
from tuneopt.analysis.cells import decimal_comma, number
from tuneopt.analysis.inputs import from_rows, load, read_runs
from tuneopt.analysis.ranking import regime_flips
from tuneopt.analysis.regimes import near, short
from tuneopt.analysis.results import read_results
from tuneopt.analysis.rows import parse
from tuneopt.analysis.study import analyse, baseline_of
from tuneopt.spec import InputError

ROW = {"optimizer": "muon", "scale": "130m", "ratio": 2, "loss": 3.4}


def csv_file(folder: Path, text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "comma", "value"),
    [
        ("1.3B", None, 1.3e9), ("130 M", None, 1.3e8), ("26b", None, 2.6e10), ("512k", None, 512e3), ("1T", None, 1e12),
        ("3,53", True, 3.53), ("2.600.000,5", True, 2_600_000.5), ("2,600,000", False, 2.6e6), ("1,3B", True, 1.3e9),
        ("1 300 000", None, 1.3e6), ("1e9", None, 1e9), ("2.5e-3", None, 2.5e-3), ("-4", None, -4),
        ("5.000", True, 5e3), ("1.300M", True, 1.3e9), ("5.000", None, 5), ("5.000", False, 5),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(text: str, comma: bool | None, value: float) -> None:
    assert number(text, comma, units=True) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["3_53", "1e", "0x10", "3,530", "1.2.3", "1.3X", "", "B", "1,2,3", "12 34"])
def test_what_is_no_number_or_may_be_two_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"number|comma|unit"):
        number(text, None, units=True)


@given(st.floats(min_value=-1e12, max_value=1e12, allow_nan=False))
def test_every_number_that_python_writes_is_read_back(value: float) -> None:
    assert number(repr(value)) == value
    assert number(repr(value).replace(".", ","), True) == value


def test_the_decimal_mark_is_decided_once_for_a_table() -> None:
    assert decimal_comma(["3,53", "3,530"]) is True
    assert decimal_comma(["3.53", "3,530"]) is False
    assert decimal_comma(["1,300,000"]) is False
    assert decimal_comma(["3,530", "12"]) is None and decimal_comma(["3,530"], usual=True) is True
    assert decimal_comma(["130.000.000", "3,530"]) is True and decimal_comma(["3.530"], usual=True) is None
    with pytest.raises(InputError, match="two ways"):
        decimal_comma(["3,53", "3.53"])


@pytest.mark.parametrize(
    ("loss", "setting", "read"),
    [
        ("3.53", "30,60", "30,60"),  # a list, where losses have points
        ("3,53", "0,001", 0.001),
        ("3,53", "0.001", 0.001),  # no digits are grouped behind a 0
        ("3", "0,001", 0.001),  # the losses do not say, and no digits are grouped behind a 0
        ("3", "30,600", "30,600"),
        ("3.53", "1,000,000", 1000000),
    ],
)
def test_columns_of_numbers_say_what_a_comma_means_before_settings_do(loss: str, setting: str, read: object) -> None:
    rows = [{"optimizer": "adamw", "scale": "130m", "ratio": "1", "loss": loss, "hp_steps": setting}]
    (run,) = from_rows(rows).runs
    assert dict(run.config) == {"steps": read}


def test_points_group_digits_beside_decimal_commas(tmp_path: Path) -> None:
    head = "optimizer;parameters;steps;batch_tokens;hp_warmup;loss\n"
    (run,) = load(csv_file(tmp_path, head + "adamw;130.000.000;5.000;524.288;1.000;3,53\n")).runs
    assert (run.parameters, run.steps, run.tokens) == (130_000_000, 5000, 5000 * 524_288)
    assert run.config == (("warmup", 1000),)
    with pytest.raises(InputError, match=r"loss must be a number, not '3,530' .*comma"):
        load(csv_file(tmp_path, head + "adamw;130M;5000;524288;100;3,530\nadamw;130M;5000;524288;1.000;3\n"))
    with pytest.raises(InputError, match=r"steps is '5\.000', and no cell says whether a point groups digits"):
        load(csv_file(tmp_path, head + "adamw;130M;5.000;524288;100;3.530\n"))


def test_a_table_with_decimal_commas_and_units(tmp_path: Path) -> None:
    text = "optimizer;parameters;tokens;loss\nadamw;1,3B;26B;2,914\nmuon;1,3B;26B;2,891\n"
    runs = load(csv_file(tmp_path, text)).runs
    assert [(run.parameters, run.tokens, run.report_loss) for run in runs] == [
        (1_300_000_000, 26e9, 2.914), (1_300_000_000, 26e9, 2.891)
    ]  # fmt: skip
    assert {run.regime.label for run in runs} == {"1300m/1x"}
    with pytest.raises(InputError, match=r"loss must be a number, not '3,530' .*comma"):
        load(csv_file(tmp_path, 'optimizer,scale,ratio,loss\nadamw,130m,1,"3,530"\n'))


def test_a_size_in_the_name_of_a_scale_is_read_where_nothing_else_gives_it() -> None:
    (run,) = read_runs([{"optimizer": "a", "scale": "1.3B", "tokens": "26B", "loss": 3}])
    assert (run.regime.scale, run.parameters, run.regime.ratio) == ("1.3B", 1_300_000_000, 1.0)
    (run,) = read_runs([{"optimizer": "a", "scale": "1,3B", "tokens": "26B", "loss": "3,01"}])
    assert (run.regime.scale, run.parameters) == ("1,3B", 1_300_000_000)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_any_delimiter_and_byte_order_mark(tmp_path: Path, mark: str, encoding: str) -> None:
    rows = [("optimizer", "scale", "ratio", "loss"), ("käfer", "130m", "1", "3.53"), ("adamw", "130m", "1", "3.6")]
    text = "".join(f"{mark.join(row)}\n" for row in rows)
    runs = load(csv_file(tmp_path, text, encoding=encoding)).runs
    assert [(run.optimizer, run.report_loss) for run in runs] == [("käfer", 3.53), ("adamw", 3.6)]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_with_a_byte_order_mark_and_accents(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    rows = [ROW | {"optimizer": "käfer"}]
    text = json.dumps(rows if name.endswith("json") else rows[0], ensure_ascii=False)
    assert load(csv_file(tmp_path, text, name, "utf-8-sig")).runs[0].optimizer == "käfer"


def test_latin_text_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="save it as UTF-8"):
        load(csv_file(tmp_path, "optimizer,scale,ratio,loss\nkäfer,130m,1,3.5\n", encoding="latin-1"))


def test_names_of_runs_stay_text_and_numbers_do_not(tmp_path: Path) -> None:
    lines = ("1e3,adamw,3.5,0.004", "1000,muon,3.4,0.008", "007,lion,3.6,", "7,soap,3.3,1e-3")
    head = "id,optimizer,loss,hp_learning_rate,scale,ratio"
    runs = load(csv_file(tmp_path, "\n".join([head, *(f"{line},130m,1" for line in lines)]))).runs
    assert [run.trial for run in runs] == ["1e3", "1000", "007", "7"]
    assert [dict(run.config).get("learning_rate") for run in runs] == [0.004, 0.008, None, 0.001]


def test_a_word_among_numbers_is_named_with_its_own_row(tmp_path: Path) -> None:
    text = "optimizer,scale,ratio,loss,hp_weight_decay\nadamw,130m,1,3.45,0.1\nadamw,130m,1,3.6,none\n"
    with pytest.raises(InputError, match="row 2 of the results: weight_decay must be a number, not 'none'; leave"):
        load(csv_file(tmp_path, text))


def test_the_index_of_a_data_frame_is_no_column(tmp_path: Path) -> None:
    for name, first in (("", 0), ("Unnamed: 0", 0), ("index", 1)):
        text = f"{name},optimizer,scale,ratio,loss\n{first},adamw,130m,1,3.5\n{first + 1},muon,130m,1,3.4\n"
        assert len(load(csv_file(tmp_path, text)).runs) == 2
    with pytest.raises(InputError, match="a column without a name"):
        load(csv_file(tmp_path, ",optimizer,scale,ratio,loss\n8,adamw,130m,1,3.5\n3,muon,130m,1,3.4\n"))


def test_decimals_of_parquet_are_numbers(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"optimizer": ["adamw"], "scale": ["130m"], "ratio": [Decimal("1.0")], "loss": [Decimal("3.53")],
                  "hp_learning_rate": [Decimal("0.008")]}), tmp_path / "a.parquet"
    )  # fmt: skip
    (run,) = load(tmp_path / "a.parquet").runs
    assert run.report_loss == 3.53 and dict(run.config) == {"learning_rate": 0.008}


def test_a_column_or_key_twice_is_refused_in_every_kind_of_file(tmp_path: Path) -> None:
    double = '{"optimizer": "adamw", "scale": "130m", "ratio": 1, "loss": 3.5, "loss": 9.9}'
    files = [
        csv_file(tmp_path, "optimizer,scale,ratio,loss,loss\nadamw,130m,1,3.5,9.9\n"),
        csv_file(tmp_path, f"[{double}]", "a.json"),
        csv_file(tmp_path, double, "a.jsonl"),
        csv_file(tmp_path, f'[{{"config": {double}}}]', "b.json"),
        tmp_path / "a.parquet",
    ]
    columns = [pa.array(["adamw"]), pa.array(["130m"]), pa.array([1.0]), pa.array([3.5]), pa.array([9.9])]
    pq.write_table(pa.Table.from_arrays(columns, ["optimizer", "scale", "ratio", "loss", "loss"]), files[-1])
    for path in files:
        with pytest.raises(InputError, match="'loss' twice"):
            load(path)


def test_spellings_of_an_optimizer_are_one() -> None:
    rows = [ROW | {"optimizer": name, "ratio": ratio} for ratio, name in enumerate(("AdamW", "adam-w", "ADAM_W"), 1)]
    rows += [ROW | {"optimizer": name, "ratio": ratio} for ratio, name in enumerate(("My Muon", "my-muon"), 1)]
    assert [run.optimizer for run in read_runs(rows)] == ["adamw"] * 3 + ["My Muon"] * 2


def test_a_ratio_that_contradicts_its_tokens_is_refused() -> None:
    with pytest.raises(InputError, match=r"row 1 .* ratio 20, .* name the column tokens_per_parameter"):
        read_runs([ROW | {"ratio": 20, "tokens": 2_684_354_560}])
    with pytest.raises(InputError, match=r"row 2 .* ratio 2, .* 1 times 20 per parameter .*; correct one"):
        read_runs([ROW, ROW | {"tokens": 2_684_354_560}])
    with pytest.raises(InputError, match="rows 1 and 3 of the results are both at 130m/1x"):
        read_runs([ROW | {"ratio": 1, "tokens": tokens} for tokens in (2.6e9, 2.65e9, 3e9)])
    with pytest.raises(InputError, match="ratio 2 and 20 tokens per parameter"):
        read_runs([ROW | {"tpp": 20}])
    # Papers round the ratio, and some count embeddings: a little apart is no contradiction.
    (run,) = read_runs([ROW | {"tokens": 20 * 160e6 * 2}])
    assert run.regime.ratio == 2
    assert read_runs([ROW | {"ratio": None, "tokens_per_parameter": 40}])[0].regime.ratio == 2


def test_large_ratios_without_tokens_are_said_to_be_ratios() -> None:
    notes = from_rows([ROW | {"ratio": ratio} for ratio in (20, 40, 80)]).notes
    assert len(notes) == 1 and "tokens_per_parameter" in notes[0]
    assert from_rows([ROW | {"ratio": ratio} for ratio in (1, 16)]).notes == ()


def test_measured_tokens_are_one_budget_and_its_ratio_is_short() -> None:
    rows = [
        {"optimizer": name, "scale": "130m", "tokens": tokens, "hp_train_batch_size": batch, "loss": loss}
        for name, batch, tokens, loss in (
            ("adamw", 128, 2_599_944_192, 3.55), ("adamw", 256, 2_599_419_904, 3.62),
            ("muon", 128, 2_599_944_192, 3.54), ("muon", 256, 2_599_419_904, 3.50),
        )
    ]  # fmt: skip
    analysis = analyse(from_rows(rows), draws=50)
    (ranking,) = analysis.rankings
    assert ranking.regime.label == "130m/0.97x" and dict(zip(ranking.order, ranking.losses, strict=True)) == {
        "muon": 3.50, "adamw": 3.55
    }  # fmt: skip
    # Half a percent apart is one budget, a percent is not: there it would be worth more than the noise.
    assert len({run.regime for run in read_runs([rows[0], rows[1] | {"tokens": 2_640_000_000}])}) == 2


def test_near_ratios_of_several_scales_share_a_name_and_flips_are_found_along_them() -> None:
    sizes = {"130m": (154e6, 2.6e9), "300m": (300e6, 6.0e9), "520m": (520e6, 8.97e9), "1.2b": (1.2e9, 2.012e10)}
    order = {"130m": (3.80, 3.83), "300m": (3.45, 3.44), "520m": (3.24, 3.21), "1.2b": (3.03, 3.00)}
    rows = [
        {"optimizer": name, "scale": scale, "parameters": n, "tokens": tokens, "loss": order[scale][place]}
        for scale, (n, tokens) in sizes.items()
        for place, name in enumerate(("plain", "careful"))
    ]
    runs = read_runs(rows)
    named = {run.regime.scale: run.regime.ratio for run in runs}
    assert named == {"130m": 0.84, "300m": 1, "520m": 0.84, "1.2b": 0.84}
    noise = measure(runs, sigma=0.0012)
    flips = [flip for flip in regime_flips(winners(runs, noise), noise) if flip.significant]
    assert [(flip.kind, flip.pair, flip.earlier.scale, flip.regime.scale) for flip in flips] == [
        ("scale", ("plain", "careful"), "130m", "300m")
    ]


@given(st.lists(st.floats(min_value=0.01, max_value=1000), min_size=1, max_size=30))
def test_groups_are_narrow_and_complete_and_their_names_differ(values: list[float]) -> None:
    groups = near(enumerate(values), 0.04, lambda key: key)
    assert sorted(value for group in groups for _, value in group) == sorted(values)
    assert all(group[-1][1] / group[0][1] <= 1.04 * (1 + 1e-6) for group in groups)
    names = short([[value for _, value in group] for group in groups])
    assert len(set(names)) == len(names) and names == sorted(names)


def test_two_budgets_of_a_scale_are_never_one() -> None:
    groups = near([("a", 1.0), ("b", 1.01), ("a", 1.02)], 0.5, lambda key: key)
    assert [[key for key, _ in group] for group in groups] in ([["a", "b"], ["a"]], [["a"], ["b", "a"]])


def test_ratios_have_few_digits_and_planned_ones_keep_theirs() -> None:
    assert short([[0.838349, 0.843331], [1.00116], [23.2922], [0.125]]) == [0.84, 1.0, 23.3, 0.125]
    assert short([[0.9308], [0.9339]]) == [0.931, 0.934]
    assert short([[1.0003]], taken=[1.0]) == [1.0]


EXPORT = {
    "_step": 1000, "_runtime": 36.5, "_timestamp": 1.7e9, "config.optimizer": "AdamW", "config.lr": "0.004",
    "config.weight-decay": 0.1, "config.model_size": "130M", "config.batch_tokens": "2.684M", "eval/loss": 3.53,
    "train/loss": 3.1, "system/gpu.0.temp": 66, "Name": "sunny-sun-3", "State": "finished",
}  # fmt: skip


def test_a_trackers_export_is_read_as_it_comes(tmp_path: Path) -> None:
    rows = [EXPORT, EXPORT | {"config.optimizer": "Muon", "eval/loss": 3.47, "Name": "moon-4"},
            EXPORT | {"State": "crashed", "eval/loss": None, "Name": "fog-5"}]  # fmt: skip
    inputs = from_rows(rows)
    first, second = inputs.runs
    assert (first.optimizer, first.trial, first.report_loss, first.steps, first.seconds) == (
        "adamw", "sunny-sun-3", 3.53, 1000, 36.5
    )  # fmt: skip
    assert dict(first.config) == {"learning_rate": 0.004, "weight_decay": 0.1} and second.optimizer == "muon"
    assert first.tokens == pytest.approx(2.684e9) and first.regime.label == "130m/1x"
    assert "1 row of a run that did not finish is left out" in inputs.notes[0] and "train/loss" in inputs.notes[1]
    nested = {"config": {"optimizer": "AdamW", "lr": 0.004, "model_size": "130M", "ratio": 1, "beta1": 0.9},
              "summary": {"eval/loss": 3.53, "_step": 9}, "name": "a"}  # fmt: skip
    (run,) = from_rows([nested]).runs
    assert (run.optimizer, run.report_loss, run.trial) == ("adamw", 3.53, "a")
    assert dict(run.config)["beta1"] == 0.9


def test_a_list_of_columns_in_one_word_is_told_from_a_name_and_opt_is_the_optimizer() -> None:
    with pytest.raises(InputError, match="give --columns once for each name"):
        from_rows([{"optimizer": "a", "x": 1}], columns={"loss": "x,scale=y"})
    (run,) = from_rows([{"config.opt": "adamw", "config.model": "130m", "config.ratio": 1, "val/loss": 3.5}]).runs
    assert (run.optimizer, run.report_loss) == ("adamw", 3.5)


def test_all_unknown_columns_are_named_at_once_and_columns_maps_them() -> None:
    row = {"optimizer": "adamw", "arch": "130m", "ratio": 1, "valid_nll": 3.5, "lucky": 1, "val_loss": 9.0}
    with pytest.raises(InputError, match=r"unknown columns 'arch', 'valid_nll', 'lucky'; .*--columns loss=val/loss"):
        read_runs([row])
    mapped = {"scale": "arch", "loss": "valid_nll", "drop": "lucky"}
    (run,) = from_rows([row], columns=mapped).runs
    assert (run.regime.scale, run.report_loss) == ("130m", 3.5)
    (run,) = from_rows([row], columns={"scale": "arch", "loss": "valid_nll", "drop": "*", "batch_tokens": "0.5M"}).runs
    assert run.steps == pytest.approx(2_684_354_560 / 5e5)
    for columns, word in (
        ({"los": "valid_nll"}, "did you mean 'loss'"),
        ({"loss": "valid_nl"}, "did you mean 'valid_nll'"),
        ({"drop": "luck"}, "did you mean 'lucky'"),
    ):
        with pytest.raises(InputError, match=word):
            from_rows([row], columns=columns)


def test_every_candidate_is_chosen_from_also_where_each_has_its_own_seed() -> None:
    losses = {("adamw", 3): 3.60, ("adamw", 7): 3.45, ("adamw", 11): 3.50, ("muon", 5): 3.52, ("muon", 12): 3.50}
    rows = [
        {"optimizer": name, "scale": "130m", "ratio": 1, "loss": loss, "seed": seed, "hp_learning_rate": 0.001 * seed}
        for (name, seed), loss in losses.items()
    ]
    (ranking,) = analyse(from_rows(rows), draws=50).rankings
    assert dict(zip(ranking.order, ranking.losses, strict=True)) == {"adamw": 3.45, "muon": 3.50}
    # A candidate without the usual seed is not left out of the choice either.
    rows = [ROW | {"seed": seed, "hp_learning_rate": rate, "loss": loss}
            for seed, rate, loss in ((0, 0.1, 3.5), (0, 0.2, 3.6), (1, 0.4, 3.3))]  # fmt: skip
    runs = read_runs(rows)
    assert winners(runs, measure(runs, sigma=0.001))[0].loss == 3.3


def test_the_baseline_is_found_by_any_spelling() -> None:
    inputs = from_rows([ROW, ROW | {"optimizer": "AdamC (tuned)"}])
    assert baseline_of(inputs, None) == "adamw" and baseline_of(inputs, "Muon") == "muon"
    assert baseline_of(inputs, "adamc(tuned)") == "AdamC (tuned)"
    with pytest.raises(InputError, match="no run of the baseline 'adanc'"):
        baseline_of(inputs, "adanc")


ROWS = [
    {"optimizer": name, "scale": "nano-65k", "ratio": ratio, "seed": seed, "loss": 3.6 - 0.1 * ratio}
    for name in ("adamw", "muon") for ratio in (1, 2) for seed in range(2)
]  # fmt: skip


def changed(**cells: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """The rows with cells worked out anew; None leaves a cell out."""
    made = ({**row, **{name: work(row) for name, work in cells.items()}} for row in ROWS)
    return [{name: cell for name, cell in row.items() if cell is not None} for row in made]


CONTRARY = {
    "parameters against the scale": (changed(parameters=lambda row: 1e9), "65,536 parameters without embeddings, but"),
    "some rows without a seed": (
        changed(seed=lambda row: None if row["optimizer"] == "muon" else row["seed"]), "other rows do: give every row"),
    "points of a curve": (
        [{**row, "step": step} for row in ROWS for step in (100, 200)], "at 100 and 200 steps: of each run keep"),
    "a scale that nobody knows": (changed(scale=lambda row: "tiny-1"), "not known here; add a column parameters"),
    "another column": (changed(train_loss=lambda row: 3.0), r"train_tokens'\? Otherwise drop it \(--columns drop=t"),
}  # fmt: skip
"""Tables out of which one meaning would be taken silently."""


@pytest.mark.parametrize("case", CONTRARY)
def test_what_contradicts_itself_is_refused_with_the_cure(case: str) -> None:
    rows, words = CONTRARY[case]
    with pytest.raises(InputError, match=words):
        parse(rows)


def test_names_of_scales_are_read_without_case_and_separators() -> None:
    runs = parse(changed(scale=lambda row: "Nano_65K" if row["optimizer"] == "muon" else row["scale"])).runs
    assert {run.regime.scale for run in runs} == {"nano-65k"}


def test_budgets_that_may_be_meant_as_one_are_named() -> None:
    rows = [{**row, "ratio": row["ratio"] * (1 + 0.005 * place)} for place, row in enumerate(ROWS)]
    assert any("1x, 1.005x" in note and "may be meant as one" in note for note in parse(rows).notes)
    assert not parse(ROWS).notes


def test_two_values_of_one_hyperparameter_and_a_batch_in_tokens_are_refused() -> None:
    with pytest.raises(InputError, match=r"config has learning_rate 0\.001, the column of its own 0\.002; keep one"):
        parse([{**row, "config": '{"lr": 0.001}', "hp_learning_rate": 0.002} for row in ROWS])
    assert parse([{**row, "config": '{"lr": 0.001}', "hp_learning_rate": "1e-3"} for row in ROWS]).runs
    with pytest.raises(InputError, match="name the column batch_tokens"):
        parse([{**row, "scale": "130m", "batch_size": 524288} for row in ROWS])


def test_lengths_of_a_race_are_not_taken_for_one_budget() -> None:
    """Several close lengths of each optimizer, and lengths of their own of which few are close."""
    lengths = {"adamw": (5500, 5550, 5600), "muon": (3200, 3250, 3300), "soap": (3350, 3400)}
    for own in (lengths, {name: some[:1] for name, some in lengths.items()}):
        rows = [{"optimizer": name, "parameters": 124_000_000, "steps": steps, "batch_tokens": 524_288, "seed": seed,
                 "loss": 3.3} for name, some in own.items() for steps in some for seed in range(2)]  # fmt: skip
        assert not parse(rows).notes


def test_what_is_no_table_says_what_it_is_and_one_object_a_line_is_read(tmp_path: Path) -> None:
    for name, data, words in (
        ("a.csv", b"\x1f\x8b\x08", "a compressed file"), ("b.csv", b"PK\x03\x04", "a workbook"),
        ("c.csv", b"PAR1", "Parquet"), ("d.csv", b"# mine\noptimizer,loss\n", "begins with a comment, '# mine'"),
        ("e.json", b'{"loss": [1, 2]}', "orient='records'"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=words):
            read_results(tmp_path / name)
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, ROWS)))
    assert read_results(tmp_path / "lines.json") == ROWS
