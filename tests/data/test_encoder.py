from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_world import llama_like
from tokenizers import Tokenizer
from tokenizers.normalizers import NFC

from tuneopt.data.encoder import Encoder, cuts_are_known
from tuneopt.data.tokenizer import train_tokenizer
from tuneopt.spec import InputError

PIECES = st.sampled_from(
    [*"ab.!19'S \n\t\r", "\xa0", "\u2003", "\x1c", "\x85", "é", "\u0301", "\x00", "你", "  ", "\n ", "\n\n", " a",
     ".\n", "\r\n", "'s", "123", " \t", "_", "<|endoftext|>", "x" * 70]
)  # fmt: skip
TEXTS = st.lists(st.lists(PIECES, max_size=12).map("".join), max_size=6)


@pytest.fixture(scope="module")
def both(prose: tuple[str, ...]) -> dict[str, Tokenizer]:
    return {"gpt-2": train_tokenizer(prose[:30], 400), "llama-3": llama_like(prose[:30])}


def plain(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """The reference: the tokenizer on whole texts."""
    return [one.ids for one in tokenizer.encode_batch(texts, add_special_tokens=False)]


def by_parts(encoder: Encoder, texts: list[str]) -> list[list[int]]:
    ids, ends = encoder.encode(texts)
    assert len(ends) == len(texts) and (len(ends) == 0 or ends[-1] == len(ids))
    return [part.tolist() for part in np.split(ids, ends[:-1])] if texts else []


@pytest.mark.parametrize("kind", ["gpt-2", "llama-3"])
@settings(max_examples=100, deadline=None)
@given(batches=st.lists(TEXTS, max_size=3))
def test_ids_are_those_of_the_tokenizer_alone(both: dict[str, Tokenizer], kind: str, batches: list[list[str]]) -> None:
    encoder = Encoder(both[kind], max_parts=20)  # so few that the table begins anew now and then
    assert encoder.by_parts
    for texts in batches:
        assert by_parts(encoder, texts) == plain(both[kind], texts)


@pytest.mark.parametrize("kind", ["gpt-2", "llama-3"])
def test_prose_and_code_are_encoded_alike(both: dict[str, Tokenizer], kind: str, prose: tuple[str, ...]) -> None:
    code = "def f(x):\n    if x:\n\n        return  x  # why\n\tpass\r\n\n\n" * 20
    encoder = Encoder(both[kind])
    texts = [*prose[:20], code, "", "\n", " ", code.replace("    ", "\t")]
    for _ in range(2):  # the second time from the table
        assert by_parts(encoder, texts) == plain(both[kind], texts)


@pytest.mark.parametrize("kind", ["gpt-2", "llama-3"])
@settings(max_examples=100, deadline=None)
@given(parts=st.lists(PIECES, max_size=40), limit=st.integers(1, 9))
def test_pieces_of_a_long_text_give_its_ids(
    both: dict[str, Tokenizer], kind: str, parts: list[str], limit: int
) -> None:
    text = "".join(parts)
    encoder = Encoder(both[kind])
    pieces = list(encoder.pieces(text, limit))
    assert "".join(pieces) == text
    assert [number for ids in plain(both[kind], pieces) for number in ids] == plain(both[kind], [text])[0]
    assert encoder.encode(pieces)[0].tolist() == plain(both[kind], [text])[0]


def test_a_long_text_falls_into_pieces_where_there_are_cuts(both: dict[str, Tokenizer], prose: tuple[str, ...]) -> None:
    text = " ".join(prose[:10])
    pieces = list(Encoder(both["llama-3"]).pieces(text, 1000))
    assert len(pieces) > len(text) / 1100
    other = Tokenizer.from_str(both["gpt-2"].to_str())
    other.encode_special_tokens = True
    other.normalizer = NFC()
    assert list(Encoder(other).pieces(text, 1000)) == [text]


def test_known_parts_do_not_reach_the_tokenizer_again(both: dict[str, Tokenizer], prose: tuple[str, ...]) -> None:
    class Counting:
        encode_special_tokens = True

        def __init__(self) -> None:
            self.texts = 0

        def to_str(self) -> str:
            return str(both["gpt-2"].to_str())

        def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> object:
            self.texts += len(texts)
            return both["gpt-2"].encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    counting = Counting()
    encoder = Encoder(counting)  # type: ignore[arg-type]
    encoder.encode(prose[:10])
    first = counting.texts
    encoder.encode(prose[:10])
    assert first > 1000
    assert counting.texts - first < first / 10  # long parts, such as words around an empty line


def test_unknown_cuts_are_encoded_whole(both: dict[str, Tokenizer], prose: tuple[str, ...]) -> None:
    other = Tokenizer.from_str(both["gpt-2"].to_str())
    assert not Encoder(other).by_parts  # special tokens in a text would be special
    other.encode_special_tokens = True
    assert Encoder(other).by_parts
    other.normalizer = NFC()
    encoder = Encoder(other)
    assert not encoder.by_parts
    assert by_parts(encoder, list(prose[:3])) == plain(other, list(prose[:3]))


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"truncation": {"max_length": 5}},
        {"padding": {"strategy": "BatchLongest"}},
        {"added_tokens": [{"content": "new york", "special": False}]},
        {"model": {"type": "Unigram"}},
        {"model": {"type": "BPE", "dropout": 0.1}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
)
def test_whatever_could_cut_elsewhere_is_not_trusted(both: dict[str, Tokenizer], change: dict[str, object]) -> None:
    known = json.loads(both["gpt-2"].to_str())
    assert cuts_are_known(known)
    assert not cuts_are_known({**known, **change})


def test_another_expression_is_not_trusted(both: dict[str, Tokenizer]) -> None:
    known = json.loads(both["llama-3"].to_str())
    assert cuts_are_known(known)
    known["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": r"\S+|\s+"}
    assert not cuts_are_known(known)


def test_a_tokenizer_that_lacks_a_word_is_said_to_be_at_fault_in_one_line() -> None:
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"known": 0, "<|endoftext|>": 1}))
    tokenizer.pre_tokenizer = Whitespace()
    with pytest.raises(InputError, match=r"the tokenizer cannot encode the text \(.*UNK") as error:
        Encoder(tokenizer).encode(["known", "unknown"])
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_panics_is_said_to_be_at_fault() -> None:
    class Panicking:
        encode_special_tokens = False

        def encode_batch_fast(self, *texts: object, **settings: object) -> None:
            raise type("PanicException", (BaseException,), {})("index out of bounds\nnote: run with a backtrace")

    with pytest.raises(InputError, match=r"cannot encode the text \(index out of bounds\);"):
        Encoder(Panicking()).encode(["text"])  # type: ignore[arg-type]
