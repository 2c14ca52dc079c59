"""Two drivers started together on one ledger by mistake, with real processes and real training."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tuneopt.cluster.ray_fixes import janitor
from tuneopt.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SWEEP = [
    "tune", "--optimizer", "adamw", "--scale", "nano-65k", "--ratio", "0.02", "--no-compile", "--replicates", "2",
    "--resolution", "0.3",  # what two seeds of this little can certify
    "--grid", "learning_rate=0.004,0.016", "--set", "weight_decay=0.1", "--set", "beta1=0.9", "--set", "beta2=0.95",
    "--set", "epsilon=1e-10", "--set", "max_grad_norm=1", "--set", "warmup=0.1", "--set", "train_batch_size=16",
]  # fmt: skip


def start(text: Path, ledger: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tuneopt", *SWEEP, "--corpus", str(text), "--ledger", str(ledger), "--json", *more]
    return subprocess.Popen(command, cwd=ledger.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_the_second_driver_says_who_holds_the_sweep(text_folder: Path, tmp_path: Path) -> None:
    drivers = [start(text_folder, tmp_path / "ledger") for _ in range(2)]
    ends = {driver.pid: (*driver.communicate(timeout=600), driver.returncode) for driver in drivers}
    (winner,) = [pid for pid, end in ends.items() if end[2] == 0]
    ((out, err, code),) = [end for pid, end in ends.items() if pid != winner]
    assert code == 2 and out == ""
    (line,) = [line for line in err.splitlines() if "is under way" in line]
    assert f"process {winner} on " in line and " since 20" in line and "Traceback" not in err
    answer = json.loads(ends[winner][0])
    ledger = Ledger(tmp_path / "ledger")
    assert answer["certificate"]["complete"] and answer["trials"]["run"] == len(ledger.ids()) > 1
    (run,) = ledger.runs().values()
    assert sorted(run["run"]) == ledger.ids(), "each record was written by the one driver, once"
    assert ledger.verify() == [] and ledger.files.names("leases") == []

    again = start(text_folder, tmp_path / "ledger")
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and json.loads(out)["best"] == answer["best"]


def test_a_killed_driver_leaves_nothing_behind_and_does_not_hold_up_the_next(text_folder: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    first = start(text_folder, ledger)
    wait_until(lambda: list(ledger.glob("trials/*.json")) or first.poll() is not None)
    family = psutil.Process(first.pid).children(recursive=True)
    assert len(family) > 5
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start(text_folder, ledger)
    born = {each.pid: janitor.born(each.pid) for each in family}
    _, alive = psutil.wait_procs(family, timeout=30)
    left = [each for each in alive if janitor.born(each.pid) == born[each.pid]]
    assert not left, "Ray's processes outlive their driver"
    out, err = second.communicate(timeout=600)
    assert second.returncode == 0, err
    assert json.loads(out)["certificate"]["complete"]


def test_a_driver_whose_raylet_dies_ends_with_one_sentence(text_folder: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    driver = start(text_folder, ledger)
    wait_until(lambda: list(ledger.glob("trials/*.json")) or driver.poll() is not None)
    (raylet,) = [each for each in psutil.Process(driver.pid).children(recursive=True) if each.name() == "raylet"]
    raylet.kill()
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 2 and out == ""
    assert "Ray's raylet on this machine ended" in err.splitlines()[-1] and "run the same command again" in err
    again = start(text_folder, ledger)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    assert json.loads(out)["certificate"]["complete"]


@pytest.mark.parametrize("delay", [0.0, 0.3, 1.0])
def test_a_driver_whose_ray_dies_while_it_starts_ends_with_one_sentence(
    text_folder: Path, tmp_path: Path, delay: float
) -> None:
    """Ray's core asks a dead control service for a minute and then ends the process with a message of its own."""
    driver = start(text_folder, tmp_path / "ledger")
    family = psutil.Process(driver.pid)

    def services() -> list[psutil.Process]:
        return [each for each in family.children(recursive=True) if each.name() == "gcs_server"]

    wait_until(lambda: driver.poll() is not None or services())
    time.sleep(delay)
    born = family.children(recursive=True)
    services()[0].kill()
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 2 and out == ""
    said = err.splitlines()[-1]
    assert said.startswith("tuneopt: ") and "Ray" in said and "run the same command again" in said
    _, alive = psutil.wait_procs(born, timeout=60)
    assert not alive, "Ray's processes outlive a start that failed"
