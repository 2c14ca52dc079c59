"""The fast check that no JSON object has a key twice never passes one that does."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tuneopt.checked import Shared, _keys_in, parse_object
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


@given(TREES, st.sampled_from(["routing", "a", "b"]), st.sampled_from(["", " ", "x"]))
def test_a_list_that_texts_have_in_common_is_read_as_without_asking_for_it(tree: str, name: str, after: str) -> None:
    text = f'{{"q":{tree},"{name}"{after}:[{{"b":{tree}}}],"z":1}}'.encode()

    def read(common: str) -> object:
        try:
            return parse_object(text, "a test", common)
        except InputError as error:
            return str(error)

    plain = read("")
    for _ in range(2):  # read, and remembered
        found = read(name)
        if isinstance(found, dict) and isinstance(found[name], Shared):
            found[name] = list(found[name])
        assert found == plain


def test_records_of_one_model_share_their_routing() -> None:
    texts = [f'{{"loss":{number},"routing":[{{"name":"q","shape":[2,3]}}],"z":[{{}}]}}'.encode() for number in (0, 1)]
    one, other = (parse_object(text, "a test", "routing") for text in texts)
    assert one["routing"] is other["routing"] and one["loss"] != other["loss"]
    forged = b'{"proof":{"routing":[{"a":1}],"x":1},"routing" :0}'
    assert parse_object(forged, "a test", "routing") == json.loads(forged)


def test_the_keys_of_a_record_as_it_is_written_are_counted_in_its_text() -> None:
    text = json.dumps({"b": [{"a": 1.5, "c": None}] * 3, "a": {"x": "word: 1"}}, separators=(",", ":"), sort_keys=True)
    assert _keys_in(text) == 2 + 3 * 2 + 1
