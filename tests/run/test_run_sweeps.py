"""A sweep as a plan over a ledger: what it asks for, reuses, gives up, and when it ends."""

from pathlib import Path

import pytest
from plan_drivers import Worker, small_sweep

from tuneopt.ledger import Ledger
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.records import recorded
from tuneopt.search.state import SweepState
from tuneopt.spec import TrialSpec

SWEEP = small_sweep({"learning_rate": [0.004, 0.008, 0.016], "weight_decay": [0, 0.1], "train_batch_size": [8]})


def plan_of(ledger: Ledger) -> SchedulerQueue:
    return SchedulerQueue(OneSweep(SWEEP), known=recorded(ledger), ahead=True)


def state(plan: SchedulerQueue) -> SweepState:
    return plan.standings[SWEEP.id].state


@pytest.fixture
def record(make_record):
    """A bowl with its lowest loss at twice the starting rate."""

    def make(spec: TrialSpec):
        distance = abs(spec.config["learning_rate"] / 0.016 - 1) + spec.config["weight_decay"]
        return make_record(spec, 4 + distance + 1e-4 * spec.seed)

    return make


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_sweep_runs_to_its_certificate_and_asks_for_nothing_twice(slots: int, tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    plan = plan_of(ledger)
    worker = Worker(plan, ledger, record)
    worker.run(slots)
    assert state(plan).finished and state(plan).descent.certificate.complete
    assert state(plan).best.spec.config["learning_rate"] == 0.016
    ids = [spec.id for spec in worker.suggested]
    assert len(ids) == len(set(ids)) == len(ledger.ids())
    assert not plan.reused


def test_what_the_ledger_holds_is_reused(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    Worker(plan_of(ledger), ledger, record).run()
    again = plan_of(ledger)
    assert state(again).finished
    assert again.next() is None and again.idle
    assert again.reused == set(ledger.ids())


def test_the_same_answer_from_any_moment(tmp_path: Path, record) -> None:
    whole = Ledger(tmp_path / "whole")
    first = plan_of(whole)
    Worker(first, whole, record).run()
    for kept in range(0, len(whole.ids()), 3):
        ledger = Ledger(tmp_path / str(kept))
        for trial in whole.ids()[:kept]:
            ledger.put(whole.get(trial))
        plan = plan_of(ledger)
        Worker(plan, ledger, record).run(2)
        assert state(plan).best == state(first).best
        assert state(plan).descent.path == state(first).descent.path


def test_a_trial_without_a_record_is_given_up_and_the_certificate_says_so(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    plan = plan_of(ledger)
    worker = Worker(plan, ledger, record)
    broken = None
    while (spec := worker.start()) is not None:
        if broken is None and spec.config["weight_decay"] == 0:
            broken = spec.id
        if spec.id == broken or (broken and spec.config["weight_decay"] == 0):
            worker.lose(spec)
        else:
            worker.end(spec)
    assert state(plan).finished
    assert broken in plan.gave_up
    assert not state(plan).descent.certificate.complete


def test_idle_slots_look_ahead_and_full_ones_do_not(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    plan = plan_of(ledger)
    worker = Worker(plan, ledger, record)
    wave = len(state(plan).pending)
    specs = [worker.start() for _ in range(wave)]
    assert worker.start() is None, "before the start has ended there is nothing to guess"
    for spec in specs[:-1]:
        worker.end(spec)
    ahead = worker.start()
    assert ahead is not None and ahead.id not in {spec.id for spec in state(plan).pending}
