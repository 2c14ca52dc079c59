"""Copies of checkpoints in an object store: whole or not there, the newest two, good on another machine."""

import json
import threading
import time
from pathlib import Path

import pytest
import torch
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from tuneopt.ledger.files import RemoteFiles
from tuneopt.training import mirror
from tuneopt.training.checkpoint import CheckpointStore
from tuneopt.training.mirror import Mirror

CPU = torch.device("cpu")


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


def make_mirror(bucket: Path, trial: str = "trial") -> Mirror:
    return Mirror(RemoteFiles(SubTreeFileSystem(str(bucket), LocalFileSystem()), "ledger"), trial)


def store(bucket: Path, cache: Path) -> CheckpointStore:
    return CheckpointStore(cache, make_mirror(bucket))


def save(kept: CheckpointStore, step: int) -> None:
    kept.save(step, {"value": torch.full((1000,), step)})
    assert kept.mirror is not None and kept.mirror.settle()


def files(bucket: Path) -> list[str]:
    top = bucket / "ledger/checkpoints/trial"
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())


def test_another_machine_goes_on_from_the_newest_copy(bucket: Path, tmp_path: Path) -> None:
    here = store(bucket, tmp_path / "here")
    for step in (3, 6, 9):
        save(here, step)
    assert here.mirror is not None and here.mirror.steps() == [6, 9]
    assert len(files(bucket)) == 4, "two copies, and a description of each"
    newest = store(bucket, tmp_path / "there").load_newest(CPU)
    assert newest is not None and newest[0] == 9 and newest[1]["value"].tolist() == [9] * 1000
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["step-000000009.pt"]


def test_what_is_newer_here_is_not_fetched(bucket: Path, tmp_path: Path) -> None:
    save(store(bucket, tmp_path / "here"), 5)
    there = CheckpointStore(tmp_path / "there")
    there.save(8, {"value": torch.zeros(1)})
    newest = store(bucket, tmp_path / "there").load_newest(CPU)
    assert newest is not None and newest[0] == 8
    assert CheckpointStore(tmp_path / "there").steps() == [8]


@pytest.mark.parametrize("harm", ["cut", "gone", "description", "path"])
def test_a_damaged_copy_gives_way_to_its_predecessor(bucket: Path, tmp_path: Path, harm: str) -> None:
    here = store(bucket, tmp_path / "here")
    for step in (3, 6):
        save(here, step)
    marker = bucket / "ledger/checkpoints/trial/step-000000006.json"
    (data,) = (bucket / "ledger/checkpoints/trial").glob("step-000000006~*/*")
    if harm == "cut":
        data.write_bytes(data.read_bytes()[:-5])
    elif harm == "gone":
        data.unlink()
    elif harm == "description":
        marker.write_text(marker.read_text()[:20])
    else:
        plain = json.loads(marker.read_text())
        marker.write_text(json.dumps({**plain, "files": {"../../evil": next(iter(plain["files"].values()))}}))
    newest = store(bucket, tmp_path / "there").load_newest(CPU)
    assert newest is not None and newest[0] == 3
    assert not list(tmp_path.rglob("evil")) and not list((tmp_path / "there").glob("*.tmp"))


def test_an_upload_that_never_ended_does_not_count(bucket: Path, tmp_path: Path) -> None:
    here = store(bucket, tmp_path / "here")
    save(here, 3)
    half = bucket / "ledger/checkpoints/trial/step-000000006~0123abcd/step-000000006.pt"
    half.parent.mkdir()
    half.write_bytes(b"half")
    newest = store(bucket, tmp_path / "there").load_newest(CPU)
    assert newest is not None and newest[0] == 3


def test_the_end_of_a_trial_leaves_nothing(bucket: Path, tmp_path: Path) -> None:
    here = store(bucket, tmp_path / "here")
    save(here, 3)
    here.clear()
    assert files(bucket) == []
    assert not (tmp_path / "here").exists()
    assert store(bucket, tmp_path / "there").load_newest(CPU) is None


def test_folders_of_several_ranks_travel_whole(bucket: Path, tmp_path: Path) -> None:
    here = store(bucket, tmp_path / "here")
    folder = tmp_path / "here/step-000000004"
    folder.mkdir(parents=True)
    for rank in range(2):
        part = {"parts": 2, "model": {f"w{rank}": torch.ones(2) * rank}, "state": {f"w{rank}": {}}}
        torch.save(part, folder / f"rank-{rank:05d}.pt")
    here.drop_old()
    assert here.mirror is not None and here.mirror.settle()
    newest = store(bucket, tmp_path / "there").load_newest(CPU)
    assert newest is not None and newest[0] == 4 and set(newest[1]["model"]) == {"w0", "w1"}


class Slow(RemoteFiles):
    """A store whose writes wait until they are let go."""

    def __init__(self, bucket: Path) -> None:
        super().__init__(SubTreeFileSystem(str(bucket), LocalFileSystem()), "ledger")
        self.go = threading.Event()
        self.writes: list[str] = []

    def writing(self, name: str):  # type: ignore[no-untyped-def, override]
        if not name.endswith(".json"):  # the description of a checkpoint is no upload of its own
            self.writes.append(name)
        self.go.wait(30)
        return super().writing(name)


def test_training_never_waits_and_at_most_one_upload_is_behind(bucket: Path, tmp_path: Path) -> None:
    slow = Slow(bucket)
    kept = CheckpointStore(tmp_path / "here", Mirror(slow, "trial"))
    began = time.monotonic()
    for step in range(1, 8):
        kept.save(step, {"value": torch.zeros(10)})
    assert time.monotonic() - began < 5
    deadline = time.monotonic() + 10
    while not slow.writes and time.monotonic() < deadline:
        time.sleep(0.01)
    slow.go.set()
    assert kept.mirror is not None and kept.mirror.settle(10)
    assert len(slow.writes) <= 2, "those in between gave way to the newest"
    assert kept.mirror.steps()[-1] == 7


def test_a_store_that_fails_does_not_end_the_training(bucket: Path, tmp_path: Path, caplog) -> None:
    class Broken(RemoteFiles):
        def writing(self, name: str):  # type: ignore[no-untyped-def, override]
            raise OSError("the network is gone")

    kept = CheckpointStore(
        tmp_path / "here",
        Mirror(Broken(SubTreeFileSystem(str(bucket), LocalFileSystem()), "ledger"), "trial"),
    )
    kept.save(1, {"value": torch.zeros(1)})
    assert kept.mirror is not None and kept.mirror.settle()
    assert "was not uploaded (the network is gone)" in caplog.text
    assert kept.steps() == [1]


def test_names_in_a_description_are_plain() -> None:
    for name in ("../x", "a/b", "", ".hidden", 3, "x" * 200):
        with pytest.raises(ValueError, match="no file of a checkpoint"):
            mirror._plain_name(name)
    assert mirror._plain_name("rank-00001.pt") == "rank-00001.pt"
