"""Folders of large files beside the records: there whole, or not at all, in a folder and in an object store."""

import os
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem

from tuneopt.ledger import Ledger
from tuneopt.ledger.files import RemoteFiles
from tuneopt.ledger.folders import LIST, fetch_folder, has_folder, new_folder


@pytest.fixture(params=["local", "remote"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "ledger")
    if request.param == "remote":
        made.files = RemoteFiles(LocalFileSystem(), str(tmp_path / "bucket"))
    return made


def fetched(ledger: Ledger, name: str, target: Path) -> dict[str, bytes]:
    target.mkdir()
    fetch_folder(ledger, name, target)
    return {path.name: path.read_bytes() for path in target.iterdir()}


def test_a_folder_comes_back_as_it_went(ledger: Ledger, tmp_path: Path) -> None:
    files = {"a.bin": bytes(range(256)) * 1000, "empty": b"", "b.json": b"{}"}
    assert not has_folder(ledger, "weights/x")
    with new_folder(ledger, "weights/x") as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        assert not has_folder(ledger, "weights/x"), "half a folder is none"
    assert has_folder(ledger, "weights/x")
    assert fetched(ledger, "weights/x", tmp_path / "copy") == files


def test_a_second_folder_takes_the_place_of_the_first(ledger: Ledger, tmp_path: Path) -> None:
    for words in (("one", "two"), ("three",)):
        with new_folder(ledger, "weights/x") as folder:
            for word in words:
                (folder / word).write_text(word)
    assert fetched(ledger, "weights/x", tmp_path / "copy") == {"three": b"three"}


def test_an_error_leaves_what_was_there(ledger: Ledger, tmp_path: Path) -> None:
    with new_folder(ledger, "weights/x") as folder:
        (folder / "old").write_text("old")
    with pytest.raises(RuntimeError, match="stop"), new_folder(ledger, "weights/x") as folder:
        (folder / "new").write_text("new")
        raise RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"), new_folder(ledger, "weights/y") as folder:
        raise RuntimeError("stop")
    assert fetched(ledger, "weights/x", tmp_path / "copy") == {"old": b"old"}
    assert not has_folder(ledger, "weights/y")
    assert ledger.verify() == [] or not any("weights" in problem for problem in ledger.verify())
    local = tmp_path / "ledger" / "weights"
    assert not local.exists() or [path.name for path in local.iterdir()] == ["x"]


def test_a_folder_that_is_not_there_cannot_be_fetched(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fetch_folder(ledger, "weights/none", tmp_path)


@pytest.mark.parametrize("word", ["../outside", "/etc/passwd", "a/b", "..", ".hidden"])
def test_a_list_that_names_other_places_is_refused(tmp_path: Path, word: str) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.files = RemoteFiles(LocalFileSystem(), str(tmp_path / "bucket"))
    ledger.files.replace(f"weights/x/{LIST}", word.encode())
    (tmp_path / "copy").mkdir()
    with pytest.raises(FileNotFoundError, match="no file of that folder"):
        fetch_folder(ledger, "weights/x", tmp_path / "copy")
    assert not list((tmp_path / "copy").iterdir())


def test_what_a_killed_writer_leaves_goes_with_the_next_one(ledger: Ledger, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    child = os.fork()
    if not child:
        with new_folder(ledger, "weights/x") as folder:
            (folder / "half").write_text("half")
            os._exit(9)  # as after SIGKILL
    os.waitpid(child, 0)
    assert len(list(tmp_path.rglob("half"))) == 1
    with new_folder(ledger, "weights/y") as folder:
        (folder / "whole").write_text("whole")
    assert not list(tmp_path.rglob("half")) and not list((tmp_path / "tmp").iterdir())
    assert fetched(ledger, "weights/y", tmp_path / "copy") == {"whole": b"whole"}
