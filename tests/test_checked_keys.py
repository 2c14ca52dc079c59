"""The fast check that no JSON object has a key twice never passes one that does."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tuneopt.checked import _keys_in, parse_object
from tuneopt.errors import InputError

SPACES = st.sampled_from(["", "", "", " ", "\n", "\t"])
WORDS = st.sampled_from(['"a"', '":"', '"x\\"y"', '" a"', '"\\":"', '"b:c"', '""', "1", "2.5", "true", "null"])


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    entry = st.tuples(SPACES, st.sampled_from("ab:"), SPACES, SPACES, inner, SPACES).map(
        lambda parts: f'{parts[0]}"{parts[1]}"{parts[2]}:{parts[3]}{parts[4]}{parts[5]}'
    )
    return st.lists(entry, max_size=4).map(lambda entries: "{" + ",".join(entries) + "}")


TREES = st.recursive(
    WORDS, lambda inner: objects(inner) | st.lists(inner, max_size=3).map(lambda x: f"[{','.join(x)}]")
)


@given(TREES)
def test_a_text_with_a_key_twice_is_never_passed(tree: str) -> None:
    text = '{"q":' + tree + "}"
    twice = []
    json.loads(text, object_pairs_hook=lambda pairs: twice.append(len(dict(pairs)) != len(pairs)) or dict(pairs))
    plain = json.loads(text)
    try:
        assert parse_object(text, "a test") == plain and not any(twice)
    except InputError as error:
        assert any(twice) and "a key twice" in str(error)


def test_the_keys_of_a_record_as_it_is_written_are_counted_in_its_text() -> None:
    text = json.dumps({"b": [{"a": 1.5, "c": None}] * 3, "a": {"x": "word: 1"}}, separators=(",", ":"), sort_keys=True)
    assert _keys_in(text) == 2 + 3 * 2 + 1
