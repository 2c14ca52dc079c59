import numpy as np
import pytest
from analysis_samples import PARAMETERS, known_noise, result
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.analysis import as_table
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.ranking import Flip, rankings, regime_flips
from tuneopt.analysis.runs import RegimeKey

SIGMA = 0.01
THRESHOLD = 1.96 * np.sqrt(2) * SIGMA
"""What two results must differ by; more of them, by more."""


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(2, 2.2), min_size=1, max_size=9))
def test_order_and_groups(losses: list[float]) -> None:
    results = [result(f"o{number}", 1, loss) for number, loss in enumerate(losses)]
    (ranking,) = rankings(results, known_noise(SIGMA, results))
    assert list(ranking.losses) == sorted(losses)
    assert set(ranking.order) == {item.optimizer for item in results}
    assert ranking.groups is not None and ranking.groups[0] == 1
    assert all(after - before in (0, 1) for before, after in zip(ranking.groups, ranking.groups[1:], strict=False))
    for group in set(ranking.groups):
        members = [loss for loss, number in zip(ranking.losses, ranking.groups, strict=True) if number == group]
        assert ranking.span is not None and max(members) - min(members) <= ranking.span * (1 + 1e-9)
    for before, after in zip(range(len(losses)), range(1, len(losses)), strict=False):
        if ranking.losses[after] - ranking.losses[before] > ranking.span * (1 + 1e-9):
            assert ranking.groups[after] > ranking.groups[before]


def test_the_leaders_are_all_who_cannot_be_told_from_the_first() -> None:
    results = [result("c", 1, 3.05), result("a", 1, 3.0), result("b", 1, 3.0 + 1.1 * THRESHOLD)]
    (ranking,) = rankings(results, known_noise(SIGMA, results))
    assert ranking.leaders == ("a", "b") and ranking.order == ("a", "b", "c")
    assert ranking.group_of("c") == 2
    (silent,) = rankings(results, NoiseModel({}))
    assert silent.order == ranking.order and silent.groups is None and silent.leaders == ()
    assert silent.group_of("a") is None


def test_more_seeds_separate_what_one_run_cannot() -> None:
    pair = [result("a", 1, 3.0, runs=1), result("b", 1, 3.0 + 0.8 * THRESHOLD, runs=1)]
    many = [result("a", 1, 3.0, runs=4), result("b", 1, 3.0 + 0.8 * THRESHOLD, runs=4)]
    assert rankings(pair, known_noise(SIGMA, pair))[0].groups == (1, 1)
    assert rankings(many, known_noise(SIGMA, many))[0].groups == (1, 2)


def flips(gaps: list[float], kind: str = "ratio") -> list[Flip]:
    """Flips of a against b, whose losses differ by ``gaps`` (b - a) along ratios or scales."""
    results = []
    for place, gap in enumerate(gaps):
        where = (
            {"ratio": 2.0**place} if kind == "ratio" else {"ratio": 1, "scale": f"s{place}", "n": PARAMETERS * 2**place}
        )
        results += [result("a", loss=3.0, **where), result("b", loss=3.0 + gap, **where)]
    return list(regime_flips(results, known_noise(SIGMA, results)))


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([0.1, 0.1, 0.1], []),
        ([0.1, -0.1], [(("a", "b"), "130m/1x -> 130m/2x", True)]),
        ([-0.1, 0.1], [(("b", "a"), "130m/1x -> 130m/2x", True)]),
        ([0.001, -0.1], [(("a", "b"), "130m/1x -> 130m/2x", False)]),
        ([0.1, 0.001, -0.001, -0.1], [(("a", "b"), "130m/1x -> 130m/8x", True)]),
        ([0.1, -0.001, 0.1], [(("a", "b"), "130m/1x -> 130m/2x", False), (("b", "a"), "130m/2x -> 130m/4x", False)]),
        ([0.1, -0.1, 0.1], [(("a", "b"), "130m/1x -> 130m/2x", True), (("b", "a"), "130m/2x -> 130m/4x", True)]),
        ([0.0, -0.1], []),
    ],
)
def test_flips_across_ratios(gaps: list[float], expected: list[tuple[tuple[str, str], str, bool]]) -> None:
    assert [(flip.pair, flip.where, flip.significant) for flip in flips(gaps)] == expected
    assert all(flip.kind == "ratio" for flip in flips(gaps))


def test_flips_across_scales_go_by_size() -> None:
    (flip,) = flips([0.1, -0.1], "scale")
    start, end = RegimeKey("", "s0", 1.0), RegimeKey("", "s1", 1.0)
    assert flip == Flip("scale", ("a", "b"), "s0/1x -> s1/1x", True, end, start)
    assert as_table([flip])["pair"].to_pylist() == [["a", "b"]]


def test_equal_optimizers_are_called_different_no_more_often_than_declared() -> None:
    rng = np.random.default_rng(2)
    for freedom in (None, 5):
        split = 0
        for _ in range(600):
            estimate = 1.0 if freedom is None else float(np.sqrt(rng.chisquare(freedom) / freedom))
            results = [result(f"o{number}", 1, 3.0 + SIGMA * rng.standard_normal()) for number in range(8)]
            (ranking,) = rankings(results, known_noise(SIGMA * estimate, results, freedom))
            split += max(ranking.groups or ()) > 1
        assert split / 600 == pytest.approx(0.05, abs=0.025)  # pairwise tests would split 8 equals half of the time


def test_the_best_is_hardly_ever_outside_the_best_group() -> None:
    rng = np.random.default_rng(3)
    truth = {f"o{number}": 3.0 + 0.3 * SIGMA * number for number in range(8)}
    outside = 0
    for _ in range(600):
        results = [result(name, 1, loss + SIGMA * rng.standard_normal()) for name, loss in truth.items()]
        outside += "o0" not in rankings(results, known_noise(SIGMA, results))[0].leaders
    assert outside / 600 < 0.05


@pytest.mark.parametrize("drift", [0.0, 0.5, 2.0])
def test_flips_that_noise_invents_are_called_significant_no_more_often_than_declared(drift: float) -> None:
    """Eight optimizers over four ratios that never change places, ``drift`` sigmas apart."""
    rng = np.random.default_rng(5)
    families = 250
    called = 0
    for _ in range(families):
        results = [
            result(f"o{number}", 2.0**place, 3.0 + SIGMA * (drift * number + rng.standard_normal()))
            for number in range(8)
            for place in range(4)
        ]
        called += any(flip.significant for flip in regime_flips(results, known_noise(SIGMA, results)))
    assert called / families <= 0.05


def test_planted_flips_among_many_are_all_found() -> None:
    rng = np.random.default_rng(6)
    for _ in range(40):
        rising = {f"up{number}": 0.2 * (1 + number) for number in range(3)}  # worse at larger ratios, against "flat"
        results = [
            result(name, 2.0**place, 3.0 + slope * (place - 1.5) / 1.5 + SIGMA * rng.standard_normal())
            for name, slope in {"flat": 0.0, **rising}.items()
            for place in range(4)
        ]
        found = {flip.pair for flip in regime_flips(results, known_noise(SIGMA, results)) if flip.significant}
        assert found >= {(name, "flat") for name in rising}
        assert found == {
            ("up0", "flat"),
            ("up1", "flat"),
            ("up2", "flat"),
            ("up1", "up0"),
            ("up2", "up0"),
            ("up2", "up1"),
        }
