import numpy as np
import pytest
from analysis_samples import PARAMETERS, known_noise, result
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.analysis import as_table, rankings, regime_flips
from tuneopt.analysis.flips import Flip
from tuneopt.analysis.noise import NoiseModel

SIGMA = 0.01
THRESHOLD = 1.645 * np.sqrt(2) * SIGMA


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
        assert max(members) - min(members) <= THRESHOLD * 1.001
    for before, after in zip(range(len(losses)), range(1, len(losses)), strict=False):
        if ranking.losses[after] - ranking.losses[before] > THRESHOLD * 1.001:
            assert ranking.groups[after] > ranking.groups[before]


def test_the_leaders_are_all_who_cannot_be_told_from_the_first() -> None:
    results = [result("c", 1, 3.05), result("a", 1, 3.0), result("b", 1, 3.0 + 0.9 * THRESHOLD)]
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
    assert flip == Flip("scale", ("a", "b"), "s0/1x -> s1/1x", True)
    assert as_table([flip])["pair"].to_pylist() == ["a b"]


def test_within_noise_flips_are_rarely_called_significant() -> None:
    rng = np.random.default_rng(5)
    called = sum(
        any(flip.significant for flip in flips(list(SIGMA * np.sqrt(2) * rng.standard_normal(2)))) for _ in range(800)
    )
    assert called / 800 < 0.02  # two independent one-sided errors of 5%, in opposite directions: 0.5%
