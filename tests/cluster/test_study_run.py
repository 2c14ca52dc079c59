"""A real study through the command line and Ray Tune: killed at three random moments, it ends as if undisturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

STUDY = Path(__file__).resolve().parents[2] / "studies" / "smoke.yaml"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def command(study: Path, ledger: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tuneopt", "study", *words, str(study), "--ledger", str(ledger), "--json"]


def finish(study: Path, ledger: Path) -> dict:
    done = subprocess.run(command(study, ledger, "run"), capture_output=True, text=True, cwd=ledger.parent)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


def certificates(document: dict) -> dict:
    keys = ("certificate", "best", "sigma", "distance")
    return {(row["optimizer"], row["scale"], row["ratio"]): [row[key] for key in keys] for row in document["results"]}


def kill(process: subprocess.Popen) -> None:
    """SIGKILL the driver, and wait for Ray's processes to notice."""
    children = [each for each in psutil.Process(process.pid).children(recursive=True) if "Agent" not in each.name()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=60)


def test_killed_three_times_it_ends_with_the_same_certificates(tmp_path: Path) -> None:
    whole = finish(STUDY, tmp_path / "whole" / "ledger") if (tmp_path / "whole").mkdir() is None else {}
    assert whole["finished"] and len(whole["results"]) == 3 * 5
    draw = random.Random(int(os.environ.get("STUDY_KILL_SEED", "0")))
    ledger = tmp_path / "ledger"
    marks = sorted(draw.sample(range(3, whole["trials"]["ended"] - 3), 3))
    for mark in marks:
        process = subprocess.Popen(
            command(STUDY, ledger, "run"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(list((ledger / "trials").glob("*.json"))) < mark:
            time.sleep(0.05)
        assert process.poll() is None, "the driver was to be killed in the middle of its study"
        time.sleep(draw.random())
        kill(process)
    resumed = finish(STUDY, ledger)
    assert certificates(resumed) == certificates(whole)
    status = json.loads(subprocess.run(command(STUDY, ledger, "status"), capture_output=True, text=True).stdout)
    assert status["phase"] == "done" and status["trials"]["running"] == 0
