"""How long the rest of a study takes: the pace by regime, and the time left against a fake clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_helpers import drive
from test_study_planner import loss, plan

from tuneopt.run.simulated import as_outcome
from tuneopt.search.plan import Ended
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.study.expected import expected
from tuneopt.search.study.status import RunUnderWay, device_seconds_left, fit_line, pace, seconds_left
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec


def duration(spec: TrialSpec) -> float:
    """Ten seconds of any trial, and some for each FLOP."""
    return 10.0 + spec.regime.flops / 1e12


@given(st.floats(0.1, 100), st.floats(1e-14, 1e-10), st.sets(st.integers(22, 32), min_size=2, max_size=6))
def test_the_line_finds_what_trials_cost(fixed, each, sizes):
    points = [(10 ** (size / 2), fixed + each * 10 ** (size / 2), 1 + number) for number, size in enumerate(sizes)]
    found = fit_line(points)
    for flop, seconds, _ in points:
        assert found[0] + found[1] * flop == pytest.approx(seconds, rel=1e-3)


@given(st.lists(st.tuples(st.floats(1e11, 1e16), st.floats(0.1, 1e5), st.integers(1, 50)), min_size=1, max_size=6))
def test_no_time_is_below_nothing(points):
    fixed, each = fit_line(points)
    assert fixed >= 0 and each >= 0 and fixed + each > 0


def halted(most: int) -> tuple[SchedulerQueue, float, float]:
    """A pool after some trials on four slots, with the time gone and the time that the whole takes."""
    whole = SchedulerQueue(plan())
    clock = drive(whole, loss, slots=4, duration=duration)
    gone = sorted(run.ended for run in clock.runs)[most - 1]
    ended = {run.spec.id for run in clock.runs if run.ended <= gone}
    pool = SchedulerQueue(plan(), known=lambda spec: None)
    while len(pool.outcomes) < len(ended):
        spec = pool.next()
        assert spec is not None and spec.id in ended | {each.spec.id for each in clock.runs}
        if spec.id in ended:
            pool.tell(spec, Ended(as_outcome(loss(spec)), duration(spec)))
    return pool, gone, clock.seconds


@pytest.mark.parametrize("most", [20, 35, 50])
def test_the_time_left_is_about_what_it_turns_out_to_be(most):
    made = plan()
    pool, gone, whole = halted(most)
    standings = pool.standings
    moment = RunUnderWay(4, {}, gone, pool.device_seconds)
    left = device_seconds_left(pool, standings, expected(made, standings), moment)
    assert 0.4 < seconds_left(made, pool, standings, left, moment) / (whole - gone) < 2.5


def test_the_pace_of_a_regime_is_its_own_and_a_new_one_follows_the_line():
    pool, _, _ = halted(60)
    found = pace(pool, pool.standings)
    for standing in pool.standings.values():
        regime = standing.task.sweep.regime
        if any(trial in pool.seconds for trial in standing.trials):
            assert found(regime) == pytest.approx(10 + regime.flops / 1e12)
    new = Regime(SCALES["nano-1m"], 4, CorpusId("made-up", "00ff", 1024))
    assert found(new) == pytest.approx(10 + new.flops / 1e12, rel=0.01)


def test_before_any_trial_has_ended_nothing_is_said():
    made = plan()
    pool = SchedulerQueue(made)
    assert device_seconds_left(pool, pool.standings, expected(made, pool.standings), RunUnderWay(2)) is None
    assert seconds_left(made, pool, pool.standings, None, RunUnderWay(2)) is None


def test_what_running_trials_have_done_is_not_left():
    made = plan()
    pool, gone, _ = halted(40)
    standings = pool.standings
    some = [spec.id for standing in standings.values() for spec in standing.pending][:2]
    expectations = expected(made, standings)
    whole, half = (
        device_seconds_left(pool, standings, expectations, RunUnderWay(4, dict.fromkeys(some, part), gone, 1.0))
        for part in (0.0, 0.5)
    )
    assert half < whole


def test_the_rate_is_what_slots_got_and_the_slots_before_that():
    assert RunUnderWay().rate == 0
    assert RunUnderWay(4).rate == 4
    assert RunUnderWay(4, {}, 27.0, 1.0).rate > 3, "the first half minute is no rate"
    assert RunUnderWay(4, {}, 1e5, 3.2e5).rate == pytest.approx(3.2, rel=0.001)
    assert RunUnderWay(4, {}, 100.0, 900.0).rate == 4
