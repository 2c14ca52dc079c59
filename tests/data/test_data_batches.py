from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.data import Corpus, SampleOrder, Windows, batch


def _stream(tokens: int, cuts: list[int]) -> list[np.ndarray]:
    """Tokens 0, 1, 2, ... stored in several arrays."""
    return np.split(np.arange(tokens, dtype=np.uint16), sorted(min(cut, tokens) for cut in cuts))


@given(st.integers(0, 400), st.lists(st.integers(0, 400), max_size=6), st.integers(1, 40), st.data())
def test_windows_are_the_stream_cut_at_multiples(
    tokens: int, cuts: list[int], seq_len: int, data: st.DataObject
) -> None:
    windows = Windows(_stream(tokens, cuts), seq_len)
    assert len(windows) == max(0, (tokens - 1) // seq_len)
    if len(windows):
        indices = data.draw(st.lists(st.integers(0, len(windows) - 1), max_size=10))
        block = windows.take(indices)
        assert block.dtype == np.int32
        assert block.shape == (len(indices), seq_len + 1)
        assert np.array_equal(block, np.array(indices, np.int64)[:, None] * seq_len + np.arange(seq_len + 1))


def test_windows_without_arrays_are_none() -> None:
    assert len(Windows([], 4)) == 0
    assert Windows([], 4).take([]).shape == (0, 5)


def test_windows_hold_ids_of_large_vocabularies() -> None:
    views = [np.array([70_000, 2**31 - 1, 5], np.uint32)]
    assert Windows(views, 2).take([0]).tolist() == [[70_000, 2**31 - 1, 5]]


@pytest.mark.parametrize("index", [-1, 9, 2**40])
def test_an_index_outside_is_an_error(index: int) -> None:
    with pytest.raises(IndexError, match=r"0\.\.8"):
        Windows(_stream(91, []), 10).take([0, index])


def test_a_sequence_length_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="seq_len"):
        Windows(_stream(10, []), 0)


@given(st.integers(50, 400), st.integers(0, 5), st.integers(1, 12), st.integers(1, 12))
def test_the_token_sequence_is_the_same_for_every_batch_size(tokens: int, seed: int, one: int, other: int) -> None:
    windows = Windows(_stream(tokens, [tokens // 3]), 7)
    order = SampleOrder(len(windows), seed)
    streams = []
    for size in (one, other):
        steps = one * other // size + 3
        pairs = [batch(windows, order, step, size) for step in range(steps)]
        streams.append(np.concatenate([np.hstack(pair) for pair in pairs]))
    shared = min(map(len, streams))
    assert np.array_equal(streams[0][:shared], streams[1][:shared])


def test_one_epoch_predicts_every_token_once(corpus: Corpus) -> None:
    windows = corpus.split("select").windows(16)
    order = SampleOrder(len(windows), 0)
    targets = [batch(windows, order, step, 1)[1] for step in range(len(windows))]
    seen = np.sort(np.concatenate(targets).ravel())
    straight = windows.take(np.arange(len(windows)))
    assert np.array_equal(seen, np.sort(straight[:, 1:].ravel()))


def test_targets_are_the_inputs_shifted_by_one(corpus: Corpus) -> None:
    windows = corpus.split("train").windows(128)
    inputs, targets = batch(windows, SampleOrder(len(windows), 0), 3, 16)
    assert inputs.shape == targets.shape == (16, 128)
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    assert np.shares_memory(inputs, targets)


def test_an_order_over_other_windows_is_an_error(corpus: Corpus) -> None:
    windows = corpus.split("train").windows(128)
    with pytest.raises(ValueError, match="the order is over"):
        batch(windows, SampleOrder(len(windows) + 1, 0), 0, 1)


def test_a_batch_costs_far_less_than_a_step(corpus: Corpus) -> None:
    """About 0.1 ms for 2,048 tokens, against about 25 ms for a training step of the smallest scale."""
    windows = corpus.split("train").windows(128)
    order = SampleOrder(len(windows), 0)
    best = float("inf")
    for block in range(20):
        start = time.perf_counter()
        for step in range(20):
            batch(windows, order, 20 * block + step, 16)
        best = min(best, (time.perf_counter() - start) / 20)
    assert best < 1e-3  # four times the aim, so that a busy machine does not fail it
