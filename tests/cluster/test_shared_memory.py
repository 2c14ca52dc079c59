"""A sweep on Ray where /dev/shm is small, full, read-only or not there: in a mount namespace of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
PLACES = {
    "small": SMALL,
    "full": f"{SMALL}; head -c 2000000 /dev/zero > /dev/shm/full 2>/dev/null",
    "read-only": f"{SMALL}; mount -o remount,ro /dev/shm",
    # All of /dev anew, without shm in it: the folder itself is part of what the machine mounts there.
    "missing": "umount /dev/shm; mkdir old; mount --bind /dev old; mount -t tmpfs tmpfs /dev; "
    "for one in null zero urandom random tty full; do touch /dev/$one; mount --bind old/$one /dev/$one; done",
}


def can_mount() -> bool:
    """Whether this user may have a mount namespace with other file systems in it."""
    asked = ["unshare", "-m", "sh", "-c", SMALL]
    return shutil.which("unshare") is not None and subprocess.run(asked, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not can_mount(), reason="mounting in a namespace takes root")
@pytest.mark.parametrize("place", PLACES)
def test_trials_run_without_room_in_dev_shm(place: str, tmp_path: Path) -> None:
    words = "tune --optimizer adamw --scale nano-65k --ratio 0.02 --replicates 1 --max-trials 1 --ledger ledger"
    command = f"cd {tmp_path}; {PLACES[place]}; exec {sys.executable} -m tuneopt {words}"

    ran = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True)

    records = list((tmp_path / "ledger").glob("trials/*.json"))
    if place == "missing":
        assert ran.returncode == 2 and not records
        assert ran.stderr.splitlines()[-1].startswith("tuneopt: Ray could not be started on this machine (/dev/shm")
        assert "--backend inline" in ran.stderr and "Traceback" not in ran.stderr
    else:
        assert ran.returncode == 3, ran.stderr  # the limit of one trial ends it before its certificate
        assert len(records) == 1
