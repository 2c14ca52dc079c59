"""A full disk under a trial: one sentence, nothing corrupt, and the same command goes on when there is room again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuneopt.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRAIN = [
    "train", "--optimizer", "adamw", "--scale", "nano-65k", "--ratio", "0.05", "--no-compile", "--set",
    "train_batch_size=16",
]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small disk needs root and the right to mount: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def train(text: Path, ledger: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuneopt", *TRAIN, "--corpus", str(text), "--ledger", str(ledger), "--json"],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "TUNEOPT_CHECKPOINT_SECONDS": "0"},
        check=False,
    )


def fill(disk: Path, spare: int) -> Path:
    """Take all room but ``spare`` bytes."""
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - spare))
    return disk / "filler"


@pytest.mark.parametrize("spare", [0, 100_000, 2_500_000])
def test_a_full_disk_stops_a_trial_cleanly(text_folder: Path, disk: Path, spare: int) -> None:
    """No room at all, room for the marker but no checkpoint, room for one checkpoint but not for the next."""
    filler = fill(disk, spare)
    stopped = train(text_folder, disk / "ledger")
    assert stopped.returncode == 2 and stopped.stdout == "", stopped.stderr
    lines = [line for line in stopped.stderr.splitlines() if "no space is left for" in line]
    assert lines and "make room and run the same command again" in lines[-1] and "Traceback" not in stopped.stderr
    ledger = Ledger(disk / "ledger")
    assert ledger.ids() == []
    assert not list((disk / "ledger").rglob("*.tmp"))
    filler.unlink()
    done = train(text_folder, disk / "ledger")
    assert done.returncode == 0, done.stderr
    assert len(ledger.ids()) == 1 and ledger.verify() == []
    (record,) = ledger.records()
    assert record.resumes == (1 if spare > 1_000_000 else 0)
