"""Checkpoints under strain: two processes on one folder, a full disk, and settings of how often."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tuneopt.errors import NoRoomError, no_room
from tuneopt.spec import InputError
from tuneopt.training import checkpoint, config
from tuneopt.training.checkpoint import CheckpointStore

CPU = torch.device("cpu")

WRITER = """
import sys, time
from pathlib import Path
import torch
from tuneopt.training.checkpoint import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + 1.5
step = int(sys.argv[2])
while time.monotonic() < end:
    step += 1
    store.save(step, {"value": torch.full((2000,), step)})
    if step % 40 == 0:
        store.clear()
    newest = store.load_newest(torch.device("cpu"))
    assert newest is None or newest[1]["value"].tolist() == [newest[0]] * 2000, newest
print("done", step, flush=True)
"""


def test_two_processes_on_one_trial_hurt_nobody(tmp_path: Path) -> None:
    """As after a driver that was killed and started again while its orphaned worker still trains."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "trial")]
    writers = [
        subprocess.Popen([*command, first], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for first in ("0", "7")
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        out, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0 and "done" in out
    store = CheckpointStore(tmp_path / "trial")
    assert len(store.steps()) <= 2 + 2, "each may leave its newest two"
    assert not list((tmp_path / "trial").glob("*.tmp"))


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path: Path, monkeypatch) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {"value": torch.zeros(10)})
    whole = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda path, state: whole(Path("/dev/full"), state))
    with pytest.raises(NoRoomError) as caught:
        store.save(2, {"value": torch.zeros(100_000)})
    assert "no space is left for" in str(caught.value) and "\n" not in str(caught.value)
    assert store.steps() == [1] and [path.name for path in tmp_path.iterdir()] == ["step-000000001.pt"]


@pytest.mark.parametrize("size", [1, 10_000, 3_000_000])
def test_the_reason_of_a_failed_write_is_kept(size: int) -> None:
    with pytest.raises(OSError) as caught:
        checkpoint._write(Path("/dev/full"), {"value": torch.zeros(size)})
    assert no_room(caught.value)


def test_writing_checkpoints_takes_a_twentieth_of_the_time_at_most(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    assert store.pause == config.PAUSE_SECONDS == 10.0
    store.last_seconds = 3.0
    assert store.pause == 60.0


def test_the_environment_says_how_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.PAUSE_VARIABLE, "0.5")
    assert CheckpointStore(tmp_path).pause == 0.5
    for bad in ("often", "-1", "nan", "inf"):
        monkeypatch.setenv(config.PAUSE_VARIABLE, bad)
        with pytest.raises(InputError, match="TUNEOPT_CHECKPOINT_SECONDS must be a number of seconds"):
            CheckpointStore(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.999])
def test_a_file_overwritten_in_part_gives_way_to_its_predecessor(tmp_path: Path, kept: float) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(step, {"value": torch.arange(3000) + step})
    newest = store._path(2)
    data = newest.read_bytes()
    cut = int(len(data) * kept)
    newest.write_bytes(data[:cut] + b"\0" * (len(data) - cut))  # what a crash leaves of a file that was not flushed
    found = store.load_newest(CPU)
    assert found is not None and found[0] == 1
