"""What a local write promises: order of flushes, nothing half written, nothing left behind."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from tuneopt.ledger.files import Files, LocalFiles, RemoteFiles
from tuneopt.ledger.place import resolve
from tuneopt.spec import InputError


@pytest.fixture(params=["local", "remote"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return LocalFiles(tmp_path) if request.param == "local" else RemoteFiles(LocalFileSystem(), str(tmp_path))


def test_both_places_keep_the_same_promises(files: Files) -> None:
    assert files.names("a") == [] and not files.exists("a/x.json")
    with pytest.raises(FileNotFoundError):
        files.read("a/x.json")
    assert files.create("a/x.json", b"one") is True
    assert files.create("a/x.json", b"two") is False
    assert files.read("a/x.json") == b"one"
    files.replace("a/x.json", b"three")
    files.replace("a/b/y.json", b"deep")
    assert files.read("a/x.json") == b"three"
    assert files.names("a") == ["x.json"] and files.names("a/b") == ["y.json"]
    assert list(files.read_all(["a/b/y.json", "a/none", "a/x.json"])) == [
        ("a/b/y.json", b"deep"),
        ("a/x.json", b"three"),
    ]
    assert files.stray("a") == [] and files.stray("nowhere") == []


@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=300))
def test_bytes_come_back_as_they_went(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("bytes")
    for files in (LocalFiles(root / "local"), RemoteFiles(LocalFileSystem(), str(root / "remote"))):
        files.replace("a/x.gz", data)
        assert files.read("a/x.gz") == data


def record_order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    order: list[str] = []

    def spy(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            kind = ""
            if name == "fsync":
                kind = " folder" if stat.S_ISDIR(os.fstat(arguments[0]).st_mode) else " file"
            order.append(name + kind)
            return real(*arguments)

        return act

    monkeypatch.setattr(os, "fsync", spy("fsync", os.fsync))
    monkeypatch.setattr(os, "link", spy("link", os.link))
    monkeypatch.setattr(Path, "replace", spy("rename", Path.replace))
    return order


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trials").mkdir()
    order = record_order(monkeypatch)
    LocalFiles(tmp_path).create("trials/a.json", b"x")
    assert order == ["fsync file", "link", "fsync folder"]
    order.clear()
    LocalFiles(tmp_path).replace("trials/a.json", b"y")
    assert order == ["fsync file", "rename", "fsync folder"]
    order.clear()
    LocalFiles(tmp_path).create("fresh/deep/a.json", b"x")
    assert order[:2] == ["fsync folder", "fsync folder"], "new folders are flushed into their parents first"


@pytest.mark.parametrize("act", ["create", "replace"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    files = LocalFiles(tmp_path)
    files.replace("trials/old.json", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        getattr(files, act)("trials/new.json", b"new")
    with pytest.raises(OSError, match="No space left"):
        files.replace("trials/old.json", b"newer")
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["old.json"]
    assert files.read("trials/old.json") == b"old"


def test_an_error_that_is_no_missing_feature_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", broken)
    with pytest.raises(OSError, match="Input/output"):
        LocalFiles(tmp_path).create("trials/a.json", b"x")
    assert list((tmp_path / "trials").iterdir()) == []


def test_a_live_writers_temporary_file_is_not_stray_and_a_dead_ones_is(tmp_path: Path) -> None:
    import socket

    dead = next(number for number in range(2**22 - 1, 1, -1) if not Path(f"/proc/{number}").exists())
    for process in (os.getpid(), dead):
        (tmp_path / f".a.json~{socket.gethostname()}~{process}~aa.tmp").touch()
    assert LocalFiles(tmp_path).stray(".") == [f".a.json~{socket.gethostname()}~{dead}~aa.tmp"]
    assert LocalFiles(tmp_path).names(".") == []


@pytest.mark.parametrize("uri", ["", "  ", "http://host/x", "s3a://bucket/x", "file://host/x", "C://x"])
def test_addresses_that_cannot_be_a_ledger(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(uri)
    assert "\n" not in str(caught.value)


def test_addresses_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    assert resolve("runs")[0] == str(tmp_path / "runs")
    assert resolve(Path("runs"))[0] == str(tmp_path / "runs")
    assert resolve("~/runs")[0] == "/somewhere/runs"
    assert resolve("file:///a/b")[0] == "/a/b"
