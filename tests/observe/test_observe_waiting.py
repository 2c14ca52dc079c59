"""Why a sweep waits: the pure function over facts, the board, and the timer that asks."""

import logging
import re
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observe_samples import make_points, make_spec

from tuneopt.ledger import Ledger
from tuneopt.observe.logs import Narrator
from tuneopt.observe.state import RunState, Worker
from tuneopt.observe.waiting import Cluster, Facts, Running, Times, Wait, WaitTimer, why_waiting
from tuneopt.search.plan import OneTrial

NOW = time.mktime((2026, 11, 22, 18, 30, 0, 0, 0, -1))
TRAINING = Running("aa", began=600.0, silent=4.0, gap=6.0, left=120.0, where="process 7 on node-3")


def facts(**changes) -> Facts:
    return Facts(**{"now": NOW, "slots": 2, "running": (TRAINING, replace(TRAINING, trial="bb")), **changes})


def test_a_sweep_whose_slots_train_is_not_waiting() -> None:
    assert why_waiting(facts()) is None


@pytest.mark.parametrize("waited", [29.9, 30.0])
def test_it_says_nothing_before_30_seconds(waited: float) -> None:
    reasons = [
        facts(running=(), queued={"cc": waited}),
        facts(running=(replace(TRAINING, silent=None, began=waited),)),
        facts(running=(TRAINING,), idle=waited),
        facts(running=(), nothing=waited),
    ]
    for each in reasons:
        assert (why_waiting(each) is None) == (waited < 30)


def test_no_slot_names_who_waits_who_holds_and_what_the_autoscaler_does() -> None:
    cluster = Cluster("10.0.0.1:6379", free="1 of 1 CPU in use", holders=("an actor Hog of the driver process 9",))
    alone = why_waiting(facts(running=(), queued={"cc": 45.0}, cluster=cluster))
    assert alone == (
        "no slot is free for trial cc, since 18:29:15; 1 of 1 CPU in use; "
        "held by an actor Hog of the driver process 9; no machine is being started"
    )
    growing = replace(cluster, holders=(), autoscaler=("the autoscaler starts 2 x gpu-worker",), dead=1)
    some = why_waiting(facts(queued={f"t{number}": 40.0 + number for number in range(5)}, cluster=growing))
    assert some is not None and some.kind == "slot"
    assert "5 trials (t0, t1, t2 and 2 more)" in some and "2 by this sweep" in some
    assert "1 machine is gone" in some and some.endswith("the autoscaler starts 2 x gpu-worker")


def test_only_trials_that_have_waited_long_count() -> None:
    assert "trial old," in why_waiting(facts(queued={"old": 31.0, "new": 2.0}))


def test_a_silent_worker_is_measured_by_its_own_pace() -> None:
    """A large trial reports every half an hour, and is not called silent before an hour and a half."""
    slow = replace(TRAINING, gap=1800.0)
    assert why_waiting(facts(running=(replace(slow, silent=5000.0),) * 2)) is None
    text = why_waiting(facts(running=(replace(slow, silent=5400.0, last_event="point: step 3 of 90"), TRAINING)))
    assert text is not None and text.kind == "silent"
    assert "trial aa (process 7 on node-3) has not answered since 17:00:00" in text
    assert "longest silence before: 30 min" in text and text.endswith("its log ends with: point: step 3 of 90")


def test_preparing_and_training_towards_the_first_point_differ() -> None:
    fresh = replace(TRAINING, silent=None, began=40.0, last_event="warning: waits for the kernels")
    text = why_waiting(facts(running=(fresh, TRAINING)))
    assert text is not None and text.kind == "preparing" and text.endswith(": warning: waits for the kernels")
    assert why_waiting(facts(running=(replace(fresh, training=True), TRAINING))) is None
    late = why_waiting(facts(running=(replace(fresh, training=True, began=900.0), TRAINING)))
    assert late is not None and "has not reached its first curve point" in late


def test_the_end_of_a_wave_names_the_trials_and_when_they_end() -> None:
    text = why_waiting(facts(running=(TRAINING,), idle=31.0))
    assert text == ("1 of 2 slots is idle: what comes next depends on the end of trial aa, expected at about 18:32:00")
    unknown = why_waiting(facts(running=(replace(TRAINING, left=None),), idle=31.0))
    assert unknown is not None and "expected" not in unknown


def test_a_lost_cluster_comes_before_everything_else() -> None:
    lost = Cluster("10.0.0.1:6379", lost="connection refused")
    text = why_waiting(facts(queued={"cc": 99.0}, cluster=lost))
    assert text is not None and text.kind == "lost"
    assert "10.0.0.1:6379 does not answer (connection refused)" in text and "same command" in text


def test_another_day_is_named() -> None:
    text = why_waiting(facts(running=(), queued={"cc": 90_000.0}))
    assert text is not None and "since 2026-11-21 17:30" in text


SECONDS = st.floats(0, 1e7)
TRIALS = st.builds(
    Running,
    trial=st.text("abc", min_size=1, max_size=4),
    began=SECONDS,
    silent=st.none() | SECONDS,
    gap=SECONDS,
    left=st.none() | SECONDS,
    training=st.booleans(),
    last_event=st.text(max_size=5),
)
MOMENTS = st.builds(
    Facts,
    now=st.just(NOW),
    slots=st.integers(1, 9),
    running=st.lists(TRIALS, max_size=4).map(tuple),
    queued=st.dictionaries(st.text("abc", min_size=1, max_size=3), SECONDS, max_size=5),
    idle=st.none() | SECONDS,
    nothing=st.none() | SECONDS,
    cluster=st.none()
    | st.builds(Cluster, address=st.just("head:6379"), lost=st.sampled_from(["", "gone"]), dead=st.integers(0, 3)),
)


@settings(max_examples=60, deadline=None)
@given(moment=MOMENTS)
def test_every_moment_has_one_short_sentence_or_none(moment: Facts) -> None:
    text = why_waiting(moment)
    assert text == why_waiting(moment), "the same facts, the same words"
    if text is not None:
        assert text.kind and "\n" not in text and len(text) < 600
        assert "  " not in text and not re.search(r"\bNone\b|nan", text)
    longer = why_waiting(moment, patience=1e12)
    assert longer is None or longer.kind == "lost", "without patience's end only a lost cluster is worth a word"


def test_the_state_knows_who_runs_and_how_fast() -> None:
    now, spec = [100.0], make_spec()
    state = RunState(OneTrial(spec), clock=lambda: now[0])
    state.started(spec)
    now[0] = 130.0
    state.points(spec, make_points(0, spec.steps // 4), Worker("node-3", 7))
    now[0] = 140.0
    state.points(spec, make_points(spec.steps // 2))
    heard = state.running[spec.id]
    assert (heard.began, heard.last, heard.gap, heard.worker) == (100.0, 140.0, 30.0, Worker("node-3", 7))
    assert heard.fraction == pytest.approx(0.5, abs=0.02) and heard.first_fraction == pytest.approx(0.25, abs=0.02)
    assert heard.select_loss == make_points(spec.steps // 2)[0].select_loss and state.elapsed == 40.0
    state.left(spec.id)
    assert state.running == {}
    state.points(spec, make_points(1))
    assert state.running == {}, "a report that was under way when the trial ended changes nothing"


def test_the_seconds_of_a_trial_that_goes_on_are_counted_once() -> None:
    state = RunState(OneTrial(make_spec()))
    for trial, seconds in (("a", 1.0), ("b", 2.0), ("a", 3.0), ("a", 3.0)):
        state.took(trial, seconds)
    assert state.busy == {"a": 3.0, "b": 2.0} and state.busy_seconds == 5.0


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "tuneopt.waiting"]


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing was said"
        time.sleep(0.005)


def test_the_timer_says_it_at_once_again_later_and_anew_when_the_reason_changes(caplog, tmp_path) -> None:
    reason: list[Wait | None] = [None]
    times = Times(first=0.0, every=0.3, beat=0.005)
    with WaitTimer(lambda patience: reason[0], Narrator(Ledger(tmp_path)).waiting, times):
        time.sleep(0.05)
        assert said(caplog) == []
        reason[0] = Wait("slot", "no slot")
        wait_for(lambda: len(said(caplog)) == 1)
        reason[0] = Wait("lost", "no cluster")
        wait_for(lambda: len(said(caplog)) == 2)
        wait_for(lambda: len(said(caplog)) == 3)
        reason[0] = None
        time.sleep(0.05)
        reason[0] = Wait("lost", "no cluster")
        wait_for(lambda: len(said(caplog)) == 4)
    assert said(caplog) == ["waiting: no slot", *["waiting: no cluster"] * 3]
    assert {record.reason for record in caplog.records if record.name == "tuneopt.waiting"} == {"slot", "lost"}
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_the_timer_survives_what_it_asks_and_ends_with_its_run() -> None:
    asked = threading.Event()

    def ask(patience: float) -> Wait | None:
        asked.set()
        raise ConnectionError("the cluster went away during the look")

    timer = WaitTimer(ask, print, Times(beat=0.005))
    with timer:
        assert asked.wait(10)
        asked.clear()
        assert asked.wait(10), "it asks again after an error"
    assert not timer._thread.is_alive()
