"""Trackers: one run a trial, resumed ones continue, and whatever is wrong with them stays with them."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from observe_samples import make_points, make_spec
from tracker_samples import scalars, wandb_runs

from tuneopt.ledger import CurvePoint
from tuneopt.observe.state import TrialEnd
from tuneopt.observe.trackers import child, tracker
from tuneopt.observe.trackers.libraries import group_of, metrics_of, settings_of, tags_of
from tuneopt.observe.trackers.tracker import Tracker, check, installed, tracking
from tuneopt.spec import InputError, TrialSpec


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not installed(package), reason=f"not installed (pip install '.[{package}]')")


DONE = TrialEnd("completed", 3.5, 3.6, 12.0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What trackers put beside the command stays in the test; W&B talks to nobody."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def play(kind: str, target: str, *, ended: bool = True) -> tuple[TrialSpec, TrialSpec]:
    """Two trials at once through a real process; the first is interrupted after its second point, and goes on."""
    first, second = make_spec(0), make_spec(1, learning_rate=0.008)
    with tracking(**{kind: target}) as (held,):
        held.points(first, make_points(0, 10))
        held.points(second, make_points(0))
    with tracking(**{kind: target}) as (held,):
        held.started(first)
        held.points(first, make_points(0, 10, 20))  # a worker that goes on tells everything from the beginning
        held.points(second, make_points(10))
        held.points(first, make_points(0, 10, 20, 30))
        if ended:
            held.ended(first, DONE)
            held.ended(second, TrialEnd("failed", error="its worker died"))
    return first, second


def test_what_trackers_are_told_of_a_trial() -> None:
    spec = make_spec(3)
    assert settings_of(spec) == {
        "learning_rate": 0.004, "train_batch_size": 16, "optimizer": "soap", "scale": "nano-65k", "ratio": 0.5,
        "corpus": "embedded", "seed": 3,
    }  # fmt: skip
    assert tags_of(spec) == {"optimizer": "soap", "scale": "nano-65k", "ratio": "0.5"}
    assert group_of(spec) == "soap nano-65k 0.5x"
    assert metrics_of(CurvePoint(7, 14336, 0.1, None, 4.5, None, 2.0)) == {
        "select_loss": 4.5, "learning_rate": 0.1, "tokens": 14336.0, "seconds": 2.0,
    }  # fmt: skip


@needs("tensorboard")
@pytest.mark.slow
def test_tensorboard_draws_one_curve_a_trial(tmp_path: Path) -> None:
    first, second = play("tensorboard", "board")
    found = scalars(tmp_path / "board" / "soap nano-65k 0.5x" / first.id)
    losses = [(point.step, point.select_loss) for point in make_points(0, 10, 20, 30)]
    assert found["select_loss"] == [(step, pytest.approx(loss)) for step, loss in losses], "each step once"
    assert found["final_select_loss"] == [(first.steps, 3.5)]
    assert found["final_report_loss"] == [(first.steps, pytest.approx(3.6))]
    other = scalars(tmp_path / "board" / "soap nano-65k 0.5x" / second.id)
    assert [step for step, _ in other["select_loss"]] == [10], "the process that went on was told of no earlier point"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board" / "soap nano-65k 0.5x" / first.id)).Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    text = str(events.summary_metadata["_hparams_/session_start_info"])
    assert "learning_rate" in text and "optimizer" in text


@needs("wandb")
@pytest.mark.slow
def test_wandb_offline_holds_one_run_a_trial(tmp_path: Path) -> None:
    first, second = play("wandb", "fair-comparisons")
    runs = wandb_runs(tmp_path / "wandb")
    assert set(runs) == {first.id, second.id}
    run = runs[first.id]
    assert run["files"] == 2, "offline, each process leaves a folder; both have one id, and `wandb sync` joins them"
    assert (run["run"].project, run["run"].display_name) == ("fair-comparisons", first.id)
    assert run["run"].run_group == "soap nano-65k 0.5x"
    assert set(run["run"].tags) == {"optimizer:soap", "scale:nano-65k", "ratio:0.5"}
    assert {**settings_of(first), **run["config"]} == run["config"]
    held = {row["step"]: row["select_loss"] for row in run["rows"]}
    assert held == {point.step: pytest.approx(point.select_loss) for point in make_points(0, 10, 20, 30)}
    assert run["summary"]["status"] == "completed" and run["summary"]["final_select_loss"] == 3.5
    assert run["exits"] == [130, 0] and runs[second.id]["exits"] == [130, 1]


@needs("mlflow")
@pytest.mark.slow
def test_mlflow_holds_one_run_a_trial_and_goes_on_with_it(tmp_path: Path) -> None:
    first, second = play("mlflow", "sqlite:///mlflow.db")
    with sqlite3.connect(tmp_path / "mlflow.db") as base:
        runs = {name: (run, status) for run, name, status in base.execute("select run_uuid, name, status from runs")}
        assert {name: status for name, (_, status) in runs.items()} == {first.id: "FINISHED", second.id: "FAILED"}
        run = runs[first.id][0]
        asked = "select step, value from metrics where run_uuid = ? and key = ? order by step"
        held = base.execute(asked, (run, "select_loss")).fetchall()
        assert held == [(point.step, pytest.approx(point.select_loss)) for point in make_points(0, 10, 20, 30)]
        assert base.execute(asked, (run, "final_report_loss")).fetchall() == [(first.steps, 3.6)]
        assert base.execute(asked, (runs[second.id][0], "select_loss")).fetchall() == [
            (0, pytest.approx(5.1)), (10, pytest.approx(5.0))
        ]  # fmt: skip
        params = dict(base.execute("select key, value from params where run_uuid = ?", (run,)))
        assert params == {name: str(value) for name, value in settings_of(first).items()}
        tags = dict(base.execute("select key, value from tags where run_uuid = ?", (run,)))
        assert tags.items() >= {"tuneopt.trial": first.id, "optimizer": "soap", "status": "completed"}.items()


class Memory:
    """A backend that remembers, and fails when told to."""

    def __init__(self, failing: Sequence[int] = (), known: Sequence[int] = ()) -> None:
        self.failing, self.known = set(failing), set(known)
        self.calls = 0
        self.steps: dict[str, list[int]] = {}
        self.finished: list[str] = []
        self.closed = False

    def _call(self) -> None:
        self.calls += 1
        if self.calls - 1 in self.failing:
            raise ConnectionError("no route\nto the tracker")

    def begin(self, spec: TrialSpec) -> set[int]:
        self._call()
        self.steps.setdefault(spec.id, [])
        return set(self.known)

    def log(self, spec: TrialSpec, points: Sequence[CurvePoint]) -> None:
        self._call()
        self.steps[spec.id] += [point.step for point in points]

    def finish(self, spec: TrialSpec, end: TrialEnd) -> None:
        self._call()
        self.finished.append(end.status)

    def close(self) -> None:
        self._call()
        self.closed = True


def message(spec: TrialSpec, *steps: int, end: TrialEnd | None = None) -> dict:
    from dataclasses import asdict, astuple

    plain = {"spec": spec.to_dict(), "points": [astuple(point) for point in make_points(*steps)]}
    return json.loads(json.dumps({**plain, "end": end and asdict(end)}))


def test_every_step_is_written_once() -> None:
    memory, complaints, spec = Memory(known=[0]), [], make_spec()
    writer = child.Writer(lambda: memory, complaints.append)
    for steps in ((0, 10), (0, 10, 20), (20,), (5, 30)):
        writer.take(message(spec, *steps))
    writer.take(message(spec, 30, end=DONE))
    writer.close()
    assert memory.steps[spec.id] == [10, 20, 5, 30]
    assert memory.finished == ["completed"] and memory.closed and complaints == []


def test_one_failure_is_said_once_and_what_it_held_comes_with_the_next_message() -> None:
    memory, complaints, spec = Memory(failing=[1, 3]), [], make_spec()
    writer = child.Writer(lambda: memory, complaints.append)
    writer.take(message(spec, 0))
    writer.take(message(spec, 0, 10))
    writer.take(message(spec, 20))
    writer.take(message(spec, 0, 10, 20, 30, end=DONE))
    assert memory.steps[spec.id] == [0, 10, 20, 30]
    assert complaints == ["ConnectionError: no route to the tracker"]


def test_three_failures_in_a_row_end_it() -> None:
    memory, complaints = Memory(failing=range(100)), []
    writer = child.Writer(lambda: memory, complaints.append)
    for _ in range(50):
        writer.take(message(make_spec(), 0))
    writer.close()
    assert memory.calls == 3 and not memory.closed and len(complaints) == 1


@needs("mlflow")
@pytest.mark.slow
def test_an_outage_is_one_warning_and_costs_the_run_nothing(caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at that port; the address holds a password, which no message repeats."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    held = Tracker("mlflow", "http://user:secret@127.0.0.1:9", patience=90.0)
    began = time.monotonic()
    for seed in range(30):
        held.points(make_spec(seed), make_points(0, 10))
    assert time.monotonic() - began < 30, "the run never waits for a tracker, which got 90 seconds"
    held.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and warnings[0].startswith("MLflow does not take metrics"), warnings
    assert "secret" not in warnings[0]


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Take a small program for the tracker's process."""
    real = subprocess.Popen
    monkeypatch.setattr(tracker.subprocess, "Popen", lambda command, **more: real([sys.executable, "-c", code], **more))


def test_a_tracker_that_takes_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    stand_in(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(tracker, "WAITING_LINES", 50)
    held = Tracker("wandb", "p", patience=0.3)
    began = time.monotonic()
    for _ in range(2000):
        held.points(make_spec(), make_points(*range(20)))
    process = held._process
    held.close()
    assert time.monotonic() - began < 10
    assert process is not None and process.poll() is not None, "its process is gone"
    texts = [record.getMessage() for record in caplog.records]
    assert "not taken in everything after 0.3 seconds" in texts[0] and "messages were dropped" in texts[1]


def test_a_tracker_that_dies_is_one_warning_with_its_last_words(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    stand_in(monkeypatch, "import sys; sys.exit('the library is broken')")
    held = Tracker("wandb", "p", patience=5.0)
    for _ in range(200):
        held.points(make_spec(), make_points(*range(20)))
        time.sleep(0.002)
    held.close()
    assert [record.getMessage() for record in caplog.records] == [
        "Weights & Biases has ended by itself (the library is broken)"
    ]


DRIVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from observe_samples import make_points, make_spec
from tuneopt.observe.trackers.tracker import Tracker
held = Tracker("tensorboard", "board")
held.points(make_spec(), make_points(0, 10))
while not held._lines.empty():  # handed over means: in the pipe, which outlives this process
    time.sleep(0.01)
time.sleep(0.1)
print(held._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_driver_leaves_no_tracker_behind_and_loses_no_point(tmp_path: Path) -> None:
    import psutil

    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    process = psutil.Process(pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    process.wait(60)
    driver.stdout.close()
    assert [path.name for path in tmp_path.rglob("events.out.tfevents.*")], "what was handed over is on disk"


def test_a_tracker_without_trials_starts_no_process() -> None:
    with tracking(tensorboard="board") as (held,):
        assert held._process is None
    with tracking() as none:
        assert none == ()


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ({"tensorboard": ""}, "--tensorboard is empty; give a folder"),
        ({"tensorboard": "a-file"}, "a-file is no folder; give a folder"),
        ({"tensorboard": "a-file/below"}, "a-file is no folder"),
        ({"wandb": " "}, "give the name of a project"),
        ({"wandb": "a/b"}, "no name of a project"),
        ({"mlflow": "ftp://host"}, "no address that MLflow knows"),
        ({"mlflow": "sqlte:///x.db"}, "did you mean 'sqlite'"),
        ({"mlflow": "./mlruns"}, "give sqlite:///mlflow.db"),
        ({"mlflow": "file:///tmp/mlruns"}, "no longer writes into plain folders"),
    ],
)
def test_targets_that_cannot_be_are_refused_at_once(targets: dict, expected: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setattr(tracker, "installed", lambda package: True)
    with pytest.raises(InputError, match=expected.replace("(", r"\(")), tracking(**targets):
        pass


@pytest.mark.parametrize("target", ["sqlite:///mlflow.db", "https://host", "postgresql+psycopg2://u@h/d", "databricks"])
def test_addresses_of_mlflow_that_can_be(target: str, monkeypatch) -> None:
    monkeypatch.setattr(tracker, "installed", lambda package: True)
    check({"mlflow": target})


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(tracker._PACKAGES, "wandb", "no_such_package")
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"pip install wandb"):
        check({"wandb": "project"})
