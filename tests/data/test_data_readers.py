from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.data.readers import read_jsonl, read_parquet, read_txt, text_documents
from tuneopt.spec import InputError


def _txt(tmp_path: Path, data: bytes) -> list[str]:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    return list(read_txt(path))


def test_a_text_file_without_separators_is_one_document(tmp_path: Path) -> None:
    assert _txt(tmp_path, b"one\n\ntwo\n") == ["one\n\ntwo"]


def test_a_separator_line_parts_documents_and_empty_ones_vanish(tmp_path: Path) -> None:
    data = b"<|endoftext|>\none\n<|endoftext|>\n \n<|endoftext|> \ntwo <|endoftext|> still two\nend\n<|endoftext|>\n"
    assert _txt(tmp_path, data) == ["one", "two <|endoftext|> still two\nend"]


def test_windows_line_ends_and_byte_order_mark_leave_no_trace(tmp_path: Path) -> None:
    assert _txt(tmp_path, b"\xef\xbb\xbfone\r\ntwo\r\n<|endoftext|>\r\nthree") == ["one\ntwo", "three"]


def test_text_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.txt:2: not UTF-8"):
        _txt(tmp_path, b"fine\ncaf\xe9\n")


LINES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
DOCUMENTS = st.lists(LINES, min_size=1, max_size=4).map("\n".join).map(lambda text: text.strip("\n"))


@given(st.lists(DOCUMENTS.filter(lambda text: text.strip() and "<|endoftext|>" not in text and text[0] != "\ufeff")))
def test_joined_documents_come_apart_again(documents: list[str]) -> None:
    stream = "\n<|endoftext|>\n".join(documents).encode().splitlines(keepends=True)
    assert list(text_documents(stream, "memory")) == documents


def test_jsonl_takes_text_or_the_only_string(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "one\n<|endoftext|>\nstill", "url": "u"}, {"body": "two", "score": 3}, {"text": ""}]
    rows += [{"text": None, "url": "u"}, {"body": None, "score": 3}]  # skipped, as in Parquet
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    assert list(read_jsonl(path)) == ["one\n<|endoftext|>\nstill", "two"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('["a list"]', "not a JSON object"),
        ('{"title": "a", "body": "b"}', "no string column 'text' among 'title', 'body'"),
        ('{"text": 5, "body": "b"}', "'text' holds a number, not a string"),
        ('{"text": ["a"], "body": null}', "'text' holds a list, not a string"),
        ('{"text": true}', "'text' holds true or false, not a string"),
        ("{}", "among none"),
        ('{"text": "\\ud800"}', "surrogate"),
    ],
)
def test_a_bad_json_line_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n\n' + line + "\n")
    with pytest.raises(InputError) as error:
        list(read_jsonl(path))
    assert str(error.value).startswith(f"{path}:3: ")
    assert message in str(error.value)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_reads_every_kind_of_string(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"id": [1, 2, 3, 4], "text": pa.array(["one", None, " ", "two"]).cast(kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(read_parquet(tmp_path / "a.parquet")) == ["one", "two"]


def test_parquet_takes_the_only_string_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "content": ["one"]}), tmp_path / "a.parquet")
    assert list(read_parquet(tmp_path / "a.parquet")) == ["one"]


@pytest.mark.parametrize(
    "columns",
    [{"a": ["x"], "b": ["y"]}, {"n": [1]}, {"text": [1], "other": ["x"]}],
    ids=["two", "none", "not-a-string"],
)
def test_parquet_without_a_clear_text_column_lists_what_there_is(
    tmp_path: Path, columns: dict[str, list[object]]
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no string column 'text' among") as error:
        list(read_parquet(tmp_path / "a.parquet"))
    assert all(repr(name) in str(error.value) for name in columns)


def test_a_file_that_is_no_parquet_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing of the kind, but long enough to look at")
    with pytest.raises(InputError, match="not a readable Parquet file") as error:
        list(read_parquet(tmp_path / "a.parquet"))
    assert "\n" not in str(error.value)
