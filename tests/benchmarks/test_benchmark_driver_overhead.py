"""The driver's benchmark: its idle worker answers Tune like a real one, and its sweeps take the path of real ones."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import driver_overhead

from tuneopt.cluster import trainable
from tuneopt.ledger import Ledger


@pytest.fixture
def worker(tmp_path: Path) -> driver_overhead.Nothing:
    ledger = Ledger(tmp_path)
    spec = driver_overhead.sweep(0).state({}).pending[0]
    worker = driver_overhead.Nothing.__new__(driver_overhead.Nothing)
    worker.reset_config({"spec": json.dumps(spec.to_dict()), "corpus": "none", "ledger": ledger.uri, "sources": "{}"})
    return worker


def test_a_trial_that_does_nothing_ends_like_a_real_one(worker: driver_overhead.Nothing) -> None:
    said = worker.step()
    record = worker.ledger.get(worker.spec.id)
    assert record is not None and record.trial == worker.spec.id
    assert said == {**trainable.outcome(record), "busy_seconds": 0.0, "reused": False, "done": True}


def test_as_many_sweeps_are_planned_as_the_trials_take() -> None:
    plan = driver_overhead.ManySweeps(3)
    tasks = plan.tasks({})
    assert len({task.sweep.id for task in tasks}) == 3
    assert not plan.tasks({"one": None})


def test_asking_is_timed_beside_all_records(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 0.002)
    monkeypatch.setattr(driver_overhead, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert driver_overhead.ask(200) == {"records": 200, "ask_ms": pytest.approx(2.0)}


@pytest.mark.slow
def test_idle_trials_are_all_recorded(tmp_path: Path) -> None:
    program, out = Path(driver_overhead.__file__), tmp_path / "measured.json"
    subprocess.run([sys.executable, program, "--trials", "60", "--json", out], check=True, timeout=200)
    (measured,) = json.loads(out.read_text())["runs"]
    assert measured["trials"] == 60 and measured["cpu_ms"] > 0
