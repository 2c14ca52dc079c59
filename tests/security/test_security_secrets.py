"""Secrets of the user's environment reach no record, report, log or message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneopt.ledger import Ledger, open_ledger
from tuneopt.spec import InputError
from tuneopt.training.machine import PACKAGES, environment

SECRETS = {
    "AWS_ACCESS_KEY_ID": "planted-access-1f6c",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-93ab",
    "AWS_SESSION_TOKEN": "planted-session-77d0",
    "GOOGLE_APPLICATION_CREDENTIALS": "/planted-google-5e21.json",
    "HF_TOKEN": "planted-hub-40be",
    "WANDB_API_KEY": "planted-wandb-c8e7",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-1b90",
    "RAY_AUTH_TOKEN": "planted-ray-ab44",
    "DATABASE_URL": "postgres://u:planted-database-0d3f@host/x",
    "TUNEOPT_PLANTED": "planted-own-2c55",
}

KNOWN_FACTS = {
    "python", "system", "cpu", "memory_gib", "gpu", "cuda", "commit", *PACKAGES,
    "ranks", "zero", "offload", "devices", "processes", "micro_batch", "mfu", "peak_flops", "checkpointing",
    "deterministic",
}  # fmt: skip
"""Everything that a record may say of where it ran; a new fact is added here after a look at what it tells."""


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with secrets around it."""
    surroundings = {**os.environ, **SECRETS, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "tuneopt", *words]
    return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=280)


def everything_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_trial_leaves_no_secret_behind(tmp_path: Path) -> None:
    """A real trial: the whole ledger, stdout and stderr."""
    done = run(
        tmp_path, "train", "-O", "adamw", "--ratio", "0.02", "--no-compile", "--set", "warmup=0.1",
        "--ledger", "ledger", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = everything_under(tmp_path)
    assert any(name.startswith("ledger/trials/") for name in files), "the trial is there"
    for name, data in {**files, "stdout": done.stdout.encode(), "stderr": done.stderr.encode()}.items():
        assert b"planted" not in data, name
    record = json.loads(done.stdout)
    assert set(record["environment"]) <= KNOWN_FACTS, "an unknown fact about the machine"
    assert os.uname().nodename not in json.dumps(record["environment"])


@pytest.mark.slow
def test_a_sweep_and_its_report_leave_no_secret_behind(tmp_path: Path) -> None:
    """A real sweep through Ray with its workers, then the report and the exports."""
    values = [word for name in ("beta1", "beta2", "epsilon", "max_grad_norm", "min_lr_ratio", "weight_decay", "warmup",
                                "train_batch_size") for word in ("--set", f"{name}={START[name]}")]  # fmt: skip
    tuned = run(
        tmp_path, "tune", "-O", "adamw", "--ratio", "0.02", "--no-compile", "--replicates", "1", *values,
        "--grid", "learning_rate=0.004,0.008", "--ledger", "ledger", "-o", "report.html",
    )  # fmt: skip
    assert tuned.returncode in (0, 3), tuned.stderr
    exported = run(tmp_path, "ledger", "export", "trials.csv", "--ledger", "ledger")
    assert exported.returncode == 0, exported.stderr
    files = everything_under(tmp_path)
    assert {"report.html", "trials.csv"} <= set(files)
    for name, data in {**files, "out": tuned.stdout.encode(), "err": tuned.stderr.encode()}.items():
        assert b"planted" not in data, name


START = {
    "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "max_grad_norm": 1, "min_lr_ratio": 0, "weight_decay": 0.1,
    "warmup": 0.1, "train_batch_size": 16,
}  # fmt: skip


def test_the_facts_are_on_the_list() -> None:
    assert set(environment()) <= KNOWN_FACTS


@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIAplanted:planted-secret@bucket/ledger",
        "s3://planted-secret@bucket/ledger",
        "gs://planted:planted@bucket",
        "s3://bucket/ledger?region=x&secret_key=planted-secret",
        "s3://bucket?ACCESS_TOKEN=planted-secret",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(address: str) -> None:
    for opened in (Ledger, open_ledger):
        with pytest.raises(InputError, match="key or password") as refusal:
            opened(address)
        assert "planted" not in str(refusal.value)


def test_addresses_without_secrets_are_not_touched() -> None:
    assert Ledger("s3://bucket/a?region=us-east-1").uri == "s3://bucket/a?region=us-east-1"
    assert Ledger("gs://anonymous@bucket/a").uri == "gs://anonymous@bucket/a"


def test_a_secret_in_an_address_is_not_told_by_the_command(tmp_path: Path) -> None:
    done = run(tmp_path, "ledger", "ls", "--ledger", "s3://key:planted-secret@bucket/x")
    assert done.returncode == 2
    assert "planted" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
