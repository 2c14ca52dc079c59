"""The queue of waiting trials: first come, first served, no worker thrown away, and blind to what ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from ray.tune.schedulers import FIFOScheduler

from tuneopt.cluster.tuning import TuneScheduler, TuneSearcher


@dataclass
class Waiting:
    """What the queue sees of a Tune trial; counts how often it is looked at."""

    trial_id: str
    status: str = "PENDING"
    looks: int = field(default=0)

    def is_finished(self) -> bool:
        self.looks += 1
        return self.status in ("TERMINATED", "ERROR")


class Controller:
    def __init__(self, trials: list[Waiting]) -> None:
        self.trials = trials

    def get_trials(self) -> list[Waiting]:
        return self.trials


def added(queue: FIFOScheduler, trials: list[Waiting]) -> Controller:
    for trial in trials:
        queue.on_trial_add(None, trial)
    return Controller(trials)


def a_queue() -> TuneScheduler:
    return TuneScheduler(TuneSearcher(None))


def test_the_choice_is_that_of_tunes_own_queue() -> None:
    statuses = ["TERMINATED", "RUNNING", "PAUSED", "PENDING", "ERROR", "PENDING", "PAUSED"]
    trials = [Waiting(str(number), status) for number, status in enumerate(statuses)]
    queue, reference = a_queue(), FIFOScheduler()
    controller = added(queue, trials)
    while (wanted := reference.choose_trial_to_run(controller)) is not None:
        assert queue.choose_trial_to_run(controller) is wanted
        wanted.status = "RUNNING"
    assert queue.choose_trial_to_run(controller) is None


def test_a_free_worker_goes_to_a_trial_that_none_was_asked_for() -> None:
    starting, fresh, last = Waiting("a"), Waiting("b"), Waiting("c")
    queue = a_queue()
    controller = added(queue, [starting, fresh, last])
    assert [queue.choose_trial_to_run(controller) for _ in range(4)] == [starting, fresh, last, starting]
    fresh.status = "RUNNING"
    assert queue.choose_trial_to_run(controller) is starting, "nobody else is left who could take it"
    fresh.status = "PENDING"
    assert queue.choose_trial_to_run(controller) is fresh, "its worker died, so that a new one is needed"


def test_a_trial_whose_worker_died_waits_again_in_its_old_place() -> None:
    first, second = Waiting("a", "RUNNING"), Waiting("b")
    queue = a_queue()
    controller = added(queue, [first, second])
    assert queue.choose_trial_to_run(controller) is second
    second.status, first.status = "RUNNING", "PENDING"
    controller = added(queue, [Waiting("c")])
    assert queue.choose_trial_to_run(controller) is first


def test_what_ended_is_not_looked_at_again() -> None:
    ended = [Waiting(str(number), "TERMINATED") for number in range(100)]
    queue = a_queue()
    controller = added(queue, [*ended, Waiting("last", "RUNNING")])
    for _ in range(10):
        assert queue.choose_trial_to_run(controller) is None
    assert {trial.looks for trial in ended} == {1}
