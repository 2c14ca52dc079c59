"""The corpus that every default sweep runs on, prepared in full."""

from __future__ import annotations

import time
from importlib.resources import files
from pathlib import Path

import pytest

from tuneopt.data import load_corpus
from tuneopt.data.sources import EMBEDDED_SHA256

FINGERPRINTS = {512: "2727b0e1f7c7896e", 1024: "71ed18853282f3a4"}
"""May change only with a new split rule or tokenizer rule: records in ledgers name them."""


@pytest.mark.slow
@pytest.mark.parametrize(("vocab_size", "tokens"), [(512, 9_091_649), (1024, 7_276_107)])
def test_the_embedded_corpus_in_full(tmp_path: Path, vocab_size: int, tokens: int) -> None:
    start = time.perf_counter()
    corpus = load_corpus(vocab_size=vocab_size, cache_dir=tmp_path)
    assert time.perf_counter() - start < 60
    assert corpus.id.fingerprint == FINGERPRINTS[vocab_size]
    splits = {name: corpus.split(name) for name in ("train", "select", "report")}
    assert sum(split.tokens for split in splits.values()) == tokens
    assert sum(split.documents for split in splits.values()) == 3128
    for name in ("select", "report"):
        assert len(splits[name].windows(128)) >= 512
        assert 0.02 <= splits[name].bytes / 18_283_772 < 0.022
    assert corpus.verify() == []


def test_sources_and_notice_travel_with_the_text() -> None:
    notice = files("tuneopt.data").joinpath("embedded", "SOURCES.md").read_text(encoding="utf-8")
    assert EMBEDDED_SHA256 in notice
    assert "WordNet 3.1 Copyright 2011 by Princeton University" in notice
