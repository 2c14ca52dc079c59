"""Trials on several ranks under Ray Tune, with real workers: their records, a rank that dies, two machines."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tuneopt import api
from tuneopt.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = {
    "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-10, "max_grad_norm": 1, "warmup": 0.1,
    "train_batch_size": 16, "learning_rate": 0.016,
}  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}


def command(text: Path, ledger: Path, *more: str, ratio: str = "0.02", grid: str = "learning_rate=0.016") -> list[str]:
    pinned = [f"{name}={value}" for name, value in SETTINGS.items() if not grid.startswith(name)]
    return [
        sys.executable, "-m", "tuneopt", "tune", "--optimizer", "adamw", "--scale", "nano-65k", "--ratio", ratio,
        "--no-compile", "--replicates", "1", *(word for pair in pinned for word in ("--set", pair)), "--grid", grid,
        "--corpus", str(text), "--ledger", str(ledger), "--json", *more,
    ]  # fmt: skip


def tune(text: Path, ledger: Path, *more: str, code: int = 0, **rest: str) -> dict:
    done = subprocess.run(
        command(text, ledger, *more, **rest),
        capture_output=True, text=True, cwd=ledger.parent, timeout=600, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else {"said": done.stderr}


def alone(text: Path, ledger: Path, ratio: float = 0.02, **changes: float):
    """The same trial in one process, here."""
    spec, corpus = api.single_trial(
        "adamw", ratio=ratio, corpus=str(text), overrides={**SETTINGS, **changes}, compile=False
    )
    return api.train(spec, corpus, str(ledger))


def test_a_sweep_on_two_ranks_each_ends_as_in_one_process(text_folder: Path, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    summary = tune(
        text_folder, tmp_path / "ledger", "--ranks", "2", "--zero", "2", "--keep-weights",
        grid="learning_rate=0.008,0.016",
    )  # fmt: skip
    assert summary["trials"]["run"] >= 2 and summary["trials"]["failed"] == 0
    (account,) = ledger.runs().values()
    assert account["slots"] == max(1, (os.cpu_count() or 1) // 2)
    assert 0 < account["busy_seconds"] < account["wall_seconds"] * account["slots"]
    for record in ledger.records():
        assert record.comparable and record.resumes == 0
        assert {"ranks": "2", "zero": "2", "micro_batch": "8"}.items() <= record.environment.items()
    record = alone(text_folder, tmp_path / "one", learning_rate=0.008)
    shared = ledger.get(record.trial)
    assert shared is not None, "ranks are no part of a trial's identity"
    assert shared.select_loss == pytest.approx(record.select_loss, rel=1e-4)
    assert [point.step for point in shared.curve] == [point.step for point in record.curve]
    assert not ledger.checkpoint_dir(record.trial).exists()
    # The ranks stay for the next trial: only the first of them waits for processes to start.
    startup = sorted(record.seconds["startup"] for record in ledger.records())
    assert startup[0] < startup[-1] / 3
    done = api.export_model(record.trial, tmp_path / "model", ledger)
    assert "model.safetensors" in done.files
    again = tune(text_folder, tmp_path / "ledger", grid="learning_rate=0.008,0.016")
    assert again["trials"]["run"] == 0 and again["best"] == summary["best"]


def test_a_trial_goes_on_when_one_of_its_ranks_is_killed(text_folder: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    tune(text_folder, undisturbed, "--ranks", "2", ratio="0.1")
    (whole,) = Ledger(undisturbed).records()

    ledger = Ledger(tmp_path / "ledger")
    process = subprocess.Popen(
        command(text_folder, tmp_path / "ledger", "--ranks", "2", ratio="0.1"),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**ENVIRONMENT, "TUNEOPT_CHECKPOINT_SECONDS": "0"},
    )  # fmt: skip
    checkpoints = ledger.checkpoint_dir(whole.trial)
    wait_until(lambda: len(list(checkpoints.glob("step-*.pt"))) >= 2 or process.poll() is not None)
    ranks = [each for each in psutil.Process(process.pid).children(recursive=True) if is_rank(each)]
    assert len(ranks) == 2, "both ranks were to be running"
    ranks[1].kill()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert json.loads(out)["trials"] == {"run": 1, "reused": 0, "diverged": 0, "failed": 0}
    (record,) = ledger.records()
    assert record.resumes == 1 and record.comparable
    assert (record.trial, record.select_loss, record.report_loss) == (whole.trial, whole.select_loss, whole.report_loss)
    assert [(point.step, point.select_loss, point.train_loss) for point in record.curve] == [
        (point.step, point.select_loss, point.train_loss) for point in whole.curve
    ]
    _, left = psutil.wait_procs(ranks, timeout=60)
    assert not left


def test_more_ranks_than_there_can_be_are_refused_at_once(text_folder: Path, tmp_path: Path) -> None:
    cores = os.cpu_count() or 1
    told = tune(
        text_folder, tmp_path / "ledger", "--ranks", "256", code=2, grid="train_batch_size=256,512", ratio="0.2"
    )
    assert (
        f"a trial on 256 ranks needs 256 times 1 CPU on the cluster, and all its machines hold {cores}" in told["said"]
    )
    told = tune(text_folder, tmp_path / "ledger", "--ranks", "3", code=2)
    assert "train_batch_size 16 does not divide among 3 ranks" in told["said"]
    told = tune(text_folder, tmp_path / "ledger", "--ranks", "2", "--gpus-per-trial", "0.5", code=2)
    assert "drives one GPU" in told["said"]
    assert not (tmp_path / "ledger" / "sweeps").exists(), "what is refused leaves nothing behind"


def test_ranks_of_one_trial_on_two_machines(text_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        summary = tune(text_folder, tmp_path / "ledger", "--ranks", "2", "--address", cluster.address)
        assert summary["trials"]["run"] == 1 and summary["trials"]["failed"] == 0
        refused = tune(text_folder, tmp_path / "empty", "--ranks", "4", "--address", cluster.address, code=2)
        assert "a trial on 4 ranks needs 4 times 1 CPU on the cluster, and all its machines hold 2" in refused["said"]
    finally:
        cluster.shutdown()
    (record,) = Ledger(tmp_path / "ledger").records()
    (account,) = Ledger(tmp_path / "ledger").runs().values()
    assert record.environment["ranks"] == "2" and account["slots"] == 1
    assert record.select_loss == pytest.approx(alone(text_folder, tmp_path / "one").select_loss, rel=1e-4)


def is_rank(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def wait_until(condition, seconds: float = 500) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
