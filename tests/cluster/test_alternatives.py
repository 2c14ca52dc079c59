"""Sampled searches through the command line and Ray Tune, with real workers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneopt.ledger import Ledger

TUNE = [
    "tune", "--optimizer", "adamw", "--scale", "nano-65k", "--ratio", "0.02", "--no-compile", "--replicates", "2",
    "--grid", "learning_rate=0.004,0.008,0.016", "--grid", "weight_decay=0,0.1", "--grid", "beta1=0.9",
    "--grid", "beta2=0.95,0.98", "--grid", "epsilon=1e-10", "--grid", "max_grad_norm=1", "--grid", "warmup=0.1",
    "--grid", "train_batch_size=16", "--ledger", "ledger", "--json",
]  # fmt: skip


def tune(folder: Path, *more: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tuneopt", *TUNE, *more],
        capture_output=True, text=True, cwd=folder, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_runs_resumes_and_is_marked_everywhere(tmp_path: Path) -> None:
    first = tune(tmp_path, "--search", "tpe", "--trials", "3")
    assert first["search"] == "tpe" and first["scheduler"] == "none"
    assert first["trials"]["run"] == 4 and first["trials"]["budget"] == 3, "three, and the winner's other seed"
    assert not first["certificate"]["complete"]
    assert any("budgets differ" in mark for mark in first["marks"])
    ledger = Ledger(tmp_path / "ledger")
    assert {record.environment["search"] for record in ledger.records()} == {"tpe"}
    assert ledger.sweeps()[first["sweep"]]["search"] == "tpe"
    assert (tmp_path / first["report"]).stat().st_size > 10_000
    again = tune(tmp_path, "--search", "tpe", "--trials", "3")
    assert again["trials"]["run"] == 0 and again["best"] == first["best"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_that_asha_cut_leaves_no_record(tmp_path: Path) -> None:
    summary = tune(tmp_path, "--search", "random", "--scheduler", "asha", "--trials", "8")
    ledger = Ledger(tmp_path / "ledger")
    cut = ledger.sweeps()[summary["sweep"]]["cut"]
    assert len(cut) == summary["trials"]["cut"] > 0
    assert not cut.keys() & set(ledger.ids())
    assert all(0.15 <= seen["fraction"] < 1 for seen in cut.values())
    assert summary["trials"]["run"] == len(ledger.ids()) == 8 - len(cut) + 1
    for record in ledger.records():
        assert record.status == "completed" and record.curve[-1].step == record.spec.steps
        assert record.environment["scheduler"] == "asha"
    assert any("ranked on intermediate loss" in mark for mark in summary["marks"])
