"""The spine: every plan keeps the protocol, on the simulated backend; a search there is a pure replay."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from plan_drivers import REGIME, small_sweep

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.observe.observer import Observer, TrialEnd
from tuneopt.run.inline import InlineBackend
from tuneopt.run.options import RunOptions
from tuneopt.run.simulated import SimulatedBackend
from tuneopt.run.spine import RunController, RunResult, run
from tuneopt.search.plan import Ended, OneTrial, Outcome, Plan
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.records import recorded
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.sampled_plan import SampledPlan
from tuneopt.search.study.file import parse_study
from tuneopt.search.study.planner import StudyPlan
from tuneopt.spec import InputError, TrialSpec

GRIDS = {"learning_rate": [0.004, 0.008, 0.016, 0.032], "weight_decay": [0, 0.1, 0.2], "train_batch_size": [8, 16]}
SWEEP = small_sweep(GRIDS)
STUDY = """\
name: two
optimizers:
  adamw: {set: {beta1: 0.9, beta2: 0.95, epsilon: 1e-10, max_grad_norm: 1, warmup: 0.1, train_batch_size: 8},
          grid: {learning_rate: [0.004, 0.008], weight_decay: [0, 0.1]}}
scales: [nano-65k]
ratios: [0.02, 0.04]
corpus: made-up
replicates: 2
"""

Known = Callable[[TrialSpec], Ended | None]


def loss(spec: TrialSpec) -> float | None:
    """A bowl with its lowest loss at 0.016; the largest rate diverges."""
    rate = float(spec.config["learning_rate"])
    return None if rate == 0.032 else 4 + abs(rate / 0.016 - 1) + float(spec.config["weight_decay"]) + 1e-4 * spec.seed


def curve(spec: TrialSpec, fraction: float) -> float | None:
    end = loss(spec)
    return None if end is None else end + 3 * (1 - fraction)


def a_sweep(known: Known) -> Plan:
    return SchedulerQueue(OneSweep(SWEEP), known=known)


def a_sweep_ahead(known: Known) -> Plan:
    return SchedulerQueue(OneSweep(SWEEP), known=known, ahead=True)


def a_study(known: Known) -> Plan:
    return SchedulerQueue(StudyPlan(parse_study(STUDY), REGIME.corpus), known=known, study=("two", "ab12"))


def a_trial(known: Known) -> Plan:
    return OneTrial(SWEEP.spec(SWEEP.space.start))


def tpe(known: Known) -> Plan:
    return SampledPlan(SampledSearch(SWEEP, "tpe"), 12, known=known)


def at_random(known: Known) -> Plan:
    return SampledPlan(SampledSearch(SWEEP, "random"), 12, known=known)


def halved(known: Known) -> Plan:
    return SampledPlan(SampledSearch(SWEEP, "random", "asha"), 12, known=known)


PLANS = [a_sweep, a_sweep_ahead, a_study, a_trial, tpe, at_random, halved]


def nothing(spec: TrialSpec) -> Ended | None:
    return None


def simulated(plan: Plan, slots: int = 1, observers: list[Observer] | None = None, **more) -> RunResult:
    backend = SimulatedBackend(loss, slots=slots, curve=curve, **more)
    return run(plan, backend, RunOptions(), observers or [])


@pytest.mark.parametrize("make", PLANS)
def test_every_plan_keeps_the_protocol(make: Callable[[Known], Plan]) -> None:
    plan, draw = make(nothing), random.Random(0)
    assert plan.id and plan.scales == {"nano-65k"} and not plan.finished and plan.remaining > 0
    coming, asked = plan.coming(1), set()
    first = True
    while not plan.finished:
        while len(plan.running) < 3 and (spec := plan.next()) is not None:
            assert not first or spec == coming[0], "what is coming is what comes"
            first = False
            assert spec.id not in asked and plan.running[spec.id] == spec, "each trial is asked for once"
            asked.add(spec.id)
        assert plan.running, "with nothing running and nothing to run it is finished"
        spec = draw.choice(list(plan.running.values()))
        if plan.judges and not plan.goes_on(spec, 0.2, curve(spec, 0.2), 0.2):
            assert spec.id in plan.cut and spec.id not in plan.running
            continue
        ended = loss(spec)
        outcome = Outcome("diverged") if ended is None else Outcome("completed", ended, ended)
        plan.tell(spec, Ended(outcome, 1.0))
        assert spec.id not in plan.running and plan.outcomes[spec.id] == outcome
    for spec in list(plan.running.values()):
        plan.tell(spec, Ended(Outcome("completed", 5.0, 5.0)))
    assert plan.idle and plan.next() is None and plan.remaining == 0
    assert asked == plan.outcomes.keys() | plan.cut.keys()


@pytest.mark.parametrize("make", PLANS)
def test_a_plan_whose_trials_all_fail_ends(make: Callable[[Known], Plan]) -> None:
    plan = make(nothing)
    result = simulated(plan, 2, crashes=lambda spec: True)
    assert plan.finished and plan.idle and set(result.failed) == plan.gave_up and not result.run


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("make", [a_sweep, a_sweep_ahead, a_study])
def test_what_is_known_does_not_run_again(make: Callable[[Known], Plan], slots: int) -> None:
    first = simulated(make(nothing), slots)
    assert first.run == sorted(first.outcomes) and first.utilisation is not None
    again = make(lambda spec: Ended(first.outcomes[spec.id]) if spec.id in first.outcomes else None)
    assert again.idle and again.remaining == 0
    second = simulated(again, slots)
    assert second.run == [] and second.reused == sorted(second.outcomes) and second.slots == 0
    guessed = first.outcomes.keys() - second.outcomes.keys()
    assert not guessed or make is a_sweep_ahead, "only what was launched ahead may turn out not to be needed"


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("killed", range(1, 16, 2))
def test_a_search_on_the_simulator_is_a_pure_replay(killed: int, slots: int) -> None:
    """Killed after some trials and made again from what was kept, it asks for the same trials as if undisturbed."""
    search = SampledSearch(SWEEP, "tpe")
    whole = SampledPlan(search, 12)
    undisturbed = simulated(whole, slots)

    class Kill(Observer):
        def __init__(self) -> None:
            self.kept: dict = {}

        def changed(self, state) -> None:
            if len(state.done) <= killed:
                self.kept = dict(state.plan.documents())[search.id]
                self.outcomes = dict(state.plan.outcomes)

    kill = Kill()
    simulated(SampledPlan(search, 12), slots, [kill])
    known = {trial: Ended(outcome) for trial, outcome in kill.outcomes.items()}
    resumed = SampledPlan(search, 12, known=lambda spec: known.get(spec.id), kept=kill.kept)
    result = simulated(resumed, slots)
    assert result.outcomes == undisturbed.outcomes and list(resumed.own) == list(whole.own)
    assert result.reused == sorted(known)


def test_observers_hear_the_whole_stream_in_its_order() -> None:
    class Ear(Observer):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def begun(self, state) -> None:
            self.heard.append("begun")
            assert state.slots == 1

        def asked(self, spec) -> None:
            self.heard.append("asked")

        def started(self, spec) -> None:
            self.heard.append("started")

        def ended(self, spec, end) -> None:
            self.heard.append(f"ended {end.status}")

        def changed(self, state) -> None:
            self.heard.append(f"{len(state.running)} running, {len(state.done)} done")

    ear = Ear()
    simulated(a_trial(nothing), 1, [ear])
    assert ear.heard == [
        "begun", "0 running, 0 done", "asked", "0 running, 0 done", "started", "1 running, 0 done",
        "ended completed", "0 running, 1 done",
    ]  # fmt: skip


def test_halving_on_the_simulator_cuts_and_never_the_winners_other_seeds() -> None:
    plan = halved(nothing)
    result = simulated(plan, 3)
    assert result.cut and not result.cut.keys() & result.outcomes.keys()
    assert len(result.cut) + len([trial for trial in plan.own if trial in result.outcomes]) == 12
    assert plan.state.best.seeds == 2
    assert all(0.15 <= seen["fraction"] < 1 for seen in result.cut.values())


def test_at_most_as_many_at_once_as_the_options_say(tmp_path: Path) -> None:
    backend = SimulatedBackend(loss, slots=8)
    result = run(a_sweep(nothing), backend, RunOptions(max_concurrent=2))
    assert result.slots == 2 and {trial.slot for trial in backend.clock.runs} == {0, 1}


def test_a_second_driver_is_told_who_works_on_the_plan(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)

    class Second(Observer):
        said = ""

        def started(self, spec) -> None:
            try:
                run(a_sweep(nothing), SimulatedBackend(loss), RunOptions(ledger))
            except InputError as error:
                self.said = str(error)

    second = Second()
    run(a_sweep(nothing), SimulatedBackend(loss), RunOptions(ledger), [second])
    assert f"sweep {SWEEP.id} is under way" in second.said


def test_an_error_of_a_trial_ends_an_inline_run_with_its_traceback(tmp_path: Path, monkeypatch) -> None:
    told = []

    class Ear(Observer):
        def ended(self, spec, end) -> None:
            told.append((end.status, end.error))

    def broken(*arguments, **named):
        raise ZeroDivisionError("the update went wrong")

    monkeypatch.setattr("tuneopt.training.run.run_trial", broken)
    with pytest.raises(ZeroDivisionError):
        run(a_trial(nothing), InlineBackend(object()), RunOptions(Ledger(tmp_path)), [Ear()])  # type: ignore[arg-type]
    assert told == [("failed", "ZeroDivisionError: the update went wrong")]


class Training:
    """A backend that records trials, and whose ledger somebody changes after the second."""

    remote = False

    def __init__(self, record: Callable[[TrialSpec], TrialRecord], then: Callable[[Path], object]) -> None:
        self.record, self.then = record, then

    @contextmanager
    def connect(self, plan: Plan, options: RunOptions) -> Iterator[int]:
        yield 1

    def drive(self, controller: RunController) -> None:
        ledger = controller.options.ledger
        while (spec := controller.ask()) is not None:
            if len(controller.state.done) == 2:
                self.then(Path(ledger.uri))
            controller.started(spec)
            Ledger(ledger.uri).put(self.record(spec))  # as a worker, which opens the ledger itself
            controller.ended(spec, TrialEnd("completed"))


def test_a_ledger_that_is_deleted_while_it_is_written_ends_the_run_with_a_sentence(tmp_path, make_record) -> None:
    ledger = Ledger(tmp_path / "ledger")
    backend = Training(lambda spec: make_record(spec, loss(spec)), shutil.rmtree)
    with pytest.raises(InputError, match="ledger was deleted or moved while this ran; put it back"):
        run(SchedulerQueue(OneSweep(SWEEP), known=recorded(ledger)), backend, RunOptions(ledger=ledger))
    assert len(Ledger(tmp_path / "ledger").ids()) == 1, "what a worker still wrote, and no more"


def test_a_ledger_that_came_back_before_the_next_trial_is_the_same_ledger(tmp_path, make_record) -> None:
    def there_and_back(folder: Path) -> None:
        folder.rename(tmp_path / "away").rename(folder)

    ledger = Ledger(tmp_path / "ledger")
    backend = Training(lambda spec: make_record(spec, loss(spec)), there_and_back)
    result = run(SchedulerQueue(OneSweep(SWEEP), known=recorded(ledger)), backend, RunOptions(ledger=ledger))
    assert result.run == sorted(ledger.ids()) and len(result.run) > 3
