import numpy as np
import pytest
from analysis_samples import DENSE, curves_of, known_noise, result

from tuneopt.analysis.ranking import Flip
from tuneopt.analysis.runs import FRACTIONS, Curves, CurveSample, RegimeKey
from tuneopt.analysis.training import agreement, kendall, training_flips


def test_curves_line_up_by_interpolation_and_never_beyond_their_ends() -> None:
    curves = curves_of({"a": 5 - DENSE, "b": 4 - DENSE})
    aligned = curves.at(["b", "a", "absent"], (0.01, 0.125, 0.5, 1.0))
    assert np.isnan(aligned[:, 0]).all() and np.isnan(aligned[2]).all()
    assert aligned[0, 1:] == pytest.approx([3.875, 3.5, 3.0])
    assert aligned[1, 1:] == pytest.approx([4.875, 4.5, 4.0])


def test_a_point_without_a_loss_is_bridged() -> None:
    points = [CurveSample(at, loss, None) for at, loss in ((0.2, 4.0), (0.4, None), (0.6, 3.0))]
    assert Curves({"a": points}).at(["a"], (0.4,))[0, 0] == pytest.approx(3.5)


def test_agreement_goes_from_reversed_to_equal() -> None:
    final = np.array([1.0, 2.0, 3.0])
    aligned = np.array([[9.0, 1.0, 1.0], [8.0, 3.0, 2.0], [7.0, 2.0, np.nan]])
    taus, ranks = agreement(aligned, final)
    assert taus[:2] == pytest.approx((-1.0, 1 / 3)) and ranks == (3, 1, 1)
    assert taus[2] is None  # of two curves: they agree or not, and a correlation says no more
    assert agreement(np.full((2, 1), np.nan), final[:2]) == ((None,), (None,))


def planted(gap_early: float, gap_late: float, cross: float) -> tuple[Flip, ...]:
    """b is behind a by ``gap_early`` until ``cross`` of the run, and by ``gap_late`` after it."""
    base = 4 - DENSE
    lifted = base + np.where(cross - 1e-9 > DENSE, gap_early, gap_late)
    results = [result("a", 1, float(base[-1])), result("b", 1, float(lifted[-1]))]
    curves = curves_of({results[0].trials[0]: base, results[1].trials[0]: lifted})
    return training_flips(results, curves, known_noise(0.01, results))


def test_planted_crossings_are_found_at_their_place() -> None:
    (flip,) = planted(0.1, -0.1, 0.75)
    regime = RegimeKey("", "130m", 1.0)
    assert flip == Flip("training", ("a", "b"), "130m/1x at 70% of training", True, regime, regime, 0.7)
    (other,) = planted(-0.1, 0.1, 0.35)
    assert other.pair == ("b", "a") and other.where.endswith("at 30% of training")


@pytest.mark.parametrize(("early", "late"), [(0.1, 0.1), (0.1, 0.001), (-0.1, -0.2), (0.0, 0.1)])
def test_none_is_invented(early: float, late: float) -> None:
    assert planted(early, late, 0.5) == ()


def test_small_gaps_are_flips_within_noise() -> None:
    assert [flip.significant for flip in planted(0.1, -0.001, 0.5)] == [False]
    assert [flip.significant for flip in planted(0.001, -0.1, 0.5)] == [False]


def test_no_curves_no_flips() -> None:
    results = [result("a", 1, 3.0), result("b", 1, 3.1)]
    empty = curves_of({"other": 4 - DENSE})
    assert training_flips(results, empty, known_noise(0.01, results)) == ()
    assert training_flips([], empty, known_noise(0.01, results)) == ()
    assert FRACTIONS[-1] == 1.0


def test_kendall_agrees_with_scipy_also_with_ties() -> None:
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    for size in (2, 3, 8, 40):
        first, second = rng.integers(0, 5, (2, size)).astype(float)
        expected = kendalltau(first, second).statistic
        assert kendall(first, second) == (None if np.isnan(expected) else pytest.approx(expected))
    assert kendall(np.ones(3), np.arange(3.0)) is None and kendall(np.ones(1), np.ones(1)) is None
