"""Every format that outsiders can write: valid data passes, all else is refused in one sentence or passed over.

The same targets run under atheris for hours (fuzz/run.py); what that found is kept in fuzz/found and tried again here.
"""

import json
import random
from pathlib import Path

import pytest
from hostile import VALUES, mutated, places, replaced
from hypothesis import given, settings
from hypothesis import strategies as st
from targets import JSON_TARGETS, TARGETS, expected

from tuneopt.spec import InputError

FOUND = Path(__file__).resolve().parents[2] / "fuzz" / "found"
STEADY = settings(derandomize=True, deadline=None, database=None, max_examples=60)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_data_passes_every_target(name: str, seeds: dict[str, list[bytes]]) -> None:
    assert seeds[name]
    for data in seeds[name]:
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_fuzzing_found_stays_mended(name: str) -> None:
    for path in sorted((FOUND / name).glob("*")):
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", [name for name in JSON_TARGETS if name != "tokenizer"])
def test_documents_with_fields_of_other_kinds(name: str, seeds: dict[str, list[bytes]]) -> None:
    tree = json.loads(seeds[name][0])

    @STEADY
    @given(st.integers(0, 2**32), st.integers(1, 3))
    def check(seed: int, changes: int) -> None:
        changed, rng = tree, random.Random(seed)
        for _ in range(changes):
            changed = mutated(changed, rng)
        TARGETS[name](json.dumps(changed).encode())

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", JSON_TARGETS)
def test_every_field_takes_every_hostile_value(name: str, seeds: dict[str, list[bytes]]) -> None:
    tree = json.loads(seeds[name][0])
    for place in list(places(tree))[:120]:
        for value in VALUES:
            TARGETS[name](json.dumps(replaced(tree, place, value)).encode())


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("checkpoint", "compacted")])
def test_damaged_bytes(name: str, seeds: dict[str, list[bytes]]) -> None:
    whole = seeds[name][0]

    @settings(STEADY, max_examples=25)
    @given(st.integers(0, len(whole)), st.binary(max_size=6), st.integers(0, 40))
    def check(at: int, put: bytes, left_out: int) -> None:
        TARGETS[name](whole[:at] + put + whole[at + left_out :])

    check()


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 64,
        b"\xff\xfe\x00",
        b"[" * 20_000,
        b"{" * 20_000,
        b'{"a":' * 20_000,
        b"\x80\x04\x95",
        b"PAR1",
        b"9" * 6000,
    ],
    ids=["empty", "zeros", "bom", "lists", "objects", "nested", "pickle", "parquet", "number"],
)
def test_data_of_another_kind(name: str, data: bytes) -> None:
    TARGETS[name](data)


def test_a_target_that_breaks_is_seen() -> None:
    """The property itself can fail: another exception, or a sentence that steers the terminal."""
    with pytest.raises(ZeroDivisionError), expected():
        _ = 1 / 0
    refusal = InputError("fine")
    refusal.args = ("two\nlines",)
    with pytest.raises(AssertionError), expected():
        raise refusal
