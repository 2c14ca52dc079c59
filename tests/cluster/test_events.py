"""From Tune's callbacks to observers: each trial's way is told once, whatever happens to its workers."""

import json
import pickle
import threading
from dataclasses import astuple
from typing import Any

import pytest

from tuneopt.cluster.events import Events
from tuneopt.ledger import CurvePoint, Ledger
from tuneopt.observe.observer import Observer, TrialEnd, Worker
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec

SPEC = TrialSpec(
    "adamw",
    TrialSpec.freeze({"learning_rate": 0.004, "train_batch_size": 16}),
    Regime(SCALES["nano-65k"], 0.5, CorpusId("embedded", "f" * 16, 1024)),
)


class Trial:
    """As much of `ray.tune.experiment.Trial` as the callback looks at."""

    def __init__(self, name: str, error_file: str | None = None) -> None:
        self.trial_id, self.error_file = name, error_file
        self.config: dict[str, Any] = {"spec": json.dumps(SPEC.to_dict())}


class Ear(Observer):
    def __init__(self, whole: bool = False) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.wants_points = whole

    def started(self, spec: TrialSpec) -> None:
        self.heard.append(("started", spec.id))

    def points(self, spec, points, worker=None) -> None:
        self.heard.append(("points", [point.step for point in points], worker))

    def ended(self, spec: TrialSpec, end: TrialEnd) -> None:
        self.heard.append(("ended", end))

    def reused(self, spec: TrialSpec) -> None:
        self.heard.append(("reused",))

    def restarted(self, spec: TrialSpec, error: str) -> None:
        self.heard.append(("restarted", error))


def report(*steps: int, **more: Any) -> dict[str, Any]:
    rows = [astuple(CurvePoint(step, step * 2048, 0.1, 5.0, 5.1, 5.2, 1.0)) for step in steps]
    return {
        "trial": SPEC.id,
        "points": rows,
        "busy_seconds": 7.5,
        "done": False,
        "hostname": "node-3",
        "pid": 7,
        **more,
    }


def final(**more: Any) -> dict[str, Any]:
    end = {"status": "completed", "select_loss": 3.5, "report_loss": 3.6, "reused": False}
    return {"trial": SPEC.id, "busy_seconds": 9.0, "done": True, **end, **more}


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def events(ear: Ear, tmp_path) -> Events:
    return Events([ear], Ledger(tmp_path))


def test_a_trial_from_its_slot_to_its_end(events: Events, ear: Ear) -> None:
    trial, result = Trial("a"), report(0, 10)
    events.on_trial_start(trial=trial)
    events.on_trial_result(trial=trial, result=result)
    assert "points" not in result, "Tune would keep them to the end of the run"
    events.on_trial_result(trial=trial, result=final())
    trial.config = {}
    events.on_trial_complete(trial=trial)
    assert ear.heard == [
        ("started", SPEC.id),
        ("points", [0, 10], Worker("node-3", 7)),
        ("ended", TrialEnd("completed", 3.5, 3.6, 9.0)),
    ]
    assert not events._specs and not events._busy, "an ended trial leaves nothing behind"


def test_the_whole_curve_is_told_at_the_end_to_those_who_want_it(tmp_path, make_record) -> None:
    ledger, ear, trial = Ledger(tmp_path), Ear(whole=True), Trial("a")
    record = make_record(SPEC, 3.5)
    ledger.put(record)
    events = Events([ear], ledger)
    events.on_trial_start(trial=trial)
    events.on_trial_result(trial=trial, result=final())
    assert ear.heard[1] == ("points", [point.step for point in record.curve], None)
    assert ear.heard[2][0] == "ended"


def test_a_trial_that_was_recorded_already_is_not_told_as_run(events: Events, ear: Ear) -> None:
    trial = Trial("a")
    events.on_trial_start(trial=trial)
    events.on_trial_result(trial=trial, result=final(reused=True))
    events.on_trial_complete(trial=trial)
    assert ear.heard == [("started", SPEC.id), ("reused",)]


def test_a_dead_worker_a_restart_and_the_last_failure(events: Events, ear: Ear, tmp_path) -> None:
    (tmp_path / "error.txt").write_text("Failure # 1\nTraceback ...\nRayActorError: the node was preempted\n")
    trial = Trial("a", str(tmp_path / "error.txt"))
    events.on_trial_start(trial=trial)
    events.on_trial_recover(trial=trial)
    events.on_trial_start(trial=trial)
    events.on_trial_error(trial=trial)
    assert [heard[0] for heard in ear.heard] == ["started", "restarted", "started", "ended"]
    assert ear.heard[1] == ("restarted", "RayActorError: the node was preempted")
    assert ear.heard[3][1] == TrialEnd("failed", error="RayActorError: the node was preempted")


def test_a_trial_that_failed_before_it_had_its_slot(events: Events, ear: Ear) -> None:
    events.on_trial_error(trial=Trial("a"))
    assert ear.heard == [("ended", TrialEnd("failed", error="its worker died"))]


def test_what_a_scheduler_stops_is_cut(events: Events, ear: Ear) -> None:
    trial = Trial("a")
    events.on_trial_start(trial=trial)
    events.on_trial_result(trial=trial, result=report(10, done=True))
    events.on_trial_complete(trial=trial)
    assert ear.heard[-1] == ("ended", TrialEnd("cut", seconds=7.5))


def test_a_trial_that_stopped_the_run_was_not_cut(events: Events, ear: Ear) -> None:
    trial = Trial("a")
    events.on_trial_start(trial=trial)
    stop = {"trial": SPEC.id, "busy_seconds": 1.0, "halt": "the disk is full", "done": True}
    events.on_trial_result(trial=trial, result=stop)
    events.on_trial_complete(trial=trial)
    assert [heard[0] for heard in ear.heard] == ["started"]


def test_tune_can_write_it_down(events: Events) -> None:
    class Holding(Observer):
        lock = threading.Lock()

    events.observers.held.append(Holding())
    assert pickle.loads(pickle.dumps(events)).observers.held == []


def test_without_observers_it_only_drops_the_points(tmp_path) -> None:
    events, result = Events([], Ledger(tmp_path)), report(1)
    events.on_trial_start(trial=Trial("a"))
    events.on_trial_result(trial=Trial("a"), result=result)
    assert "points" not in result and not events._specs
