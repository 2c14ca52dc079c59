"""Schedules against optax's definitions, restated here as plain arithmetic."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.spec import InputError
from tuneopt.training.schedule import LearningRateSchedule, warmup_steps


def test_cosine_after_linear_warmup() -> None:
    schedule = LearningRateSchedule.of({"warmup": 100, "lr_schedule": "cosine", "min_lr_ratio": 0.1}, 1000)
    assert [schedule(step) for step in (0, 25, 50, 99)] == pytest.approx([0, 0.25, 0.5, 0.99])
    assert schedule(100) == 1
    assert schedule(550) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule(1000) == pytest.approx(0.1)
    for step in range(100, 1000):
        expected = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 100) / 900))
        assert schedule(step) == pytest.approx(expected)


def test_linear_holds_then_falls_over_the_last_fraction() -> None:
    schedule = LearningRateSchedule.of({"warmup": 0, "lr_schedule": "linear", "decay": 0.4, "min_lr_ratio": 0}, 1000)
    assert all(schedule(step) == 1 for step in range(601))
    assert schedule(800) == pytest.approx(0.5)
    assert schedule(999) == pytest.approx(1 / 400)
    assert schedule(1000) == 0


def test_decay_never_reaches_into_warmup() -> None:
    schedule = LearningRateSchedule.of({"warmup": 0.5, "lr_schedule": "linear", "decay": 1.0}, 100)
    assert schedule(50) == 1
    assert schedule(75) == pytest.approx(0.5)


def test_no_decay_stays_at_the_peak() -> None:
    schedule = LearningRateSchedule.of({"lr_schedule": "linear", "decay": 0}, 100)
    assert {schedule(step) for step in range(100)} == {1.0}


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0, 0), (0.1, 64), (0.05, 32), (1, 1), (2000, 2000), (100.0, 100), (0.999, 639)]
)
def test_warmup_is_a_fraction_below_one_and_steps_from_one(warmup: float, expected: int) -> None:
    assert warmup_steps(warmup, 640) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"warmup": -1},
        {"warmup": 1.5},
        {"lr_schedule": "cosin"},
        {"decay": 1.2},
        {"min_lr_ratio": -0.1},
        {"min_lr_ratio": 2},
    ],
)
def test_impossible_schedules_are_refused(config: dict) -> None:
    with pytest.raises(InputError):
        LearningRateSchedule.of(config, 100)


@given(
    st.sampled_from(["cosine", "linear"]),
    st.integers(2, 500),
    st.floats(0, 0.99, allow_subnormal=False),
    st.floats(0, 1, allow_subnormal=False),
    st.floats(0, 1, allow_subnormal=False),
)
def test_every_schedule_rises_to_one_and_then_only_falls(kind, steps, warmup, floor, decay) -> None:
    schedule = LearningRateSchedule.of(
        {"lr_schedule": kind, "warmup": warmup, "min_lr_ratio": floor, "decay": decay}, steps
    )
    rates = [schedule(step) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    rising, falling = rates[: schedule.warmup + 1], rates[schedule.warmup :]
    assert rising == sorted(rising)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(falling))
    if schedule.warmup < steps:
        assert rates[schedule.warmup] == 1
