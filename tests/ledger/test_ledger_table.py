import csv
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_samples import make_record, make_spec

from tuneopt.ledger import Ledger, compaction, short_rows
from tuneopt.ledger import table as tables
from tuneopt.ledger.record import TrialRecord
from tuneopt.spec import InputError


def filled(folder: Path, records: list[TrialRecord]) -> Ledger:
    ledger = Ledger(folder)
    for record in records:
        assert ledger.put(record)
    return ledger


def sample() -> list[TrialRecord]:
    return [
        make_record(make_spec(0)),
        make_record(make_spec(1, optimizer="muon", momentum=0.95, lr_schedule="linear"), 3.4),
        make_record(make_spec(2, ratio=2), None, initial_loss=None, notes=("spiked", "twice")),
        make_record(make_spec(3, scale="1.2b", ratio=8), 2.7, flops=1.5e21, proof=None),
    ]


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 1),
        ({"ranks": "8"}, 8),
        ({"devices": 2}, 2),
        ({"ranks": "0"}, 1),
        ({"ranks": True}, 1),
        ({"ranks": "9" * 9}, 1),
    ],
)
def test_device_seconds_count_every_rank(environment: dict, count: int, tmp_path: Path) -> None:
    record = make_record(make_spec(0), environment=environment)
    assert filled(tmp_path, [record]).table()["devices"].to_pylist() == [count]


def test_a_row_holds_every_fact_of_its_record(tmp_path: Path) -> None:
    records = {record.trial: record for record in sample()}
    table = filled(tmp_path, list(records.values())).table()
    assert table["trial"].to_pylist() == sorted(records)
    assert table.column_names[: len(tables.FIXED)] == tables.FIXED.names
    for row in table.to_pylist():
        record = records[row["trial"]]
        assert row["optimizer"] == record.spec.optimizer
        assert (row["scale"], row["ratio"]) == (record.spec.regime.scale.name, record.spec.regime.ratio)
        assert row["parameters"] == record.spec.regime.scale.parameters
        assert row["budget_tokens"] == record.spec.regime.tokens
        assert (row["select_loss"], row["report_loss"]) == (record.select_loss, record.report_loss)
        assert (row["seconds_train"], row["seconds_eval"]) == (20.0, 2.0)
        assert (row["proof_passed"], row["comparable"]) == (record.proof_passed, record.comparable)
        assert row["flops"] == record.flops and row["notes"] == "; ".join(record.notes)
        for name, value in record.spec.hyperparameters:
            assert row[f"hp_{name}"] == value
        assert (row["hp_momentum"] is None) == (record.spec.optimizer != "muon")


def test_the_order_of_the_data_is_a_column_only_where_a_trial_has_its_own(tmp_path: Path) -> None:
    plain, own = make_record(make_spec(0)), make_record(replace(make_spec(0), data_seed=7))
    ledger = filled(tmp_path, [plain])
    assert ledger.table().column_names == [
        *tables.FIXED.names,
        "hp_learning_rate",
        "hp_nesterov",
        "hp_train_batch_size",
    ]
    compaction.compact(ledger.files, ledger.uri)
    assert "data_seed" not in short_rows(ledger)[0]
    ledger.put(own)  # beside a compacted table without the column
    for _ in range(2):
        assert {row["trial"]: row["data_seed"] for row in ledger.table().to_pylist()} == {
            plain.trial: None,
            own.trial: 7,
        }
        assert not ledger.verify()
        compaction.compact(ledger.files, ledger.uri)
    assert "data_seed" not in plain.to_json()
    assert [row["data_seed"] for row in short_rows(ledger) if row["trial"] == own.trial] == [7]
    assert [ledger.get(record.trial) for record in (plain, own)] == [plain, own]


def test_curves_have_one_row_per_point_and_the_fraction_of_the_budget(tmp_path: Path) -> None:
    short = make_record(make_spec(5), None)
    short = TrialRecord(**{**{name: getattr(short, name) for name in TrialRecord.__slots__}, "curve": short.curve[:1]})
    ledger = filled(tmp_path, [make_record(), short])
    curves = ledger.curves()
    assert curves.schema == tables.CURVES and curves.num_rows == 4
    rows = [row for row in curves.to_pylist() if row["trial"] == make_record().trial]
    assert [row["fraction"] for row in rows] == pytest.approx([1 / 3, 2 / 3, 1], rel=0.01)
    assert rows[-1]["fraction"] == 1.0 and rows[0]["train_loss"] == pytest.approx(3.8)
    ledger.compact()
    assert ledger.curves().equals(curves)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["cosine", "linear"]))
)
def test_a_hyperparameter_column_takes_the_narrowest_kind(values: list[bool | int | float | str | None]) -> None:
    column = tables.hyperparameter_column(values)
    assert [value is None for value in column.to_pylist()] == [value is None for value in values]
    if column.type == pa.string():
        assert column.to_pylist() == [None if value is None else tables.word(value) for value in values]
    else:
        assert column.to_pylist() == values


def test_compacted_and_newer_records_read_as_one(tmp_path: Path) -> None:
    records = sample()
    plain = filled(tmp_path / "plain", records)
    ledger = filled(tmp_path / "folded", records[:2])
    assert ledger.compact() == 2
    for record in records[2:]:
        ledger.put(record)
    assert ledger.table().equals(plain.table())
    assert ledger.curves().equals(plain.curves())
    assert list(ledger.records()) == list(plain.records())
    assert ledger.compact() == 4
    assert ledger.table().equals(plain.table())
    assert ledger.verify() == []


def test_a_hyperparameter_that_changes_its_kind_becomes_text(tmp_path: Path) -> None:
    ledger = filled(tmp_path, [make_record(make_spec(0, clip=1.0))])
    ledger.compact()
    ledger.put(make_record(make_spec(1, clip="off")))
    mixed = dict(zip(ledger.table()["seed"].to_pylist(), ledger.table()["hp_clip"].to_pylist(), strict=True))
    assert mixed == {0: "1", 1: "off"}
    ledger.compact()
    assert set(ledger.table()["hp_clip"].to_pylist()) == {"1", "off"}
    assert ledger.verify() == []


def test_a_compacted_row_without_its_record_does_not_exist(tmp_path: Path) -> None:
    ledger = filled(tmp_path, sample())
    ledger.compact()
    gone = ledger.ids()[0]
    (tmp_path / "trials" / f"{gone}.json").unlink()
    assert gone not in ledger.table()["trial"].to_pylist()
    assert gone not in {record.trial for record in ledger.records()}
    assert any("record is gone" in problem for problem in ledger.verify())


@pytest.mark.parametrize("damage", ["truncate", "foreign", "flip"])
def test_a_damaged_compaction_is_passed_over_and_reported(tmp_path: Path, damage: str) -> None:
    ledger = filled(tmp_path, sample())
    whole = ledger.table()
    ledger.compact()
    file = tmp_path / compaction.NAME
    data = file.read_bytes()
    if damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "foreign":
        pq.write_table(pa.table({"trial": ["x"]}), file)
    else:
        middle = data.index(b"PAR1") + 60
        file.write_bytes(data[:middle] + bytes(255 - byte for byte in data[middle : middle + 8]) + data[middle + 8 :])
    assert ledger.table().equals(whole)
    assert len(list(ledger.records())) == 4
    assert any(compaction.NAME in problem for problem in ledger.verify())


def test_export_writes_what_the_table_holds(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger", sample())
    assert ledger.export(tmp_path / "out.parquet") == 4
    assert pq.read_table(tmp_path / "out.parquet").equals(ledger.table())
    assert ledger.export(tmp_path / "out.CSV") == 4
    with (tmp_path / "out.CSV").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ledger.table()["trial"].to_pylist()
    assert [float(row["select_loss"]) if row["select_loss"] else None for row in rows] == ledger.table()[
        "select_loss"
    ].to_pylist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger", "out.CSV", "out.parquet"]


@pytest.mark.parametrize(
    ("name", "word"), [("out.xlsx", ".parquet or .csv"), ("out", ".parquet"), ("absent/out.csv", "make it first")]
)
def test_export_refuses_what_it_cannot_write(tmp_path: Path, name: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        filled(tmp_path / "ledger", sample()).export(tmp_path / name)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="folder"):
        Ledger(tmp_path / "ledger").export(tmp_path / "folder.csv")


@pytest.mark.slow
def test_ten_thousand_trials_read_fast(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (tmp_path / "trials").mkdir()
    for seed in range(10_000):
        record = make_record(make_spec(seed), points=20)
        (tmp_path / "trials" / f"{record.trial}.json").write_text(record.to_json())
    begun = time.perf_counter()
    table = ledger.table()
    loose = time.perf_counter() - begun
    ledger.compact()
    begun = time.perf_counter()
    assert ledger.table().equals(table)
    folded = time.perf_counter() - begun
    print(f"loose {loose:.2f} s, compacted {folded:.2f} s")
    assert table.num_rows == 10_000
    assert loose < 15
    assert folded < 1
