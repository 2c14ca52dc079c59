"""Accounts of a study's runs: every trial and every second stands in exactly one of them."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_study_planner import loss, plan

from tuneopt.ledger.contradictions import in_account
from tuneopt.run.simulated import as_outcome
from tuneopt.search.plan import Ended
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.study.spent import RunTimes, accounts


def interrupted_run(ahead: bool, most: int, failed_every: int) -> tuple[SchedulerQueue, list[str], dict[str, str]]:
    """A pool after some trials on three slots; every so many fail for good, and three still run at the end."""
    pool, run, failed = SchedulerQueue(plan(), ahead=ahead), [], {}
    draw = random.Random(most)
    while len(run) + len(failed) < most and not pool.finished:
        while len(pool.running) < 3 and pool.next() is not None:
            pass
        spec = draw.choice(list(pool.running.values()))
        if (len(run) + 1) % failed_every == 0 and not failed.get(spec.id):
            failed[spec.id] = "its worker died"
            pool.tell(spec, None)
        else:
            run.append(spec.id)
            pool.tell(spec, Ended(as_outcome(loss(spec)), 2.0))
    return pool, run, failed


@settings(max_examples=12, deadline=None)
@given(st.booleans(), st.integers(1, 60), st.integers(5, 40))
def test_sums_over_accounts_are_what_the_run_took(ahead, most, failed_every):
    pool, run, failed = interrupted_run(ahead, most, failed_every)
    busy = {trial: 1.0 + number for number, trial in enumerate([*run, *pool.running])}
    took = RunTimes(3, 77.0, busy, sum(busy.values()))
    shared, *own = accounts("s", pool.standings, took, run=run, reused=(), failed=failed, guesses=pool.guesses,
                            interrupted=True)  # fmt: skip
    assert sorted(trial for account in own for trial in account["run"]) == sorted(run)
    assert {trial: why for account in own for trial, why in account["failed"].items()} == failed
    assert shared["wall_seconds"] == 77.0 and not any("wall_seconds" in account for account in own)
    assert sum(account["busy_seconds"] for account in (shared, *own)) == pytest.approx(took.busy_seconds)
    assert shared["busy_seconds"] == pytest.approx(sum(busy[trial] for trial in pool.running)), "what did not end"
    for account in own:
        assert account["busy_seconds"] == pytest.approx(sum(busy[trial] for trial in account["run"]))
    assert shared["sweeps"] == [account["sweep"] for account in own]


def test_rounding_leaves_no_seconds_below_zero():
    """The run adds its seconds as they come, the accounts sweep by sweep: the difference may be -4e-12."""
    pool, run, failed = interrupted_run(False, 40, 40)
    busy = dict.fromkeys(run, 0.1)
    took = RunTimes(3, 77.0, busy, math.fsum(busy.values()) - 1e-11)
    shared, *_ = accounts("s", pool.standings, took, run=run, reused=(), failed=failed, guesses={}, interrupted=False)
    assert shared["busy_seconds"] == 0.0
    assert in_account(shared) == "" == in_account({**shared, "busy_seconds": -4e-12})
    assert "should be a number from 0 up" in in_account({**shared, "busy_seconds": -0.01})


def test_a_trial_launched_ahead_counts_for_the_sweep_that_guessed_it():
    pool = SchedulerQueue(plan(), ahead=True)
    while pool.next() is not None:
        pass
    spec = pool.running[next(iter(pool.outcomes), next(iter(pool.running)))]
    for each in list(pool.running.values()):
        pool.tell(each, Ended(as_outcome(loss(each))))
        if pool.guesses:
            break
        pool.next()
    assert pool.guesses, "with slots to spare something is launched ahead"
    guess, sweep = next(iter(pool.guesses.items()))
    needed = {trial for standing in pool.standings.values() for trial in standing.trials}
    found = accounts("s", pool.standings, RunTimes(1, 1.0, {guess: 1.0}, 1.0), run=[guess], reused=(), failed={},
                     guesses=pool.guesses, interrupted=False)  # fmt: skip
    owner = next(account["sweep"] for account in found[1:])
    assert found[1]["run"] == [guess] and (guess in needed or owner == sweep)
    assert spec.id in needed
