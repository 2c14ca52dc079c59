from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_world import jsonl

from tuneopt.data import readers
from tuneopt.data.readers import END_OF_TEXT, ending, jsonl_range, read_jsonl, read_parquet, read_txt, txt_range
from tuneopt.spec import InputError

WORDS = st.lists(st.sampled_from(["a", "bc", "é", "你", "\n", " ", "\r\n", "longer words", END_OF_TEXT]), max_size=12)


def tiles(size: int, cuts: list[int]) -> list[tuple[int, int]]:
    edges = [0, *sorted({min(cut, size) for cut in cuts} - {0}), size]
    return [(a, b) for a, b in pairwise(edges) if a < b]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranges")


ENDED = st.tuples(WORDS.map("".join), st.sampled_from(["\n", "\r\n"]))


@settings(max_examples=100, deadline=None)
@given(st.lists(ENDED, max_size=8), st.lists(st.integers(0, 200)))
def test_ranges_of_text_tile_the_file(folder: Path, parts: list[tuple[str, str]], cuts: list[int]) -> None:
    path = folder / "a.txt"
    path.write_bytes("".join(f"{text}{end}{END_OF_TEXT}{end}" for text, end in parts).encode())
    whole = list(read_txt(path))
    tiled = [text for first, stop in tiles(path.stat().st_size, cuts) for text in txt_range(path, first, stop)]
    assert tiled == whole


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS.map("".join), max_size=8), st.booleans(), st.lists(st.integers(0, 400)))
def test_ranges_of_json_lines_tile_the_file(folder: Path, texts: list[str], last: bool, cuts: list[int]) -> None:
    path = folder / "a.jsonl"
    path.write_text("\n\n".join(json.dumps({"text": text}) for text in texts) + "\n" * last)
    whole = list(read_jsonl(path))
    tiled = [text for first, stop in tiles(path.stat().st_size, cuts) for text in jsonl_range(path, first, stop)]
    assert tiled == whole
    assert whole == [text.strip("\n") for text in texts if text.strip() and not text.isspace()]


def test_an_error_in_a_range_names_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": f"line {number}"}) for number in range(10)]
    lines[7] = "{"
    path.write_text("\n".join(lines))
    place = sum(len(line) + 1 for line in lines[:4]) - 3
    with pytest.raises(InputError, match=r"a\.jsonl:8: not valid JSON"):
        list(jsonl_range(path, place, path.stat().st_size))


def test_an_error_in_a_range_of_text_names_the_line_too(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    head = f"one\n{END_OF_TEXT}\ntwo\n{END_OF_TEXT}\n".encode()
    path.write_bytes(head + b"three\nbad \xff\n")
    with pytest.raises(InputError, match=r"a\.txt:6: not UTF-8 text"):
        list(txt_range(path, 3, 1000))


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz", ".json.gz", ".jsonl"])
def test_compressed_lines_read_as_plain_ones(tmp_path: Path, suffix: str) -> None:
    texts = ["one", "two\nlines", "é" * 3_000_000, "end"]
    path = jsonl(tmp_path / f"a{suffix}", texts)
    assert list(readers.READERS[ending(path)](path)) == texts


def test_frames_that_follow_one_another_are_one_file(tmp_path: Path) -> None:
    parts = []
    for number in range(3):
        part = jsonl(tmp_path / f"{number}.jsonl.zst", [f"text {number}"])
        parts.append(part.read_bytes())
    path = tmp_path / "all.jsonl.zst"
    path.write_bytes(b"".join(parts))
    assert list(read_jsonl(path)) == ["text 0", "text 1", "text 2"]


def test_compressed_text_has_documents_too(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(f"one\n{END_OF_TEXT}\ntwo".encode()))
    assert list(read_txt(path)) == ["one", "two"]


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz"])
def test_damaged_compression_is_bad_input(tmp_path: Path, suffix: str) -> None:
    path = jsonl(tmp_path / f"a{suffix}", ["text " * 100] * 100)
    path.write_bytes(path.read_bytes()[:-20] + b"x" * 10)
    with pytest.raises(InputError, match=r"cannot be decompressed|not valid JSON"):
        list(read_jsonl(path))
    path.write_bytes(b"plain text")
    with pytest.raises(InputError, match="cannot be decompressed"):
        list(read_jsonl(path))


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE", 1000)
    path = jsonl(tmp_path / "a.jsonl.gz", ["x" * 2000])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz:1: a line of more than"):
        list(read_jsonl(path))
    plain = jsonl(tmp_path / "a.jsonl", ["short", "x" * 2000])
    with pytest.raises(InputError, match=r"a\.jsonl:2: a line of more than"):
        list(jsonl_range(plain, 0, plain.stat().st_size))


def test_the_column_that_was_asked_for_is_read(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ["code"], column="content", text="not this")
    assert list(read_jsonl(path, "content")) == ["code"]
    with pytest.raises(InputError, match=r"a\.jsonl:1: no string column 'body' among 'content', 'text'"):
        list(read_jsonl(path, "body"))
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": ["code", None], "text": ["not this", "nor this"]}), table)
    assert list(read_parquet(table, "content")) == ["code"]
    with pytest.raises(InputError, match="no string column 'body'"):
        list(read_parquet(table, "body"))


def test_row_groups_tile_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"text {number}" for number in range(25)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10)
    assert [text for group in range(3) for text in read_parquet(path, None, [group])] == texts
