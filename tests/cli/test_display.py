"""What people see while a sweep runs and when it ends."""

import re
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import pytest

from tuneopt.console import PlainConsole, number, span
from tuneopt.display import RunDisplay, TrialDisplay, resume_hint, seconds_left, status_line
from tuneopt.ledger import CurvePoint
from tuneopt.observe.state import RunState
from tuneopt.search.plan import Ended, Outcome, PlanProgress
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.study.expected import expected
from tuneopt.search.study.file import parse_study
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.surfaces import Surfaces
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec

STUDY = parse_study("""
name: small
optimizers: {adamw: {coordinates: [learning_rate]}, soap: {coordinates: [learning_rate]}}
scales: [nano-65k]
ratios: [0.5]
corpus: embedded
comparison: {baseline: adamw, ratios: [0.5, 0.7071, 1.0], trials: 4, seeds: 2}
""")


def make_spec(seed: int = 0) -> TrialSpec:
    frozen = TrialSpec.freeze({"learning_rate": 0.004, "train_batch_size": 16})
    return TrialSpec("soap", frozen, Regime(SCALES["nano-65k"], 0.5, CorpusId("embedded", "f" * 16, 1024)), seed=seed)


def a_state(done: int = 4, failed: int = 0, kind: str = "sweep", **changes) -> RunState:
    """A run after 125 seconds on two slots, two trials half done."""
    progress = replace(PlanProgress(2, 10, 6, 1, 3.91857, 1, {"I": (2, 5), "II": (0, 3)}), **changes)
    plan = SimpleNamespace(kind=kind, reused=set("abcdef"), diverged=1, progress=lambda: progress)
    now = [0.0]
    state = RunState(plan, clock=lambda: now[0])  # type: ignore[arg-type]
    now[0], state.slots = 125.0, 2
    state.done, state.failed = set(range(done)), dict.fromkeys(range(failed), "lost")  # type: ignore[assignment]
    state.busy_seconds = 200.0
    for seed in (0, 1):
        spec = make_spec(seed)
        state.started(spec)
        state.points(spec, [CurvePoint(spec.steps // 2, 1, 0.1, 4.0, 4.0, 4.0, 1.0)])
    return state


def test_the_live_picture_loses_nothing_at_80_columns(monkeypatch) -> None:
    shown = StringIO()
    narrow = PlainConsole(file=shown, force_terminal=True, width=80, highlight=False, soft_wrap=True)
    monkeypatch.setattr("tuneopt.display.err", narrow)
    display = RunDisplay("tuning", "soap at nano-65k/0.5x")
    with display:
        display.changed(a_state())
        display.live.refresh()
    text = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue()).split())
    assert "best 3.9186 (one seed)" in text and "2 min 05 s gone" in text and " left" in text


def test_the_line_names_every_count() -> None:
    line = status_line(a_state())
    for words in (
        "wave 2",
        "10 of about 16 trials",
        "2 running",
        "6 reused",
        "1 diverged",
        "best 3.9186",
        "2 min 05 s",
    ):
        assert words in line
    assert "failed" not in line
    assert "2 failed" in status_line(a_state(failed=2))


def test_the_line_of_a_study_counts_its_phases() -> None:
    assert status_line(a_state(kind="study", failed=1)) == (
        "phase I: 2 of 5 sweeps, phase II: 0 of 3 sweeps, 1 certificate, 4 trials done, 2 running, 6 reused, "
        "1 diverged, 1 failed, 2 min 05 s gone"
    )


def test_the_line_of_a_study_says_what_was_reached_and_when_it_ends(capsys: pytest.CaptureFixture) -> None:
    surfaces = Surfaces(STUDY, noise=0.02)
    queue = SchedulerQueue(StudyPlan(STUDY, CorpusId("embedded", "", 1024)), study=("small", "id"))
    now = [0.0]
    state = RunState(queue, clock=lambda: now[0])
    state.slots = queue.slots = 2
    with RunDisplay("running", "small") as display:
        display.begun(state)
    coming = sum(part.remaining for part in expected(queue.agenda, {}))
    assert f"\nabout {coming} trials in all" in capsys.readouterr().err, "all phases, not the sweeps that have begun"
    for count in range(6):
        spec = queue.next()
        assert spec is not None
        state.started(spec)
        now[0] += 10.0
        state.left(spec.id)
        state.took(spec.id, 10.0)
        state.done.add(spec.id)
        queue.tell(spec, Ended(Outcome("completed", surfaces.evaluate(spec), 1.0), 10.0))
        line = status_line(state)
        assert f"{count + 1} trials done" in line and "trials and" in line and " left" in line
    assert "adamw 4." in line and "soap 4." in line, "the lowest losses where they meet"
    with RunDisplay("running", "small") as display:
        display.begun(state)
    assert "trials in all, usually, 6 of them in the ledger" in capsys.readouterr().err, "each counts once"


def test_time_left_follows_from_what_trials_took() -> None:
    # 200 busy seconds bought five trials' worth, so 40 s each; 6 - 1 under way remain, on two slots.
    assert seconds_left(a_state()) == pytest.approx((6 - 1) * 40 / 2, rel=0.01)
    fresh = a_state(done=0)
    fresh.busy_seconds = 0.0
    assert seconds_left(fresh) is None


def test_without_a_terminal_each_finished_trial_is_one_line(capsys: pytest.CaptureFixture) -> None:
    with RunDisplay("tuning", "a sweep") as display:
        display.connecting()
        for done in (0, 0, 1, 1, 1, 2):
            display.changed(a_state(done))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tuning a sweep" and lines[1].startswith("starting"), "something is said at once"
    assert len([line for line in lines if "of about 16 trials" in line]) == 2


def test_eighty_columns_keep_the_best_loss_and_the_time_left() -> None:
    line = status_line(a_state(fewest=12, most=88))
    first = "10 of 22 to 98 trials, best 3.9186 (one seed), 3 min 40 s to 29 min 00 s left"
    assert line.startswith(first) and len(first) <= 80
    assert "2 min 05 s gone" in line and "wave 2" in line


def test_a_log_is_not_silent_until_the_first_trial_has_ended(monkeypatch, capsys: pytest.CaptureFixture) -> None:
    now = [1000.0]
    monkeypatch.setattr("tuneopt.display.time.perf_counter", lambda: now[0])
    with RunDisplay("tuning", "a sweep") as display:
        for _ in range(100):  # a point a second
            now[0] += 1
            display.changed(a_state(0))
        early = [line for line in capsys.readouterr().err.splitlines() if "trials" in line]
        display.changed(a_state(1))
        for _ in range(100):
            now[0] += 1
            display.changed(a_state(1))
    assert 3 <= len(early) <= 5
    assert len(capsys.readouterr().err.splitlines()) == 1, "later every end is a line, and nothing else"


def test_a_trial_shows_each_curve_point_once(capsys: pytest.CaptureFixture) -> None:
    spec = make_spec()
    points = [CurvePoint(step, step, 0.1, 5.0, 4.5, 4.6, 3.0) for step in (1, 2)]
    with TrialDisplay(spec) as display:
        display.points(spec, points[:1])
        display.points(spec, points)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == [f"step {step} of {spec.steps}, train 5.0000, select 4.5000 nats/token, 3 s" for step in (1, 2)]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture) -> None:
    with RunDisplay("tuning", "a sweep", quiet=True) as display:
        display.changed(a_state())
    assert capsys.readouterr() == ("", "")


def test_the_hint_after_an_interrupt_can_be_pasted() -> None:
    class Result:
        run = ("a", "b")

    hint = resume_hint(["/usr/bin/tuneopt", "tune", "--corpus", "my texts"], Result())
    assert "after 2 trials" in hint
    assert hint.endswith("tuneopt tune --corpus 'my texts'")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7260, "2 h 01 min")]
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1310720, "1,310,720 tokens"), (2.684e9, "2.68e+09 tokens"), (3, "3 tokens")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value, "tokens") == text
