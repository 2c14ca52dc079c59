import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.search.study.brackets import bracketing_ratios

ADAMW = {1.0: 3.5291, 2.0: 3.4078, 4.0: 3.3217, 8.0: 3.2606}
"""The published AdamW at 130M (arXiv 2509.02046)."""


def law(ratio: float, exponent: float = 0.45) -> float:
    return 3.1 + 0.4 * ratio**-exponent


def test_a_rival_under_the_longest_run_asks_for_a_longer_one() -> None:
    assert bracketing_ratios(ADAMW, [3.2373]) == (16.0,)  # Muon's loss at 8x
    assert bracketing_ratios(ADAMW, [3.2620, 3.4626]) == ()
    assert bracketing_ratios(ADAMW, [3.19]) == (32.0,)


def test_a_rival_above_the_shortest_run_asks_for_a_shorter_one_too() -> None:
    assert bracketing_ratios(ADAMW, [3.5421, 3.2373]) == (0.5, 16.0)
    assert bracketing_ratios(ADAMW, [3.80]) == (0.25,)


def test_a_margin_asks_for_a_run_where_noise_could_turn_the_order() -> None:
    assert bracketing_ratios(ADAMW, [3.2620]) == ()
    assert bracketing_ratios(ADAMW, [3.2620], margin=0.003) == (16.0,)


def test_what_nothing_can_bracket() -> None:
    assert bracketing_ratios({}, [3.0]) == bracketing_ratios(ADAMW, []) == ()
    assert bracketing_ratios({1.0: 3.5, 2.0: 3.5}, [3.2]) == bracketing_ratios({1.0: 3.5, 2.0: 3.6}, [3.2]) == ()
    assert bracketing_ratios({2.0: 3.5}, [3.2]) == (4.0,)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.25, 0.7), st.lists(st.floats(0.3, 60), min_size=1, max_size=5))
def test_asked_again_and_again_it_brackets_every_rival_and_then_stops(exponent: float, worth: list[float]) -> None:
    """Rivals are worth ``worth`` Chinchilla budgets of the baseline, whose law has another exponent than the guess."""
    rivals = [law(ratio, exponent) for ratio in worth]
    known = {ratio: law(ratio, exponent) for ratio in (1.0, 2.0, 4.0)}
    for _ in range(10):
        fresh = bracketing_ratios(known, rivals)
        assert len(set(fresh)) == len(fresh) and not set(fresh) & set(known)
        assert all(min(known) / 4 <= ratio <= 4 * max(known) for ratio in fresh)
        if not fresh:
            break
        known |= {ratio: law(ratio, exponent) for ratio in fresh}
    else:
        pytest.fail("it never stopped asking")
    assert min(known.values()) <= min(rivals) + 1e-12 and max(rivals) <= max(known.values()) + 1e-12
    # No run is further out than twice what was needed, and a doubling for the guess.
    assert math.log2(max(known)) <= max(2, math.log2(max(worth)) + 2)
