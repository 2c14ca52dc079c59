"""The check of a GPU, tried at toy size on a CPU: stages, limits, lines and the table."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu_check
from gpu_check import FACT, PREDICTED, SECONDS, STAGES, Stage, facts_of, run_stage, table


def test_stages_fit_into_the_time_of_a_lent_machine_one_by_one() -> None:
    assert SECONDS <= 560 and all(stage.limit < SECONDS / 2 for stage in STAGES)
    assert {name.split(".")[0] for name in PREDICTED} <= {stage.name for stage in STAGES}


def test_a_stage_that_was_cut_keeps_what_it_had_measured() -> None:
    lines = ["noise", FACT + json.dumps({"name": "copy", "value": 4.3, "unit": "TB/s"}), FACT + '{"name": "prod']
    assert facts_of(lines) == {"copy": {"value": 4.3, "unit": "TB/s"}}


def test_a_stage_over_its_limit_is_ended_and_one_without_time_is_left_out() -> None:
    cut = run_stage(Stage("ceilings", 0.2), "cpu", True, 100)
    assert cut["status"] == "cut at its limit" and cut["seconds"] < 30
    assert run_stage(Stage("ceilings", 50), "cpu", True, 1)["status"] == "left out"


def test_a_stage_that_fails_says_why_and_the_others_go_on(tmp_path: Path, monkeypatch, capsys) -> None:
    done = {"stage": "b", "status": "done", "seconds": 1.0, "facts": {"x": {"value": 1.0, "unit": "s"}}, "error": ""}
    wrong = {"stage": "a", "status": "failed", "seconds": 1.0, "facts": {}, "error": "out of memory"}
    monkeypatch.setattr(gpu_check, "STAGES", (Stage("a", 9), Stage("b", 9)))
    monkeypatch.setattr(gpu_check, "run_stage", lambda stage, *more: wrong if stage.name == "a" else done)
    assert gpu_check.main(["--device", "cpu", "--toy", "--out", str(tmp_path / "out")]) == 1
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["failed", "done"]
    said = capsys.readouterr().out
    assert "| a | failed | 1 | out of memory |" in said and "| b | x | 1 s |  |" in said
    assert (tmp_path / "out.md").read_text() in said, "the table comes last"


def test_what_does_not_hold_is_seen_in_table_and_exit_code(tmp_path: Path, monkeypatch) -> None:
    facts = {"soap.resumed": {"value": 0.5, "unit": "", "holds": False}}
    outcome = {
        "stage": "optimizers",
        "status": "does not hold: soap.resumed",
        "seconds": 1,
        "facts": facts,
        "error": "",
    }
    assert "| optimizers | soap.resumed | NO 0.5 |  |" in table([outcome], "cuda", False)
    monkeypatch.setattr(gpu_check, "run_stage", lambda *about: outcome)
    assert gpu_check.main(["--only", "optimizers", "--out", str(tmp_path / "out")]) == 1


def test_a_stage_without_the_device_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = run_stage(Stage("head", 60), "cuda", True, 100)
    assert found["status"] == "failed" and "no CUDA device" in found["error"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_runs_at_toy_size(tmp_path: Path) -> None:
    assert gpu_check.main(["--device", "cpu", "--toy", "--out", str(tmp_path / "out")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [stage.name for stage in STAGES]
    facts = {name: fact for line in lines for name, fact in line["facts"].items()}
    assert all(facts[f"{name}.update_check"]["holds"] for name in ("adamw", "soap", "kron", "muon"))
    assert "toy size: no figure counts" in (tmp_path / "out.md").read_text()
