"""Whole sweeps through the command line and Ray Tune, with real processes that get killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tuneopt.ledger import Ledger

pytestmark = pytest.mark.timeout(600)

SWEEP = [
    "tune", "--optimizer", "adamw", "--scale", "nano-65k", "--ratio", "0.02", "--no-compile", "--replicates", "2",
    "--resolution", "0.2",
    "--grid", "learning_rate=0.004,0.016", "--grid", "weight_decay=0,0.1", "--grid", "beta1=0.9",
    "--grid", "beta2=0.95,0.98", "--grid", "epsilon=1e-10", "--grid", "max_grad_norm=1", "--grid", "warmup=0.1",
    "--grid", "train_batch_size=16",
]  # fmt: skip


def command(text: Path, ledger: Path, *more: str) -> list[str]:
    places = ["--corpus", str(text), "--ledger", str(ledger)]
    return [sys.executable, "-m", "tuneopt", *SWEEP, *places, "--json", *more]


def tune(text: Path, ledger: Path, *more: str) -> dict:
    done = subprocess.run(command(text, ledger, *more), capture_output=True, text=True, cwd=ledger.parent, timeout=280)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def undisturbed(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    ledger = tmp_path_factory.mktemp("undisturbed") / "ledger"
    return tune(text_folder, ledger), ledger


def losses(ledger: Path) -> dict[str, float | None]:
    return {record.trial: record.select_loss for record in Ledger(ledger).records()}


def test_a_sweep_ends_with_its_certificate_and_report(undisturbed) -> None:
    summary, ledger = undisturbed
    assert summary["certificate"]["complete"]
    assert summary["certificate"]["tolerance"] >= 0.003
    assert summary["trials"]["run"] == len(losses(ledger)) > 4
    assert summary["trials"]["failed"] == 0 and summary["trials"]["reused"] == 0
    assert summary["best"]["select_loss"] == losses(ledger)[summary["best"]["trial"]]
    assert 0 < summary["utilisation"] <= 1
    assert (ledger.parent / summary["report"]).stat().st_size > 10_000
    assert Ledger(ledger).verify() == []


def test_every_record_comes_from_a_worker_and_carries_its_proof(undisturbed) -> None:
    _, ledger = undisturbed
    for record in Ledger(ledger).records():
        assert record.proof_passed, record.proof
        assert record.spec.optimizer == "adamw"
        assert record.curve[-1].step == record.steps == record.spec.steps


def test_the_same_command_again_runs_nothing(undisturbed, text_folder: Path) -> None:
    summary, ledger = undisturbed
    before = losses(ledger)
    again = tune(text_folder, ledger)
    assert again["trials"] == {**again["trials"], "run": 0, "failed": 0}
    assert again["trials"]["reused"] > 0
    assert again["best"] == summary["best"] and again["certificate"] == summary["certificate"]
    assert losses(ledger) == before


@pytest.mark.slow  # Ray's agents go a minute after their driver
def test_kill_nine_of_the_driver_changes_nothing(undisturbed, text_folder: Path, tmp_path: Path) -> None:
    summary, whole = undisturbed
    ledger = tmp_path / "ledger"
    process = subprocess.Popen(
        command(text_folder, ledger), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    trials = ledger / "trials"
    wait_until(lambda: (trials.is_dir() and len(list(trials.glob("*.json"))) >= 2) or process.poll() is not None)
    descendants = psutil.Process(process.pid).children(recursive=True)
    # Ray's two agents look for their parent at long intervals; they train nothing and go a minute later.
    descendants = [each for each in descendants if "Agent" not in each.name()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the driver was to be killed in the middle of its sweep"
    _, alive = psutil.wait_procs(descendants, timeout=60)
    assert not alive, "Ray's processes outlive a killed driver"
    finished = {path.name: path.stat().st_mtime_ns for path in trials.glob("*.json")}
    assert 2 <= len(finished) < len(losses(whole))

    resumed = tune(text_folder, ledger)
    assert resumed["best"] == summary["best"]
    assert resumed["certificate"] == summary["certificate"]
    shared = losses(ledger).keys() & losses(whole).keys()
    assert all(losses(ledger)[trial] == losses(whole)[trial] for trial in shared)
    after = {path.name: path.stat().st_mtime_ns for path in trials.glob("*.json")}
    assert {name: after[name] for name in finished} == finished, "a finished trial was written again"
    assert resumed["trials"]["reused"] == len(finished)
    assert resumed["trials"]["run"] == len(after) - len(finished)


@pytest.mark.parametrize(
    "sent",
    [signal.SIGTERM, *(pytest.param(sent, marks=pytest.mark.slow) for sent in (signal.SIGINT, signal.SIGHUP))],
)
def test_interrupt_leaves_a_hint_and_exit_code_130(text_folder: Path, tmp_path: Path, sent: signal.Signals) -> None:
    ledger = tmp_path / "ledger"
    process = subprocess.Popen(
        command(text_folder, ledger),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start background jobs with SIGINT ignored, and children inherit that; a terminal's user has it on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    trials = ledger / "trials"
    wait_until(lambda: (trials.is_dir() and any(trials.glob("*.json"))) or process.poll() is not None)
    process.send_signal(sent)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert "tune --optimizer adamw" in err and "Traceback" not in err


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_while_ray_starts_is_one_too_and_leaves_no_process(
    text_folder: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    """`ray.init` sets handlers of its own for the time of its start; they would end the driver without a word."""
    process = subprocess.Popen(
        command(text_folder, tmp_path / "ledger"), cwd=tmp_path, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    driver = psutil.Process(process.pid)

    def started() -> list[psutil.Process]:
        children = driver.children(recursive=True) if process.poll() is None else []
        return children if any("gcs_server" in child.name() for child in children) else []

    wait_until(lambda: started() or process.poll() is not None)
    descendants = driver.children(recursive=True)
    process.send_signal(sent)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == "" and "tune --optimizer adamw" in err and "Traceback" not in err
    _, alive = psutil.wait_procs(descendants, timeout=60)
    assert not alive, "Ray's processes outlive an interrupted start"
    assert not list((tmp_path / "ledger").glob("trials/*"))


def wait_until(condition, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)
