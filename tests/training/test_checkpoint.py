"""Checkpoints: atomic, two kept, damaged ones passed over, no code run from a file."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from tuneopt.training.checkpoint import CheckpointStore, part_name

CPU = torch.device("cpu")


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "trial")
    for step in (5, 10, 15):
        store.save(step, {"value": torch.tensor(step)})
    assert store.steps() == [10, 15]
    step, state = store.load_newest(CPU)
    assert step == 15 and state["value"].item() == 15
    assert store.last_bytes == store._path(15).stat().st_size > 0


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_truncated_checkpoint_gives_way_to_its_predecessor(tmp_path: Path, keep: int) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {"value": torch.arange(100)})
    store.save(2, {"value": torch.arange(200)})
    newest = store._path(2)
    newest.write_bytes(newest.read_bytes()[:keep])
    step, state = store.load_newest(CPU)
    assert step == 1 and len(state["value"]) == 100


@pytest.mark.parametrize("kind", ["FIFO", "device", "part"])
def test_what_is_no_file_in_the_place_of_a_checkpoint_is_passed_over(tmp_path: Path, kind: str) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(step, {"step": step})
    path = store._path(2)
    path.unlink()
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "FIFO":
        os.mkfifo(path)
    else:  # of a checkpoint of several ranks
        path.with_suffix("").mkdir()
        os.mkfifo(path.with_suffix("") / part_name(0))
    assert store.load_newest(CPU) == (1, {"step": 1})


def test_nothing_to_load(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "absent")
    assert store.load_newest(CPU) is None
    store.clear()


def test_half_written_files_are_not_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "step-000000009.123.tmp").write_bytes(b"half")
    store = CheckpointStore(tmp_path)
    assert store.steps() == []


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = CheckpointStore(tmp_path)
    torch.save({"value": Bomb()}, store._path(1))
    assert store.load_newest(CPU) is None
    store._path(2).write_bytes(pickle.dumps(Bomb()))
    assert store.load_newest(CPU) is None
    assert not Path("exploded").exists()
