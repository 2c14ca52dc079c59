from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tuneopt.data import SampleOrder

FROZEN_START = [8689, 6739, 25404, 12314, 48544, 9015, 19397, 12432]
FROZEN_TURN = [46566, 39835, 51110, 1293, 41013, 10464]

SEEDS = st.integers(-(2**70), 2**70)


@given(st.integers(1, 3000), SEEDS, st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(windows: int, seed: int, epoch: int) -> None:
    indices = SampleOrder(windows, seed).indices(epoch * windows, windows)
    assert indices.dtype == np.int64
    assert np.array_equal(np.sort(indices), np.arange(windows))


@given(st.integers(1, 500), SEEDS, st.lists(st.integers(0, 60), max_size=30), st.integers(0, 10**9))
def test_the_sequence_is_the_same_however_it_is_cut(windows: int, seed: int, cuts: list[int], first: int) -> None:
    order = SampleOrder(windows, seed)
    parts, start = [np.array([], np.int64)], first
    for count in cuts:
        parts.append(order.indices(start, count))
        start += count
    assert np.array_equal(np.concatenate(parts), order.indices(first, sum(cuts)))


def test_the_sequence_is_frozen() -> None:
    """These numbers may never change: a record in a ledger stands for the run that used them."""
    assert SampleOrder(54_546, 0).indices(0, 8).tolist() == FROZEN_START
    assert SampleOrder(54_546, 7).indices(54_543, 6).tolist() == FROZEN_TURN


def test_seeds_and_epochs_differ() -> None:
    n = 1000
    epochs = [SampleOrder(n, seed).indices(epoch * n, n) for seed in range(5) for epoch in range(5)]
    for one, other in itertools.combinations(epochs, 2):
        assert np.mean(one == other) < 0.01  # a random pair agrees in one place of 1000


def test_neighbours_are_unrelated() -> None:
    n = 20_000
    indices = SampleOrder(n, 3).indices(0, n)
    place = np.arange(n)
    assert abs(np.corrcoef(place, indices)[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(indices[:-1], indices[1:])[0, 1]) < 4 / np.sqrt(n)
    steps = np.diff(indices)
    assert len(np.unique(steps)) > 0.5 * n  # a lattice or a stride would repeat its steps
    assert Counter(steps.tolist()).most_common(1)[0][1] < 12


@pytest.mark.parametrize("n", [2, 3, 4])
def test_small_permutations_are_all_about_equally_likely(n: int) -> None:
    draws = 2400
    order = SampleOrder(n, 11).indices(0, draws * n).reshape(draws, n)
    counts = Counter(map(tuple, order.tolist()))
    expected = list(itertools.permutations(range(n)))
    assert stats.chisquare([counts[key] for key in expected]).pvalue > 1e-4


def test_every_place_sees_every_window_equally_often() -> None:
    n, draws = 37, 4000
    order = SampleOrder(n, 5).indices(0, n * draws).reshape(draws, n)
    for place in (0, 1, 17, 36):
        assert stats.chisquare(np.bincount(order[:, place], minlength=n)).pvalue > 1e-4
    following = np.bincount((order[:, 1] - order[:, 0]) % n, minlength=n)
    assert following[0] == 0
    assert stats.chisquare(following[1:]).pvalue > 1e-4


def test_a_head_of_an_epoch_covers_the_corpus_evenly() -> None:
    n = 54_546
    head = SampleOrder(n, 0).indices(0, 8000)
    counts, _ = np.histogram(head, bins=50, range=(0, n))
    # Drawn without replacement: the spread is a little below multinomial, so the lower tail needs no bound.
    assert stats.chisquare(counts).pvalue > 1e-4


def test_huge_corpora_cost_no_memory() -> None:
    n = 10**15
    indices = SampleOrder(n, 1).indices(7 * n - 500, 1000)
    assert len(np.unique(indices)) == 1000
    assert 0 <= indices.min() < n / 50
    assert n - n / 50 < indices.max() < n


@pytest.mark.parametrize("windows", [0, -1, 2**62])
def test_impossible_sizes_are_refused(windows: int) -> None:
    with pytest.raises(ValueError, match="windows must be positive"):
        SampleOrder(windows, 0)


def test_negative_places_are_refused_and_nothing_is_nothing() -> None:
    order = SampleOrder(5, 0)
    assert order.indices(3, 0).shape == (0,)
    for first, count in ((-1, 2), (0, -1)):
        with pytest.raises(ValueError, match="must not be negative"):
            order.indices(first, count)
