from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneopt.data import sources
from tuneopt.data.sources import EmbeddedSource, FileSource, find_source
from tuneopt.spec import InputError


def test_the_embedded_corpus_is_the_default_name() -> None:
    assert isinstance(find_source("embedded"), EmbeddedSource)


def test_the_embedded_corpus_has_its_documents_in_sequence() -> None:
    documents = list(EmbeddedSource().documents())
    assert len(documents) == len(set(documents)) == 3128
    assert sum(len(text.encode()) for text in documents) == 18_283_772
    assert not any("<|endoftext|>" in text for text in documents)


def test_a_damaged_embedded_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "EMBEDDED_SHA256", "0" * 64)
    with pytest.raises(InputError, match="install tuneopt again"):
        next(EmbeddedSource().documents())


@pytest.mark.parametrize("name", ["embeded", "Embedded", "no/such/folder", ""])
def test_a_missing_corpus_names_the_nearest_known_one(name: str) -> None:
    with pytest.raises(InputError, match="embedded") as error:
        find_source(name)
    assert ".parquet" in str(error.value)


def test_a_path_that_no_file_system_takes_is_bad_input() -> None:
    with pytest.raises(InputError, match="cannot read corpus"):
        find_source("a\0b")


def test_a_folder_without_text_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"png")
    with pytest.raises(InputError, match=r"no \.txt, \.jsonl, \.parquet file"):
        find_source(str(tmp_path))
    with pytest.raises(InputError, match=r"no \.txt, \.jsonl, \.parquet file"):
        find_source(str(tmp_path / "image.png"))


def test_all_forms_are_read_in_the_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.txt").write_text("hidden folder")
    (tmp_path / ".x.txt").write_text("hidden file")
    (tmp_path / "readme.md").write_text("other form")
    (tmp_path / "c.TXT").write_text("last")
    (tmp_path / "b" / "z.jsonl").write_text(json.dumps({"text": "third"}))
    pq.write_table(pa.table({"text": ["second"]}), tmp_path / "b" / "a.parquet")
    (tmp_path / "a.txt").write_text("first")
    assert list(find_source(str(tmp_path)).documents()) == ["first", "second", "third", "last"]


def test_one_file_is_a_corpus_named_after_it(tmp_path: Path) -> None:
    (tmp_path / "my text (2).txt").write_text("one")
    source = find_source(str(tmp_path / "my text (2).txt"))
    assert (source.name, list(source.documents())) == ("my-text-2", ["one"])


def test_names_are_safe_for_file_names() -> None:
    assert FileSource(Path("/"), ()).name == "corpus"
    assert FileSource(Path("/data/<script>"), ()).name == "script"


def test_the_stamp_follows_every_change(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = find_source(str(tmp_path)).stamp()
    assert find_source(str(tmp_path)).stamp() == first
    path.write_text("two")
    os.utime(path, (0, 0))
    second = find_source(str(tmp_path)).stamp()
    path.write_text("six")
    os.utime(path, (0, 0))
    third = find_source(str(tmp_path)).stamp()  # equal size and modification time, other text
    (tmp_path / "b.txt").write_text("more")
    assert len({first, second, third, find_source(str(tmp_path)).stamp()}) == 4


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    source = find_source(str(tmp_path))
    path.unlink()
    for attempt in (source.stamp, lambda: list(source.documents())):
        with pytest.raises(InputError, match=r"cannot read .*a\.txt: No such file"):
            attempt()
