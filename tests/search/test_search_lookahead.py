"""Looking ahead fills idle slots and never changes where a sweep ends; replaying a ledger is resuming."""

from typing import Any

import pytest
from search_helpers import bowl, small_sweep

from tuneopt.search.plan import Ended, Outcome
from tuneopt.search.queue import Limits, OneSweep, SchedulerQueue
from tuneopt.search.records import outcome_of, replay
from tuneopt.search.standing import Task, lookahead
from tuneopt.spec import TrialSpec

BOWL = bowl(learning_rate=0.08, momentum=0.9)


def on_bowl(spec: TrialSpec) -> float | None:
    """A loss that is lowest away from the start, with a little seed noise."""
    loss = BOWL(spec.hyperparameters)
    return None if loss is None else 3 + loss + 1e-4 * spec.seed


def run(spec: TrialSpec) -> Outcome:
    loss = on_bowl(spec)
    return Outcome("diverged") if loss is None else Outcome("completed", loss, loss + 0.01)


def finished(sweep: Any) -> tuple[Any, dict[str, Outcome]]:
    """The sweep run to its end one wave at a time, nothing ahead."""
    outcomes: dict[str, Outcome] = {}
    while not (state := sweep.state(outcomes)).finished:
        outcomes |= {spec.id: run(spec) for spec in state.pending}
    return state, outcomes


def test_nothing_is_guessed_before_the_start_is_in() -> None:
    assert list(lookahead(small_sweep(), {})) == []


def test_what_comes_next_is_never_what_is_pending_or_known() -> None:
    sweep = small_sweep()
    first = sweep.state({}).pending
    outcomes = {spec.id: run(spec) for spec in first[:-1]}
    ahead = [spec.id for spec in lookahead(sweep, outcomes)]
    assert ahead, "a wave that is nearly over has a next one"
    assert not set(ahead) & ({spec.id for spec in first} | set(outcomes))
    assert len(ahead) == len(set(ahead))


def test_a_right_guess_is_needed_later() -> None:
    near = bowl(learning_rate=0.04, momentum=0.9)  # one step away: what is guessed to win does

    def on_near(specs) -> dict[str, Outcome]:
        return {spec.id: Outcome("completed", 3 + near(spec.hyperparameters), 3.0) for spec in specs}

    sweep, needed = small_sweep(), {}
    while not (state := sweep.state(needed)).finished:
        needed |= on_near(state.pending)
    outcomes = on_near(sweep.state({}).pending)
    for spec in lookahead(sweep, outcomes):
        assert spec.id in needed
        break
    else:
        pytest.fail("the bowl's start is not its bottom, so there is a next wave to guess")


@pytest.mark.parametrize("seed", range(5))
def test_running_ahead_ends_where_waiting_ends(seed: int) -> None:
    """Trials launched on guesses, right or wrong, leave incumbent, path and certificate as they are."""
    import random

    sweep = small_sweep(seed=seed)
    patient, _ = finished(sweep)
    order = random.Random(seed)
    outcomes: dict[str, Outcome] = {}
    running: list[TrialSpec] = []
    while not (state := sweep.state(outcomes)).finished:
        busy = {spec.id for spec in running}
        wanted = [spec for spec in (*state.pending, *lookahead(sweep, outcomes)) if spec.id not in busy]
        while wanted and len(running) < 3:
            running.append(wanted.pop(0))
        done = running.pop(order.randrange(len(running)))
        outcomes[done.id] = run(done)
    assert state.descent == patient.descent
    assert state.best == patient.best


@pytest.mark.parametrize("limits", [Limits(max_trials=40), Limits(max_device_seconds=1e6), Limits(hours=9), Limits()])
def test_what_is_limited_is_spent_on_no_guess(limits: Limits) -> None:
    """Which guess comes up follows from which trial ends first: two runs would spend a budget on different trials."""
    queue = SchedulerQueue(OneSweep(small_sweep()), limits=limits, ahead=True)
    queue.slots, running = 2, list[TrialSpec]()
    while not queue.finished:
        while len(running) < 2 and (spec := queue.next()) is not None:
            running.append(spec)
        done = running.pop(0)
        queue.tell(done, Ended(run(done), 1.0))
    assert bool(queue.guesses) is (limits.max_trials is None and limits.max_device_seconds is None)


def test_a_diverged_start_stops_guessing_but_not_the_sweep() -> None:
    sweep = small_sweep()
    start = sweep.trial_id(sweep.space.start)
    assert list(lookahead(sweep, {start: Outcome("diverged")})) == []
    assert sweep.state({start: Outcome("diverged")}).pending


class Shelf:
    """What `replay` needs of a ledger, counting how often it is asked."""

    def __init__(self, records: dict[str, Any]) -> None:
        self.records, self.asked = records, []

    def get(self, trial: str) -> Any:
        self.asked.append(trial)
        return self.records.get(trial)


class Record:
    """What `outcome_of` needs of a record."""

    def __init__(self, status: str, loss: float | None, proven: bool) -> None:
        self.status, self.select_loss, self.report_loss = status, loss, loss
        self.comparable = status == "completed" and proven


@pytest.mark.parametrize(
    ("record", "status", "counts"),
    [
        (Record("completed", 3.0, True), "completed", True),
        (Record("completed", 3.0, False), "unproven", False),
        (Record("diverged", None, False), "diverged", False),
    ],
)
def test_only_proven_trials_count(record: Any, status: str, counts: bool) -> None:
    outcome = outcome_of(record)
    assert outcome.status == status
    assert (outcome.loss is not None) is counts


def test_replaying_a_ledger_is_where_the_sweep_was() -> None:
    sweep = small_sweep()
    state, outcomes = finished(sweep)
    shelf = Shelf({trial: Record(o.status, o.select_loss, True) for trial, o in outcomes.items()})
    standing, told = replay(Task(sweep), shelf)  # type: ignore[arg-type]
    again = standing.state
    assert again.descent == state.descent and again.finished and told.keys() == outcomes.keys()
    assert sorted(shelf.asked) == sorted(outcomes), "each trial is asked for once"


def test_a_half_filled_ledger_leaves_the_rest_pending() -> None:
    sweep = small_sweep()
    first = sweep.state({}).pending
    shelf = Shelf({spec.id: Record("completed", on_bowl(spec), True) for spec in first[::2]})
    standing, _ = replay(Task(sweep), shelf)  # type: ignore[arg-type]
    assert [spec.id for spec in standing.pending] == [spec.id for spec in first[1::2]]
