from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.data.readers import (
    HEAD_ROWS,
    jsonl_range,
    jsonl_stream,
    read_jsonl,
    read_parquet,
    read_txt,
    text_documents,
)
from tuneopt.data.sources import find_source
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


def lines(path: Path, rows: list[object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_jsonl_takes_text_or_the_only_string(tmp_path: Path) -> None:
    rows = [{"text": "one\n<|endoftext|>\nstill", "url": "u"}, {"text": ""}, {"text": None, "url": "u"}]
    assert list(read_jsonl(lines(tmp_path / "a.jsonl", rows))) == ["one\n<|endoftext|>\nstill"]
    rows = [{"body": None, "score": 3}, {"body": "two", "score": 3}, {"body": None, "score": 3}]
    assert list(read_jsonl(lines(tmp_path / "b.jsonl", rows))) == ["two"]


def test_a_text_that_a_row_gives_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "n": {"text": "nested", "text": 2}}\n{"text": "two", "n": 1, "text": "three"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: 'text' is given twice; keep one"):
        list(read_jsonl(path))
    path.write_text('{"text": "one", "te\\u0078t": "two"}\n')  # one key, of which some letter is an escape
    with pytest.raises(InputError, match=r"a\.jsonl:1: 'text' is given twice; keep one"):
        list(read_jsonl(path))
    path.write_text('{"text": "say \\"text\\" twice", "meta": {"text": "nested"}}\n')
    assert list(read_jsonl(path)) == ['say "text" twice']


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.txt.zst", "a.json.zst"])
def test_a_compressed_file_without_a_byte_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    with pytest.raises(InputError, match=f"{name}: an empty file is no compressed one"):
        list((read_txt if ".txt" in name else read_jsonl)(path))
    with path.open("rb") as stream, pytest.raises(InputError, match="an empty file is no compressed one"):
        list(jsonl_stream(stream, f"https://hub/{name}?download=true"))


def test_a_compressed_file_of_no_text_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    assert list(read_jsonl(tmp_path / "a.jsonl.gz")) == []
    with (tmp_path / "a.jsonl.gz").open("rb") as stream:
        assert list(jsonl_stream(stream, "a.jsonl.gz")) == []


def test_a_parquet_column_that_is_two_or_of_bytes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    with pytest.raises(InputError, match="two columns are called 'text'"):
        list(read_parquet(path))
    for kind, values in (("binary", [b"a"]), ("int64", [1])):
        pq.write_table(pa.table({"text": values, "other": ["b"]}), path)
        with pytest.raises(InputError, match=f"the column 'text' is of {kind} and not of strings; write it as strings"):
            list(read_parquet(path))


@pytest.mark.parametrize("first", [0, 1, 5])
def test_a_row_that_has_lost_its_text_never_becomes_a_document_of_another_text(tmp_path: Path, first: int) -> None:
    rows: list[object] = [{"content": f"text {number}", "n": number} for number in range(9)]
    rows.insert(first, {"content": None, "id": "not a text"})
    path = lines(tmp_path / "a.jsonl", rows)
    for read in (read_jsonl, lambda path: jsonl_range(path, 0, 10**6), lambda path: jsonl_range(path, 30, 10**6)):
        with pytest.raises(InputError, match=r"a\.jsonl:\d+: no string column 'text' among .*'content'"):
            list(read(path))
    with path.open("rb") as stream, pytest.raises(InputError, match="no string column"):
        list(jsonl_stream(stream, "a.jsonl"))
    assert list(read_jsonl(path, "content")) == [f"text {number}" for number in range(9)]


def test_the_column_is_chosen_at_the_beginning_of_a_file_for_all_of_it(tmp_path: Path) -> None:
    rows: list[object] = [{"content": f"text {number}"} for number in range(HEAD_ROWS + 5)]
    path = lines(tmp_path / "a.jsonl", [*rows, {"content": None, "id": "not a text"}, {"content": "last"}])
    assert list(read_jsonl(path))[-2:] == [f"text {HEAD_ROWS + 4}", "last"]
    with path.open("rb") as stream:
        assert list(jsonl_stream(stream, "a.jsonl")) == list(read_jsonl(path))
    half = path.stat().st_size // 2
    assert [*jsonl_range(path, 0, half), *jsonl_range(path, half, 10**6)] == list(read_jsonl(path))
    with pytest.raises(InputError, match="no string column 'content' among 'id'"):
        list(read_jsonl(lines(tmp_path / "b.jsonl", [*rows, {"id": "its content is not there"}])))


def test_files_of_one_source_have_their_text_in_one_column(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [{"content": "a"}])
    lines(tmp_path / "b.jsonl", [{"id": "b"}])
    with pytest.raises(InputError, match=r"is in 'content' and that of .*b\.jsonl in 'id'"):
        list(find_source(str(tmp_path)).documents())


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
    [{"a": ["x"], "b": ["y"]}, {"n": [1]}],
    ids=["two", "none"],
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
