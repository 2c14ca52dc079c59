from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tuneopt.data import cache as module
from tuneopt.data.cache import discard, only_process, publish, remove_leftovers, write_whole
from tuneopt.paths import cache_folder
from tuneopt.spec import InputError


def test_the_argument_beats_the_variable_which_beats_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEOPT_CACHE", str(tmp_path / "variable"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(tmp_path / "argument") == tmp_path / "argument"
    assert cache_folder() == tmp_path / "variable"
    for empty in (lambda: monkeypatch.setenv("TUNEOPT_CACHE", ""), lambda: monkeypatch.delenv("TUNEOPT_CACHE")):
        empty()
        assert cache_folder() == tmp_path / ".cache" / "tuneopt"


def test_a_machine_without_a_home_is_told_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="TUNEOPT_CACHE"):
        cache_folder(Path("~nobody-of-that-name/x"))


def test_a_published_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "corpus"

    def build(folder: Path) -> None:
        (folder / "a").write_text("1")
        assert not target.exists()
        (folder / "b").write_text("2")

    publish(target, build)
    assert sorted(path.name for path in target.iterdir()) == ["a", "b"]
    assert list(tmp_path.iterdir()) == [target]


def test_the_first_of_two_builders_wins_and_the_second_is_content(tmp_path: Path) -> None:
    target = tmp_path / "corpus"

    def slow(folder: Path) -> None:
        (folder / "by").write_text("slow")
        publish(target, lambda other: (other / "by").write_text("fast"))

    publish(target, slow)
    assert (target / "by").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [target]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(tmp_path / "corpus", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_for_another_reason_is_reported(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text("a file is in the way")
    with pytest.raises(OSError, match="corpus"):
        publish(tmp_path / "corpus", lambda folder: (folder / "a").write_text("1"))


@pytest.mark.parametrize("call", ["write_text", "replace"])
def test_a_small_file_that_cannot_be_written_leaves_nothing_and_is_named(
    call: str, tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "manifest.json"
    write_whole(path, "old")

    def full(self: Path, *given: object, **more: object) -> None:
        self.touch()
        raise OSError(28, "full", str(self), None, "elsewhere")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="full") as raised:
        broken.setattr(Path, call, full)
        write_whole(path, "new")
    assert (raised.value.filename, raised.value.filename2) == (str(path), None)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_discard_and_leftovers_touch_only_their_own(tmp_path: Path) -> None:
    names = ["corpus", ".corpus.building-1", ".other.building-1", "other"]
    for name in names:
        (tmp_path / name).mkdir()
    discard(tmp_path / "corpus")
    discard(tmp_path / "corpus")  # nothing there is nothing to do
    remove_leftovers(tmp_path / "corpus")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.building-1", "other"]


def test_one_builder_at_a_time(tmp_path: Path) -> None:
    inside, most, results = [0], [0], []

    def work() -> None:
        with only_process(tmp_path / "corpus") as locked:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1
            results.append(locked)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert results == [True] * 4


def test_a_builder_that_fails_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), only_process(tmp_path / "corpus"):
        raise KeyError
    with only_process(tmp_path / "corpus") as locked:
        assert locked


def test_a_file_system_without_locks_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lockless:
        def __init__(self, path: Path) -> None: ...

        def acquire(self, timeout: float = -1) -> None:
            raise NotImplementedError("no flock here")

    monkeypatch.setattr(module, "FileLock", Lockless)
    with only_process(tmp_path / "corpus") as locked:
        assert not locked
