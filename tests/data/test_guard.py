from __future__ import annotations

import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.data.recipe import guard as guard_module
from tuneopt.data.recipe.guard import Guard, Runs, fingerprint

WORDS = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "and", "café", "7", "B"])
TEXTS = st.lists(
    st.lists(st.tuples(WORDS, st.sampled_from([" ", ", ", "\n\n", "-", " ... "])), max_size=25), max_size=6
)


def words(text: str) -> list[str]:
    """The reference: words of a text, one character at a time."""
    kept = "".join(c if (c.isascii() and c.isalnum()) or not c.isascii() else " " for c in text.lower())
    return kept.split()


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("Hello, world!", "hello world", True),
        ("Hello\n\n  World", "HELLO-WORLD", True),
        ("hello world", "hello word", False),
        ("...", "!!!", False),  # without letters the text itself counts
        ("café", "cafe", False),
        ("a b", "ab", True),
    ],
)
def test_a_fingerprint_is_of_letters(one: str, other: str, equal: bool) -> None:
    assert (fingerprint(one) == fingerprint(other)) is equal


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(2, 6))
def test_runs_are_equal_where_words_are(parts: list[list[tuple[str, str]]], ngram: int) -> None:
    texts = ["".join(word + gap for word, gap in part) for part in parts]
    hashes, owners = Runs(ngram).hashes(texts)
    expected = [
        (number, tuple(found[start : start + ngram]))
        for number, found in enumerate(map(words, texts))
        for start in range(len(found) - ngram + 1)
    ]
    assert owners.tolist() == [number for number, _ in expected]
    by_run: dict[tuple[str, ...], int] = {}
    for value, (_, run) in zip(hashes.tolist(), expected, strict=True):
        assert by_run.setdefault(run, value) == value
    assert len(set(by_run.values())) == len(by_run)


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS)
def test_the_guard_finds_shared_runs_and_nothing_else(evaluation: list, training: list) -> None:
    ngram = 4
    known, asked = (["".join(word + gap for word, gap in part) for part in parts] for parts in (evaluation, training))
    runs = Runs(ngram)
    guard = Guard.of([], [runs.hashes(known)[0]], ngram)
    found = guard.has_runs(*runs.hashes(asked), len(asked))
    held = {tuple(w[i : i + ngram]) for w in map(words, known) for i in range(len(w) - ngram + 1)}
    for text, shared in zip(asked, found.tolist(), strict=True):
        w = words(text)
        assert shared == any(tuple(w[i : i + ngram]) in held for i in range(len(w) - ngram + 1))


def test_hashes_do_not_depend_on_the_texts_before() -> None:
    runs = Runs(3)
    short = runs.hashes(["one two three"])[0]
    runs.hashes(["long " * 5000])
    assert np.array_equal(runs.hashes(["one two three"])[0], short)
    assert np.array_equal(runs.hashes(["x " * 900, "One, two: three"])[0][-1:], short)


@pytest.mark.parametrize("block", [1, 7, 30])
@settings(max_examples=100, deadline=None)
@given(TEXTS, st.integers(1, 6))
def test_long_texts_have_the_same_hashes_in_blocks(block: int, parts: list[list[tuple[str, str]]], ngram: int) -> None:
    texts = ["".join(word + gap for word, gap in part) for part in parts]
    whole, owners = Runs(ngram).hashes(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard_module, "BLOCK", block)
        hashes, theirs = Runs(ngram).hashes(texts)
    assert hashes.tolist() == whole.tolist() and theirs.tolist() == owners.tolist()


@pytest.mark.parametrize("text", ["word and sign, " * 400_000, "a" * 6_000_000], ids=["prose", "one-word"])
def test_a_long_text_takes_little_memory_and_none_for_good(text: str) -> None:
    runs = Runs(13)
    tracemalloc.start()
    try:
        runs.hashes([text])
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * len(text)
    assert kept < len(text) / 10


def test_hashes_spread_over_all_bits() -> None:
    """Leading bits pick a place in the filter: sequences that differ in one digit must not crowd there."""
    texts = [" ".join(triple) for triple in itertools.product(map(str, range(16)), repeat=3)]
    hashes = Runs(3).hashes(texts)[0]
    assert len(hashes) == 4096 == len(np.unique(hashes))
    assert len(np.unique(hashes >> np.uint64(52))) > 2400  # 2589 expected of random numbers
    assert np.all(np.abs(np.unpackbits(hashes.view(np.uint8)).reshape(-1, 64).mean(0) - 0.5) < 0.05)


def test_a_guard_travels_and_empty_ones_find_nothing() -> None:
    guard = Guard.of([np.array([5, 3, 5], np.uint64)], [np.array([9, 9], np.uint64)], 3)
    copy = pickle.loads(pickle.dumps(guard))
    assert copy.documents.tolist() == [3, 5] and copy.runs.tolist() == [9]
    assert copy.has_documents(np.array([3, 4], np.uint64)).tolist() == [True, False]
    empty = Guard.of([], [], 3)
    assert not empty.has_documents(np.array([0], np.uint64)).any()
    assert not empty.has_runs(np.array([0, 2**63], np.uint64), np.array([0, 1]), 2).any()
