"""What people see while a sweep runs and when it ends."""

from dataclasses import dataclass, field, replace

import pytest

from tuneopt.console import number, span
from tuneopt.display import SweepDisplay, resume_hint, seconds_left, status_line


@dataclass
class Figures:
    waves: int = 2
    done: int = 10
    remaining: int = 6
    diverged: int = 1
    best_loss: float | None = 3.91857


@dataclass
class State:
    progress: Figures = field(default_factory=Figures)


@dataclass
class Progress:
    """The shape of `tuneopt.cluster.progress.Progress`."""

    state: State = field(default_factory=State)
    running: dict = field(default_factory=lambda: {"aa": (0.5, 4.0), "bb": (0.5, None)})
    done: int = 4
    reused: int = 6
    diverged: int = 1
    failed: int = 0
    slots: int = 2
    elapsed: float = 125.0
    busy: float = 200.0


def test_the_line_names_every_count() -> None:
    line = status_line(Progress())
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
    assert "2 failed" in status_line(replace(Progress(), failed=2))


def test_time_left_follows_from_what_trials_took() -> None:
    # 200 busy seconds bought five trials' worth, so 40 s each; 6 - 1 under way remain, on two slots.
    assert seconds_left(Progress()) == pytest.approx((6 - 1) * 40 / 2)
    assert seconds_left(replace(Progress(), done=0, running={}, busy=0.0)) is None


def test_without_a_terminal_each_finished_trial_is_one_line(capsys: pytest.CaptureFixture) -> None:
    with SweepDisplay("a sweep") as display:
        for done in (0, 0, 1, 1, 1, 2):
            display.update(replace(Progress(), done=done))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wave")]
    assert len(lines) == 2


def test_quiet_is_quiet(capsys: pytest.CaptureFixture) -> None:
    with SweepDisplay("a sweep", quiet=True) as display:
        display.update(Progress())
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
