"""The same sweep in this process and on Ray: the same trials, losses, proofs and sweeps, bit for bit.

All of it on a machine that seems to have a GPU, which trials that ask for none must not take.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneopt.ledger import Ledger, TrialRecord

TUNE = [
    "tune", "--optimizer", "adamw", "--scale", "nano-65k", "--ratio", "0.02", "--no-compile", "--replicates", "2",
    "--grid", "learning_rate=0.004,0.016", "--set", "weight_decay=0.1", "--set", "beta1=0.9", "--set", "beta2=0.95",
    "--set", "epsilon=1e-10", "--set", "max_grad_norm=1", "--set", "warmup=0.1", "--set", "train_batch_size=16",
    "--json",
]  # fmt: skip


GPU_SERVER = Path(__file__).with_name("gpu_server")


def tune(folder: Path, backend: str, ledger: str = "") -> dict:
    command = [sys.executable, "-m", "tuneopt", *TUNE, "--backend", backend, "--ledger", ledger or backend]
    path = os.pathsep.join(filter(None, [str(GPU_SERVER), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=500, env=environment)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


def lasting(record: TrialRecord) -> dict:
    """All of a record but what clocks and machines leave in it."""
    plain = record.to_dict()
    for name in ("seconds", "tokens_per_second", "started", "ended", "peak_bytes", "checkpoint_bytes", "environment"):
        plain.pop(name)
    plain["curve"] = [[point.step, point.train_loss, point.select_loss, point.report_loss] for point in record.curve]
    return plain


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_inline_gives_the_records_of_ray(tmp_path: Path) -> None:
    inline, on_ray = tune(tmp_path, "inline"), tune(tmp_path, "ray")
    for name in ("sweep", "certificate", "best", "waves"):
        assert inline[name] == on_ray[name]
    here, there = Ledger(tmp_path / "inline"), Ledger(tmp_path / "ray")
    shared = set(here.ids()) & set(there.ids())
    assert set(here.ids()) == shared, "Ray may have launched more, ahead"
    for trial in shared:
        assert lasting(here.get(trial)) == lasting(there.get(trial))
    assert here.sweeps() == there.sweeps()
    assert tune(tmp_path, "ray", "inline")["trials"]["run"] == 0, "what one leaves, the other goes on from"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_search_with_halving_runs_inline_and_is_marked(tmp_path: Path) -> None:
    found = tune(tmp_path, "inline", "--search", "random", "--scheduler", "asha", "--trials", "2")
    ledger = Ledger(tmp_path / "inline")
    assert found["trials"]["run"] == len(ledger.ids()) >= 1 and found["trials"]["budget"] == 2
    assert {record.environment["scheduler"] for record in ledger.records()} == {"asha"}
    cut = ledger.sweeps()[found["sweep"]]["cut"]
    assert len(cut) == found["trials"]["cut"] and not cut.keys() & set(ledger.ids())
