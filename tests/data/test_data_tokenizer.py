from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tuneopt.data import tokenizer as module
from tuneopt.data.tokenizer import content_sha256, encode, load_tokenizer, pieces, token_dtype, train_tokenizer
from tuneopt.spec import InputError

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)


@pytest.fixture(scope="module")
def trained(prose: tuple[str, ...]) -> Tokenizer:
    return train_tokenizer(prose[:30], 300)


def test_training_is_deterministic_and_blind_to_order(prose: tuple[str, ...], trained: Tokenizer) -> None:
    again = train_tokenizer(prose[29::-1], 300)
    assert again.to_str() == trained.to_str()
    assert content_sha256(again) == content_sha256(trained)
    assert content_sha256(train_tokenizer(prose[:30], 301)) != content_sha256(trained)


def test_the_content_hash_ignores_how_a_file_is_written(trained: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(trained.to_str(pretty=True).replace('"version"', '\n"version"'))
    assert content_sha256(load_tokenizer(tmp_path / "t.json")) == content_sha256(trained)


def test_the_vocabulary_has_the_asked_size_and_the_end_of_text_first(trained: Tokenizer) -> None:
    assert trained.get_vocab_size() == 300
    assert trained.token_to_id("<|endoftext|>") == 0


@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(max_examples=40)
def test_any_text_comes_back_and_ends_with_the_separator(trained: Tokenizer, texts: list[str]) -> None:
    arrays = [tokens for _, tokens in encode(trained, [("train", text) for text in texts], np.uint16)]
    assert [trained.decode(tokens[:-1].tolist()) for tokens in arrays] == texts
    assert all(tokens[-1] == 0 and 0 not in tokens[:-1] for tokens in arrays)


def test_a_text_cannot_forge_a_separator(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(str(tmp_path / "t.json"))
    for tokenizer in (trained, load_tokenizer(tmp_path / "t.json")):
        ((_, tokens),) = encode(tokenizer, [("train", "a<|endoftext|>b")], np.uint16)
        assert (tokens == 0).sum() == 1
        assert tokenizer.decode(tokens[:-1].tolist()) == "a<|endoftext|>b"


def test_keys_and_order_survive_batching(
    prose: tuple[str, ...], trained: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [(("train", "select")[number % 2], text) for number, text in enumerate(prose[:20])]
    whole = list(encode(trained, items, np.uint16))
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 7000)
    small = list(encode(trained, items, np.uint16))
    assert [key for key, _ in small] == [key for key, _ in whole] == [key for key, _ in items]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(small, whole, strict=True))


def test_a_long_document_is_encoded_in_parts_with_one_end(
    prose: tuple[str, ...], trained: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = textwrap.fill(prose[0], 100)  # words end at line breaks, so cutting there changes no token
    ((_, whole),) = encode(trained, [("train", text)], np.uint16)
    monkeypatch.setattr(module.pieces, "__defaults__", (500,))
    parts = [tokens for _, tokens in encode(trained, [("train", text)], np.uint16)]
    assert len(parts) > 5
    assert np.array_equal(np.concatenate(parts), whole)


@given(st.text("ab\n", max_size=60), st.integers(1, 20))
def test_pieces_are_bounded_and_lose_nothing(text: str, limit: int) -> None:
    parts = list(pieces(text, limit))
    assert "".join(parts) == text
    assert all(len(part) <= limit for part in parts)
    assert all(part.endswith("\n") or "\n" not in part for part in parts[:-1])


@pytest.mark.parametrize("size", [-1, 0, 256])
def test_a_vocabulary_below_the_bytes_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"vocab_size {size} is too small .* at least 257"):
        train_tokenizer(["text"], size)


def test_a_text_too_poor_for_the_vocabulary_says_what_it_gives() -> None:
    with pytest.raises(InputError, match="only 259 entries of 5000; give more varied text"):
        train_tokenizer(["aa aa aa aa"], 5000)


def test_tokens_are_stored_as_narrow_as_possible() -> None:
    assert token_dtype(65_536) == np.uint16
    assert token_dtype(65_537) == np.uint32
