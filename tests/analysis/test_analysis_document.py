"""From a real ledger on disk to the JSON document, and that nothing heavy is imported on the way."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tuneopt import analysis
from tuneopt.analysis import summary
from tuneopt.analysis.costs import budgets
from tuneopt.analysis.inputs import load, published, read_runs
from tuneopt.analysis.runs import from_records
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.ledger.table import export
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec

SCALE = SCALES["nano-65k"]


def record(
    name: str, ratio: float, seed: int, loss: float | None, rate: float = 0.01, proven: bool = True, **changes: object
) -> TrialRecord:
    corpus = changes.pop("corpus", CorpusId("embedded", "f" * 16, 1024))
    frozen = TrialSpec.freeze({"learning_rate": rate, "train_batch_size": 16})
    spec = TrialSpec(name, frozen, Regime(SCALE, ratio, corpus), seed, **changes)  # type: ignore[arg-type]
    steps, tokens = spec.steps, spec.steps * 16 * 128
    curve = [
        CurvePoint(round(steps * at), round(tokens * at), 0.1, 5.0, 5 - at, (loss or 4) + 1 - at, 1.0)
        for at in (0.5, 1)
    ]
    return TrialRecord(
        trial=spec.id,
        status="diverged" if loss is None else "completed",
        spec=spec,
        select_loss=loss,
        report_loss=loss,
        initial_loss=7.0,
        curve=tuple(curve),
        tokens=tokens,
        steps=steps,
        epochs=1.0,
        flops=1e12,
        seconds={"train": 3000.0, "eval": 300.0, "startup": 200.0, "checkpoint": 100.0},
        peak_bytes=None,
        checkpoint_bytes=None,
        optimizer_state_bytes=None,
        proof={"passed": proven},
        routing=(),
        environment={"devices": 2 if name == "muon" else 1},
        started="2026-01-31T12:00:00+00:00",
        ended="2026-01-31T13:00:00+00:00",
        resumes=0,
        tokens_per_second=1000.0,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    for ratio in (1.0, 2.0, 4.0):
        for seed, wobble in enumerate((-0.001, 0.0, 0.001)):
            ledger.put(record("adamw", ratio, seed, 3 + ratio**-0.5 + wobble))
            ledger.put(record("muon", ratio, seed, 3 + (1.3 * ratio) ** -0.5 + wobble))
    ledger.put(record("adamw", 1.0, 0, None, rate=1.0))
    ledger.put(record("muon", 1.0, 0, 1.0, rate=0.02, proven=False))
    ledger.put(record("lion", 1.0, 0, None))
    return ledger


def test_the_document_of_a_ledger(ledger: Ledger) -> None:
    document = summary(ledger.table(), curves=ledger.curves())
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert {"speedups", "rankings", "flips", "warnings"} <= document.keys()
    assert {"optimizer", "scale", "ratio", "speedup", "low", "high", "tie_group"} <= document["speedups"][0].keys()
    muon = [item for item in document["speedups"] if item["optimizer"] == "muon"]
    assert [item["ratio"] for item in muon] == [1.0, 2.0, 4.0]
    assert [item["speedup"] for item in muon] == pytest.approx([1.3] * 3, rel=1e-3)
    assert all(item["low"] < 1.3 < item["high"] and item["tie_group"] == 1 and item["runs"] == 3 for item in muon)
    assert [item["order"] for item in document["rankings"]] == [["muon", "adamw"]] * 3
    assert [item["tie_groups"] for item in document["rankings"]] == [[1, 2]] * 3
    assert 0.001 < document["rankings"][0]["sigma"] < 0.003  # three seeds each say 0.001, the prior here 0.025
    assert document["flips"] == []
    text = " | ".join(document["warnings"])
    assert "proof of the optimizer is missing or failed: muon 1 trials" in text
    assert "lion is not ranked at nano-65k/1x, where it has no comparable run" in text


def test_everything_is_in_the_document(ledger: Ledger) -> None:
    document = summary(ledger.table(), curves=ledger.curves())
    (statement,) = document["statements"]
    assert (statement["scale"], statement["ratio"], statement["leaders"]) == ("nano-65k", 4.0, ["muon"])
    assert statement["sentence"].startswith("At nano-65k/4x muon is the best of 2 optimizers")
    assert statement["gains"][0]["speedup"] == pytest.approx(1.3, rel=1e-3)
    (joint,) = document["joint"]
    assert {each["optimizer"]: each["factor"] for each in joint["factors"]} == {
        "adamw": 1.0,
        "muon": pytest.approx(1.3, rel=1e-2),
    }
    assert len(joint["residuals"]) == 6 and joint["scale"] == "nano-65k"
    # Both curves end at their final losses, half a nat lower than in the middle: nothing crosses.
    assert [order["among"] for order in document["training"]] == ["optimizers"] * 3
    assert document["training"][0]["crossed"] == [0] * 10 and document["training"][0]["tau"][:4] == [None] * 4
    assert len(document["transfer"]) == 6 and {cell["status"] for cell in document["transfer"]} == {"same"}
    wrong = [row for row in document["undertuned"] if row["trial"] is None]
    assert [row["config"]["learning_rate"] for row in wrong if row["gpt3"]] == [0.0006] * 3
    assert sum(budget["trials"] for budget in document["budgets"]) == 21
    assert [cost["seconds"] for cost in document["costs"][:2]] == [3000.0, 6000.0]  # muon's trials held two devices
    assert document["costs"][1]["speedup_seconds"] == pytest.approx(0.65, rel=1e-3)
    assert document["costs"][1]["ranks"]["speedup_seconds"] == 2 and document["costs"][1]["ranks"]["loss"] == 1
    assert [point["front"] for point in document["pareto"]] == [
        True,
        False,
        False,
    ] * 2  # one pace, the lowest loss leads
    assert document["declared"] == {"family_rate": 0.05, "near_optimal": 0.007, "tolerance": 0.003}
    assert document["source"] == "rows" and document["hyper_laws"] == []


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_an_exported_ledger_is_recognised(ledger: Ledger, tmp_path: Path, name: str) -> None:
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    table = ledger.table()
    (pc.write_csv if name.endswith("csv") else pq.write_table)(table, tmp_path / name)
    runs = load(tmp_path / name).runs
    assert runs == read_runs(table) and len(runs) == 21 and runs[0].device_seconds is not None


def test_the_published_document_says_what_it_rests_on() -> None:
    document = summary(published(), draws=100)
    assert len(document["statements"]) == 3 and all(len(each["leaders"]) > 1 for each in document["statements"])
    assert len(document["transfer"]) == 1200 and len(document["notes"]) == 2
    assert any("one factor per optimizer does not explain every loss" in each for each in document["warnings"])
    flips = [flip for flip in document["flips"] if flip["significant"]]
    assert flips and all(flip["earlier"] != {key: flip[key] for key in ("corpus", "scale", "ratio")} for flip in flips)
    assert {law["method"] for law in document["hyper_laws"]} <= {"law", "constant", "majority", "median"}
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_an_unproven_or_diverged_trial_never_enters(ledger: Ledger) -> None:
    for item in summary(ledger.table())["rankings"]:
        assert "lion" not in item["order"] and min(item["losses"]) > 3


def test_the_noise_may_be_given(ledger: Ledger) -> None:
    document = summary(ledger.table(), sigma=0.5)
    assert all(item["sigma"] == 0.5 and item["sigma_source"] == "given" for item in document["rankings"])
    assert all(item["tie_group"] == 1 for item in document["speedups"])


def test_budgets_side_by_side(ledger: Ledger) -> None:
    adamw, lion, muon = budgets(read_runs(ledger.table()))
    assert (adamw.optimizer, adamw.trials, adamw.diverged, adamw.unproven) == ("adamw", 10, 1, 0)
    assert (lion.trials, lion.diverged) == (1, 1)
    assert (muon.trials, muon.unproven) == (10, 1)
    assert adamw.device_hours == pytest.approx(10.0) and muon.device_hours == pytest.approx(20.0)
    assert adamw.flops == 1e13 and adamw.tokens > 0 and adamw.scale is None
    split = budgets(read_runs(ledger.table()), by_regime=True)
    assert [(item.optimizer, item.ratio, item.trials) for item in split] == [
        ("adamw", 1.0, 4),
        ("adamw", 2.0, 3),
        ("adamw", 4.0, 3),
        ("lion", 1.0, 1),
        ("muon", 1.0, 4),
        ("muon", 2.0, 3),
        ("muon", 4.0, 3),
    ]


def test_one_regime_ranks_and_says_why_there_is_no_speedup(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record("adamw", 1.0, 0, 4.0))
    ledger.put(record("soap", 1.0, 0, 3.9))
    document = summary(ledger.table())
    assert document["speedups"] == [] and document["rankings"][0]["order"] == ["soap", "adamw"]
    assert document["rankings"][0]["tie_groups"] is None
    text = " | ".join(document["warnings"])
    assert "one ratio only" in text and "no seed replicates, and no sigma is given" in text
    assert "no result" in " | ".join(summary(ledger.table(), baseline="lion")["warnings"])
    empty = summary(Ledger(tmp_path / "empty").table(), curves=Ledger(tmp_path / "empty").curves())
    assert all(not part for key, part in empty.items() if key not in ("baseline", "level", "source", "declared"))
    assert (empty["baseline"], empty["level"]) == ("adamw", 0.9)


def test_two_corpora_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record("adamw", 1.0, 0, 4.0))
    ledger.put(record("adamw", 1.0, 0, 3.0, corpus=CorpusId("embedded", "a" * 16, 1024)))
    assert {item["corpus"] for item in summary(ledger.table())["rankings"]} == {
        "embedded@aaaaaaaa",
        "embedded@ffffffff",
    }


def test_doubts_about_the_law_are_said(tmp_path: Path) -> None:
    rows = [
        {"optimizer": "adamw", "scale": "130m", "ratio": ratio, "loss": loss}
        for ratio, loss in ((1, 3.5), (2, 3.3), (4, 3.29), (8, 3.2))
    ]
    assert any("misses its points" in warning for warning in summary(rows)["warnings"])
    assert any("assume sigma = 0.0012" in warning for warning in summary(rows)["warnings"])
    two = summary([*rows[:2], {**rows[0], "optimizer": "muon", "loss": 3.4}])
    assert any("two ratios" in warning for warning in two["warnings"])
    rising = summary([{**row, "loss": 7 - row["loss"]} for row in rows])  # type: ignore[operator]
    assert any("does not fall" in warning for warning in rising["warnings"])
    magic = summary([*rows, {**rows[0], "optimizer": "magic", "loss": 1.0}])
    assert any("lower bound: magic at 130m/1x" in warning for warning in magic["warnings"])
    json.dumps([two, rising, magic], allow_nan=False)


def test_mixed_precisions_are_said(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(record("adamw", 1.0, 0, 4.0))
    ledger.put(record("adamw", 1.0, 1, 4.0, precision="bf16"))
    assert any("mix compute precisions" in warning for warning in summary(ledger.table())["warnings"])
    assert dataclasses.is_dataclass(ledger.get(ledger.ids()[0]))
    each = Ledger(tmp_path / "each")
    each.put(record("adamw", 1.0, 0, 4.0))
    each.put(record("soap", 1.0, 0, 3.9, precision="bf16"))
    (said,) = (warning for warning in summary(each.table())["warnings"] if "precision" in warning)
    assert said.endswith("in different compute precisions: adamw fp32, soap bf16")


def test_a_run_with_an_order_of_its_own_replicates_no_run_that_changes_both_seeds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for seed, data_seed in ((0, None), (1, None), (0, 7), (1, 7)):
        ledger.put(record("adamw", 1.0, seed, 4.0 + 0.1 * seed, data_seed=data_seed))
    runs = from_records(ledger.records())
    assert sorted(Counter(run.setting for run in runs).values()) == [2, 2]
    for name in ("all.parquet", "all.csv"):  # the exported table says so too
        export(ledger.table(), tmp_path / name)
        assert {run.setting for run in load(tmp_path / name).runs} == {run.setting for run in runs}


def test_a_ledger_its_records_and_its_exported_table_give_one_document(ledger: Ledger, tmp_path: Path) -> None:
    straight = summary(ledger)
    assert straight == summary(ledger.table(), curves=ledger.curves()) | {"source": "ledger"}
    export(ledger.table(), tmp_path / "all.parquet")
    assert sorted(read_runs(ledger.table()), key=lambda run: run.trial) == sorted(
        (replace(run, curve=()) for run in from_records(ledger.records())), key=lambda run: run.trial
    )
    exported = summary(tmp_path / "all.parquet")
    for key in ("speedups", "rankings", "budgets", "undertuned", "transfer", "costs", "stars"):
        assert exported[key] == straight[key]


def test_the_package_lists_its_public_names() -> None:
    assert dir(analysis) == sorted(analysis.__all__) == sorted(set(analysis.__all__))
    assert {"analyse", "from_ledger", "leaders", "published", "speedups", "winners"} <= set(dir(analysis))
    with pytest.raises(AttributeError, match="choose"):
        analysis.choose  # noqa: B018


def test_neither_torch_nor_ray_is_imported() -> None:
    code = (
        "import sys, tuneopt.analysis as a, tuneopt.ledger as l\n"
        "assert 'pyarrow' not in sys.modules and 'scipy' not in sys.modules\n"
        "[getattr(a, name) for name in a.__all__], [getattr(l, name) for name in l.__all__]\n"
        "assert a.summary([])['speedups'] == [] and callable(a.summary) and callable(a.speedups)\n"
        "heavy = {'torch', 'ray', 'deepspeed', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)
