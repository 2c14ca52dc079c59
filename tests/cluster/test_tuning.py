"""From Tune's calls to the plan and the observers: each trial's way is told once, whatever happens to its workers."""

import json
import pickle
import traceback
from dataclasses import astuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune import TuneError

from tuneopt.cluster.tuning import TuneCallback, TuneScheduler, TuneSearcher, own_errors
from tuneopt.ledger import CurvePoint, Ledger
from tuneopt.observe.observer import EventStream, Observer
from tuneopt.observe.state import RunState, TrialEnd, Worker
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import RunController
from tuneopt.scale_files import find_scale
from tuneopt.search.plan import Plan
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.records import recorded
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.sampled_plan import SampledPlan
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, Regime, TrialSpec
from tuneopt.training.config import ParallelConfig


def sweep() -> Sweep:
    """A sweep over three learning rates, so that some trials are ready at once."""
    declared = load_space("adamw").on("nano")
    held = {axis.name: axis.start for axis in declared.axes if axis.name != "learning_rate"}
    space = load_space("adamw").on("nano", held, {"learning_rate": [0.004, 0.008, 0.016]})
    return Sweep(space, Regime(find_scale("nano-65k"), 0.02, CorpusId("made-up", "00ff", 1024)), replicates=2)


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


def a_run(folder: Path, *observers: Observer, plan: Plan | None = None, **options: Any) -> tuple[Any, ...]:
    """What Tune is given for a run, and the run's controller and ledger."""
    ledger = Ledger(folder)
    plan = plan or SchedulerQueue(OneSweep(sweep()), known=recorded(ledger))
    stream = EventStream(observers, RunState(plan))
    controller = RunController(plan, RunOptions(ledger, "made-up", **options), stream)
    controller.state.slots = 2
    searcher = TuneSearcher(controller)
    return searcher, TuneCallback(searcher), controller, ledger


class Trial:
    """As much of `ray.tune.experiment.Trial` as the three look at; asked for as Tune does."""

    def __init__(self, name: str, searcher: TuneSearcher, error_file: str | None = None) -> None:
        self.trial_id, self.error_file = name, error_file
        config = searcher.suggest(name)
        assert isinstance(config, dict)
        self.config: dict[str, Any] = config
        self.spec = TrialSpec.from_dict(json.loads(config["spec"]))


def report(*steps: int, **more: Any) -> dict[str, Any]:
    rows = [astuple(CurvePoint(step, step * 2048, 0.1, 5.0, 5.1, 5.2, 1.0)) for step in steps]
    return {
        "points": rows,
        "busy_seconds": 7.5,
        "done": False,
        "hostname": "node-3",
        "pid": 7,
        "fraction": 0.5,
        "select_loss": 5.1,
        **more,
    }


def final(**more: Any) -> dict[str, Any]:
    end = {"status": "completed", "select_loss": 3.5, "report_loss": 3.6, "reused": False}
    return {"busy_seconds": 9.0, "done": True, **end, **more}


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def run(ear: Ear, tmp_path: Path) -> tuple[Any, ...]:
    return a_run(tmp_path, ear)


def test_a_trial_from_its_slot_to_its_end(run, ear: Ear, make_record) -> None:
    searcher, callback, controller, ledger = run
    trial, result = Trial("a", searcher), report(0, 10)
    callback.on_trial_start(trial=trial)
    callback.on_trial_result(trial=trial, result=result)
    assert "points" not in result, "Tune would keep them to the end of the run"
    assert controller.state.running[trial.spec.id].worker == Worker("node-3", 7)
    ledger.put(make_record(trial.spec, 3.5))
    callback.on_trial_result(trial=trial, result=final())
    callback.on_trial_complete(trial=trial)
    assert ear.heard == [
        ("started", trial.spec.id),
        ("points", [0, 10], Worker("node-3", 7)),
        ("ended", TrialEnd("completed", 3.5, 3.6, 9.0)),
    ]
    assert not searcher.launched and trial.config == {}, "an ended trial leaves nothing behind"
    assert controller.state.done == {trial.spec.id} and controller.state.busy_seconds == 9.0
    assert controller.plan.outcomes[trial.spec.id].loss == 3.5


def test_what_a_worker_is_told(tmp_path: Path) -> None:
    parallel = {"nano-65k": ParallelConfig(2, 1)}
    searcher, _, _, ledger = a_run(tmp_path, parallel=parallel, keep_weights=True)
    config = Trial("a", searcher).config
    assert config["ledger"] == ledger.uri and config["corpus"] == "made-up" and config["keep_weights"]
    assert ParallelConfig(**json.loads(config["placement"])) == parallel["nano-65k"]
    assert json.loads(config["marks"]) == {} and not config["every_point"] and not config["together"]
    plan = SampledPlan(SampledSearch(sweep(), "random", "asha"), 3)
    config = Trial("a", a_run(tmp_path, plan=plan)[0]).config
    assert json.loads(config["marks"]) == {"search": "random", "scheduler": "asha", "search_id": plan.id}
    assert config["every_point"], "trials are compared at equal fractions of their runs"


def test_the_searcher_says_later_while_others_must_end_and_finished_at_the_end(run, make_record) -> None:
    searcher, callback, controller, ledger = run
    asked = 0
    while isinstance(searcher.suggest(f"tune-{asked}"), dict):
        asked += 1
    assert asked > 2 and searcher.suggest("later") is None
    while not controller.over:
        for name, spec in list(searcher.launched.items()):
            ledger.put(make_record(spec, 4.0 + spec.config["learning_rate"]))
            trial = SimpleNamespace(trial_id=name)
            callback.on_trial_start(trial=trial)
            callback.on_trial_result(trial=trial, result=final())
        searcher.suggest(f"more-{len(controller.state.done)}")
    assert searcher.suggest("last") == TuneSearcher.FINISHED and controller.plan.finished


def test_the_whole_curve_is_told_at_the_end_to_those_who_want_it(tmp_path: Path, make_record) -> None:
    ear = Ear(whole=True)
    searcher, callback, _, ledger = a_run(tmp_path, ear)
    trial = Trial("a", searcher)
    record = make_record(trial.spec, 3.5)
    ledger.put(record)
    callback.on_trial_start(trial=trial)
    callback.on_trial_result(trial=trial, result=final())
    assert ear.heard[1] == ("points", [point.step for point in record.curve], None)
    assert ear.heard[2][0] == "ended"


def test_a_trial_that_was_recorded_already_is_not_told_as_run(run, ear: Ear, make_record) -> None:
    searcher, callback, controller, ledger = run
    trial = Trial("a", searcher)
    ledger.put(make_record(trial.spec, 3.5))
    callback.on_trial_start(trial=trial)
    callback.on_trial_result(trial=trial, result=final(reused=True))
    callback.on_trial_complete(trial=trial)
    assert ear.heard == [("started", trial.spec.id), ("reused",)]
    assert not controller.state.done and controller.plan.outcomes[trial.spec.id].loss == 3.5


def test_a_dead_worker_a_restart_and_the_last_failure(run, ear: Ear, tmp_path: Path) -> None:
    searcher, callback, controller, _ = run
    (tmp_path / "error.txt").write_text("Failure # 1\nTraceback ...\nRayActorError: the node was preempted\n")
    trial = Trial("a", searcher, str(tmp_path / "error.txt"))
    callback.on_trial_start(trial=trial)
    callback.on_trial_recover(trial=trial)
    assert not controller.state.running
    callback.on_trial_start(trial=trial)
    callback.on_trial_error(trial=trial)
    assert [heard[0] for heard in ear.heard] == ["started", "restarted", "started", "ended"]
    assert ear.heard[1] == ("restarted", "RayActorError: the node was preempted")
    assert ear.heard[3][1] == TrialEnd("failed", error="RayActorError: the node was preempted")
    assert controller.state.failed == {trial.spec.id: "RayActorError: the node was preempted"}
    assert controller.plan.gave_up == {trial.spec.id}


def test_a_trial_that_failed_before_it_had_its_slot(run, ear: Ear) -> None:
    searcher, callback, _, _ = run
    callback.on_trial_error(trial=Trial("a", searcher))
    assert ear.heard == [("ended", TrialEnd("failed", error="its worker died"))]


def test_a_trial_without_a_record_is_given_up(run) -> None:
    searcher, callback, controller, _ = run
    trial = Trial("a", searcher)
    callback.on_trial_start(trial=trial)
    callback.on_trial_result(trial=trial, result=final())
    assert controller.state.failed == {trial.spec.id: "its worker died"} and controller.plan.gave_up


def test_what_a_scheduler_stops_is_cut(ear: Ear, tmp_path: Path) -> None:
    plan = SampledPlan(SampledSearch(sweep(), "random", "asha"), 3)
    searcher, callback, controller, ledger = a_run(tmp_path, ear, plan=plan)
    scheduler, good, bad = TuneScheduler(searcher), Trial("a", searcher), Trial("b", searcher)
    for trial in (good, bad):
        callback.on_trial_start(trial=trial)
    assert scheduler.on_trial_result(None, good, report(10, select_loss=4.0)) == "CONTINUE"
    assert scheduler.on_trial_result(None, good, report(10, select_loss=None)) == "CONTINUE"
    result = report(10, select_loss=6.0)
    assert scheduler.on_trial_result(None, bad, result) == "STOP"
    callback.on_trial_result(trial=bad, result={**result, "done": True})
    callback.on_trial_complete(trial=bad)
    assert ear.heard[-1] == ("ended", TrialEnd("cut", seconds=7.5))
    assert list(plan.cut) == list(ledger.sweeps()[plan.id]["cut"]), "known to the next run, should this one be killed"
    assert controller.state.busy_seconds == 7.5 and not controller.state.done and not plan.gave_up
    assert scheduler.on_trial_result(None, good, final()) == "CONTINUE", "what has ended is not judged"


def test_tune_can_write_all_three_down(run) -> None:
    searcher, callback, _, _ = run
    searcher, scheduler, callback = pickle.loads(pickle.dumps((searcher, TuneScheduler(searcher), callback)))
    assert callback.searcher is searcher and scheduler.searcher is searcher and not searcher.launched
    with pytest.raises(AssertionError, match="runs nothing"):
        searcher.suggest("a")


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (OSError(24, "Too many open files", "a.json"), OSError),
        (InputError("no such place"), InputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (LookupError("a mistake of ours"), TuneError),
    ],
)
def test_what_our_objects_raise_inside_tune_is_raised_as_it_was(raised: BaseException, seen: type) -> None:
    """Tune's controller catches what a callback raises, and its Tuner what the controller raises."""

    def controller() -> None:
        try:
            raise raised
        except BaseException:
            raise TuneError(traceback.format_exc())  # noqa: B904 - as Tune does

    with pytest.raises(seen) as found, own_errors():
        try:
            controller()
        except TuneError as error:
            raise TuneError("the run failed") from error
    assert seen is TuneError or found.value is raised
