from __future__ import annotations

import json
import os
from collections.abc import Iterator
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
        with pytest.raises(InputError, match=r"cannot read .*a\.txt: no such file"):
            attempt()


def test_linked_folders_are_read_once_each_and_a_loop_ends(tmp_path: Path) -> None:
    for name in ("corpus/real", "elsewhere/.hidden", "elsewhere/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "corpus" / "real" / "a.txt").write_text("a")
    (tmp_path / "elsewhere" / "b.txt").write_text("b")
    (tmp_path / "elsewhere" / "deep" / "c.txt").write_text("c")
    (tmp_path / "elsewhere" / ".hidden" / "d.txt").write_text("hidden")
    before = list(find_source(str(tmp_path / "corpus")).documents())
    assert before == ["a"]
    links = {"more": "../elsewhere", "again": "real", "loop": ".", "twice": "../elsewhere"}
    for name, target in links.items():
        (tmp_path / "corpus" / name).symlink_to(target, target_is_directory=True)
    source = find_source(str(tmp_path / "corpus"))
    assert list(source.documents()) == ["b", "c", "a"], "in the order of their paths: more/b, more/deep/c, real/a"


def test_a_link_to_nothing_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").symlink_to("gone.txt")
    with pytest.raises(InputError, match=r"b\.txt is a link to nothing"):
        find_source(str(tmp_path))
    (tmp_path / "b.txt").rename(tmp_path / "b.png")  # what no reader knows is not asked for
    assert list(find_source(str(tmp_path)).documents()) == ["a"]


def test_a_fifo_among_the_files_is_refused_and_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    for name in ("b.txt", "b.jsonl", "b.parquet", "b.txt.gz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match="is a FIFO"):
            list(find_source(str(tmp_path)).documents())
        with pytest.raises(InputError, match="is a FIFO"):
            list(find_source(str(tmp_path / name)).documents())
        (tmp_path / name).unlink()


def test_a_single_file_may_be_a_link_to_a_blob_without_an_ending(tmp_path: Path) -> None:
    (tmp_path / "0123456789abcdef").write_text(json.dumps({"text": "a"}))
    (tmp_path / "data.jsonl").symlink_to("0123456789abcdef")
    source = find_source(str(tmp_path / "data.jsonl"))
    assert list(source.documents()) == ["a"] and source.name == "data"


def test_files_under_endings_that_nobody_reads_are_said_to_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "b.md", "sub/c.md", "sub/d", ".hidden.md"):
        (tmp_path / name).write_text("text")
    source = find_source(str(tmp_path))
    assert isinstance(source, FileSource)
    assert source.left_out() == (
        f"files in {tmp_path} are left out (2 of .md, 1 of no ending): only .txt, .jsonl, .parquet are read"
    )
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.txt.gz").write_text("text")
    assert FileSource(tmp_path / "only", ()).left_out() == ""


def test_what_a_killed_process_left_of_kept_texts_goes_with_the_next(tmp_path: Path) -> None:
    def dies() -> Iterator[str]:
        yield "half"
        os._exit(9)  # as after SIGKILL

    child = os.fork()
    if not child:
        sources.keep_texts(dies(), tmp_path)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    kept = sources.keep_texts(["whole"], tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
