"""A real study asked where it stands while it runs: what is under way, what is spent, and how long the rest takes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUDY = """\
name: asked
optimizers:
  lion:
    set: {weight_decay: 0.5, beta1: 0.9, beta2: 0.95, max_grad_norm: 1, warmup: 0.1, train_batch_size: 16}
    grid: {learning_rate: [0.0005, 0.001, 0.002, 0.004]}
scales: [nano-65k]
ratios: [0.02, 0.04]
corpus: embedded
replicates: 2
evaluation: {points: 5, curve_sequences: 16, final_sequences: 64}
compile: false
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def ask(folder: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tuneopt", "study", "status", "asked.yaml", "--ledger", "ledger", "--json"],
        capture_output=True, text=True, cwd=folder, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_a_running_study_says_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "asked.yaml").write_text(STUDY)
    before = ask(tmp_path)
    assert not before["under_way"] and before["eta_seconds"] is None and before["phase"] == "I"
    words = ["study", "run", "asked.yaml", "--ledger", "ledger", "-o", "report.html", "--max-concurrent", "2"]
    words.append("--keep-weights")
    run = subprocess.Popen(
        [sys.executable, "-m", "tuneopt", *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    asked = []
    try:
        while run.poll() is None:
            asked.append(ask(tmp_path))
            time.sleep(0.2)
    finally:
        run.send_signal(signal.SIGINT)
        run.wait()
    assert run.returncode == 0
    seen = [each for each in asked if each["running"] and each["trials"]["ended"]]
    assert len(seen) >= 2, "it was asked while trials ran"
    for each in seen:
        assert each["under_way"] and each["slots"] == 2 and len(each["running"]) <= 2
        assert all(0 <= trial["fraction"] <= 1 for trial in each["running"])
        assert all(trial["optimizer"] in ("lion", None) for trial in each["running"]), "None: launched ahead"
        assert each["device_hours"] > 0 and each["remaining_device_hours"] >= 0
        assert 0 < each["eta_seconds"] < 3600
    assert any(trial["optimizer"] == "lion" for each in seen for trial in each["running"])
    ended = [each["trials"]["ended"] for each in seen]
    assert ended == sorted(ended)
    done = ask(tmp_path)
    assert done["phase"] == "done" and not done["under_way"] and not done["running"] and done["eta_seconds"] == 0
    accounts = [json.loads(path.read_text()) for path in (tmp_path / "ledger" / "runs").iterdir()]
    shared = [each for each in accounts if "wall_seconds" in each]
    assert len(shared) == 1, "one run has one wall time"
    ran = [trial for each in accounts for trial in each.get("run", ())]
    assert sorted(ran) == sorted(set(ran)) and len(ran) == len(list((tmp_path / "ledger" / "trials").glob("*.json")))
    assert {path.name for path in (tmp_path / "ledger" / "weights").iterdir()} == set(ran)
    busy = sum(each["busy_seconds"] for each in accounts)
    assert 0 < busy <= 2 * shared[0]["wall_seconds"]
