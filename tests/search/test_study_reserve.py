"""Slots kept for long trials to come: what may start meanwhile, and what a study gains by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_helpers import drive, small_sweep

from tuneopt.search.queue import SHARE, Reserve, SchedulerQueue, may_start
from tuneopt.search.standing import Standing, Task
from tuneopt.spec import TrialSpec

SECONDS = st.floats(0.1, 1e4)
RESERVES = st.lists(st.builds(Reserve, SECONDS, st.integers(1, 5), SECONDS), max_size=4)


def test_a_long_trial_waits_when_it_would_leave_too_few_slots():
    coming = [Reserve(10, 2, 100)]
    assert may_start(50, [50] * 5, coming, 8), "six long ones leave two slots"
    assert not may_start(50, [50] * 6, coming, 8)
    assert may_start(9, [50] * 7, coming, 8), "it ends before the slot is wanted"
    assert may_start(100, [50] * 7, coming, 8), "it is as long as what it would keep waiting"
    assert may_start(50, [9] * 7, coming, 8), "the running ones end in time"


@given(SECONDS, st.lists(SECONDS, max_size=70), RESERVES, st.integers(1, 64))
def test_what_is_kept_is_a_share_and_never_everything(seconds, running, reserves, slots):
    assert may_start(seconds, [], reserves, slots), "nothing runs: waiting would last for ever"
    if len(running) + int(SHARE * slots) < slots:
        assert may_start(seconds, running, reserves, slots)
    if slots < 1 / SHARE and len(running) < slots:
        assert may_start(seconds, running, reserves, slots), "a small machine keeps nothing"


@given(SECONDS, st.lists(SECONDS, min_size=1, max_size=20), RESERVES, st.integers(1, 20))
def test_fewer_running_trials_never_forbid_what_more_allow(seconds, running, reserves, slots):
    if may_start(seconds, running, reserves, slots):
        assert may_start(seconds, running[1:], reserves, slots)


@dataclass
class ChainAndFiller:
    """A chain of two sweeps, the second with trials of 100 s, beside fillers of 60 s that nothing waits for."""

    keep: bool
    seconds: tuple[float, ...] = (5.0, 100.0, 60.0)

    def __post_init__(self) -> None:
        self.kinds = [replace(small_sweep(), seed=seed, replicates=6, policy="single") for seed in (0, 100, 200)]

    def tasks(self, standings: Mapping[str, Standing]) -> Sequence[Task]:
        first, second, filler = (Task(sweep) for sweep in self.kinds)
        ended = first.id in standings and standings[first.id].finished
        return (first, filler, second) if ended else (first, filler)

    def urgency(self, standing: Standing) -> float:
        kind = self._kind(standing.task.sweep.seed)
        return (200.0, 100.0, 60.0)[kind]

    def duration(self, spec: TrialSpec) -> float:
        return self.seconds[self._kind(spec.seed)]

    def reserves(self, standings: Mapping[str, Standing]) -> Sequence[Reserve]:
        chain = standings.get(self.kinds[0].id)
        waiting = self.keep and (chain is None or not chain.finished)
        return (Reserve(10.0, 2, 100.0),) if waiting else ()

    def _kind(self, seed: int) -> int:
        return min(seed // 100, 2)


@pytest.mark.parametrize("slots", [1, 2, 3, 8, 17])
def test_every_trial_runs_whether_slots_are_kept_or_not(slots):
    outcomes = []
    for keep in (False, True):
        plan = ChainAndFiller(keep)
        pool = SchedulerQueue(plan)
        drive(pool, lambda spec: 4.0, slots=slots, duration=plan.duration)
        assert pool.finished
        outcomes.append(dict(pool.outcomes))
    assert outcomes[0] == outcomes[1]


def test_a_kept_slot_brings_the_long_trials_forward():
    began = []
    for keep in (False, True):
        plan = ChainAndFiller(keep)
        clock = drive(SchedulerQueue(plan), lambda spec: 4.0, slots=8, duration=plan.duration)
        long = sorted(run.started for run in clock.runs if plan.duration(run.spec) == 100)
        began.append(long[1])
    assert began[1] < began[0], "the second long trial starts earlier"


def test_without_a_number_of_slots_nothing_is_kept():
    plan = ChainAndFiller(True)
    pool = SchedulerQueue(plan)
    while pool.next() is not None:
        pass
    assert sum(plan.duration(spec) == 60 for spec in pool.running.values()) > 8
