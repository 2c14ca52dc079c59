"""Sampled searches through the command line and Ray Tune, with real workers; and what their watcher counts."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuneopt.cluster.proposed import CutWatcher
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


class Searcher:
    """What a watcher reads of a searcher."""

    def __init__(self) -> None:
        self.running = {"one": SimpleNamespace(id="aaaa"), "two": SimpleNamespace(id="bbbb")}
        self.reused: set[str] = set()
        self.outcomes: dict = {}
        self.failed: set[str] = set()
        self.state = "a state"


def result(trial: str, **changes) -> dict:
    return {"trial": trial, "fraction": 0.5, "select_loss": 5.0, "busy_seconds": 2.0, "done": False, **changes}


def test_a_cut_trial_is_no_finished_one_and_its_time_counts() -> None:
    told: list = []
    watcher = CutWatcher(Searcher(), 2, time.perf_counter(), told.append)  # type: ignore[arg-type]
    for name in ("one", "two"):
        watcher.on_trial_start(trial=SimpleNamespace(trial_id=name))
    watcher.on_trial_result(result=result("aaaa", done=True))
    assert watcher.done == set() and "aaaa" in watcher.running
    watcher.on_trial_complete(trial=SimpleNamespace(trial_id="one", last_result=result("aaaa", done=True)))
    assert watcher.running.keys() == {"bbbb"}
    finished = result("bbbb", done=True, status="completed", reused=False, fraction=1.0)
    watcher.on_trial_result(result=finished)
    watcher.on_trial_complete(trial=SimpleNamespace(trial_id="two", last_result=finished))
    assert watcher.done == {"bbbb"} and not watcher.running
    assert watcher.busy_seconds == 4.0
    assert told[-1].done == 1 and told[-1].state == "a state" and told[-1].slots == 2
