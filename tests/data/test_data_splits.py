from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.data.splits import BUCKETS, ENOUGH_BYTES, SplitRule, bucket, choose_rule, common_share
from tuneopt.spec import InputError


def _weights(sizes: list[int], seed: int = 0) -> np.ndarray:
    weights = np.zeros(BUCKETS, np.int64)
    draw = random.Random(seed)
    for size in sizes:
        weights[draw.randrange(BUCKETS)] += size
    return weights


def _shares(weights: np.ndarray, rule: SplitRule) -> tuple[int, int, int]:
    select, report = weights[: rule.select_end].sum(), weights[rule.select_end : rule.report_end].sum()
    return int(select), int(report), int(weights[rule.report_end :].sum())


def test_the_bucket_is_the_head_of_the_hash() -> None:
    assert bucket("naïve") == int(hashlib.sha256("naïve".encode()).hexdigest()[:4], 16)


@given(st.text(), st.integers(1, BUCKETS - 2), st.integers(1, 100))
def test_a_document_has_one_split_by_its_text_alone(text: str, select_end: int, width: int) -> None:
    rule = SplitRule(select_end, select_end + width)
    number = bucket(text)
    expected = "select" if number < select_end else "report" if number < select_end + width else "train"
    assert rule.split(text) == rule.split("".join(list(text))) == expected


@given(st.lists(st.integers(1, 20_000), min_size=200, max_size=400), st.integers(0, 1000))
@settings(max_examples=40)
def test_evaluation_splits_hold_enough_and_not_much_more(sizes: list[int], seed: int) -> None:
    weights = _weights(sizes, seed)
    total = int(weights.sum())
    if total < 1 << 16:
        return
    target = max(-(-total // 50), min(ENOUGH_BYTES, total // 10))
    select, report, train = _shares(weights, choose_rule(weights, "c"))
    most = target + 3 * 20_000  # one document over, rarely more of them in one bucket
    assert target <= select <= most
    assert target <= report <= most
    assert select + report + train == total


def test_a_large_corpus_gives_two_percent_to_each_evaluation_split() -> None:
    weights = _weights([6000] * 20_000)
    select, report, train = _shares(weights, choose_rule(weights, "c"))
    total = 6000 * 20_000
    assert select / total == pytest.approx(0.02, rel=0.02)
    assert report / total == pytest.approx(0.02, rel=0.02)
    assert train / total == pytest.approx(0.96, rel=0.01)


def test_too_little_text_says_how_much_is_needed() -> None:
    with pytest.raises(InputError, match=r"corpus 'tiny' holds 5000 bytes of text, too little .* at least 65536"):
        choose_rule(_weights([1000] * 5), "tiny")


@pytest.mark.parametrize("sizes", [[1 << 20], [1 << 20] * 3, [100] * 50 + [1 << 20]], ids=["one", "three", "uneven"])
def test_too_few_documents_say_how_to_part_them(sizes: list[int]) -> None:
    weights = np.zeros(BUCKETS, np.int64)
    weights[np.arange(len(sizes)) * 100] = sizes[::-1]
    with pytest.raises(InputError, match=r"too few documents .* <\|endoftext\|>"):
        choose_rule(weights, "one-big-file")


def test_few_even_documents_are_enough() -> None:
    weights = np.zeros(BUCKETS, np.int64)
    weights[[5, 70, 900, 40_000, 65_535]] = 1 << 18
    rule = choose_rule(weights, "five")
    assert _shares(weights, rule) == (1 << 18, 1 << 18, 3 << 18)
    assert "below 6," in rule.describe()
    assert "below 71," in rule.describe()


@given(st.lists(st.integers(1000, 20_000), min_size=1, max_size=400), st.integers(0, 1000))
@settings(max_examples=60)
def test_few_documents_get_wider_ranges_and_both_evaluation_splits_hold_text(sizes: list[int], seed: int) -> None:
    weights = _weights(sizes, seed)
    total = int(weights.sum())
    try:
        width = round(common_share(weights, 0.02, "c") * BUCKETS)
    except InputError as refused:
        assert "too few documents" in str(refused) or "too little" in str(refused)
        return
    select, report, train = _shares(weights, SplitRule(width, 2 * width))
    assert min(select, report) >= total / 100 and 2 * width <= BUCKETS // 2
    assert select + report + train == total


def test_the_usual_share_is_taken_where_it_holds_text_and_no_split_is_made_of_one_document() -> None:
    assert common_share(_weights([6000] * 20_000), 0.02, "c") == 0.02
    assert common_share(_weights([6000] * 100, seed=3), 0.02, "c") >= 0.02
    with pytest.raises(InputError, match="too few documents"):
        common_share(_weights([1 << 20]), 0.02, "c")
