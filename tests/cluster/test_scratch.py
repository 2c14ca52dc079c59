"""Ray's own files and processes on this machine: gone after the driver, however it ended; nobody else's are touched."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuneopt.cluster.ray_fixes import folder as scratch
from tuneopt.cluster.ray_fixes import janitor
from tuneopt.spec import InputError

HOLDER = "import sys, time; file = open(sys.argv[1], 'w'); print('open', flush=True); time.sleep(120)"

DRIVER = """
import subprocess, sys, time
from tuneopt.cluster.ray_fixes.folder import scratch
with scratch() as folder:
    log = open(folder / "log", "w")  # as Ray's core does in the driver itself
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(folder / "agent.log")], stdout=subprocess.PIPE)
    child.stdout.readline()
    print(folder, child.pid, flush=True)
    sys.stdin.readline()
print("after", flush=True)
"""


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system's temporary folder with a path as short as a real one."""
    folder = Path("/tmp") / f"t{os.getpid() % 10000}"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def gone(process: int, seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while janitor.born(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def start(temporary: Path) -> tuple[subprocess.Popen[str], Path, int]:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    folder, child = driver.stdout.readline().split()
    assert Path(folder).is_relative_to(temporary)
    return driver, Path(folder), int(child)


def test_a_killed_driver_leaves_neither_processes_nor_files(temporary: Path) -> None:
    driver, folder, child = start(temporary)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert gone(child), "an agent outlived its driver"
    deadline = time.monotonic() + 15
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


def test_a_driver_that_ends_well_lives_on_without_its_ray(temporary: Path) -> None:
    driver, folder, child = start(temporary)
    out, _ = driver.communicate("\n", timeout=60)
    assert out.strip() == "after" and driver.returncode == 0, "the janitor took the driver for one of Ray's processes"
    assert gone(child) and not folder.exists()


def test_what_a_run_left_that_died_with_its_janitor_goes_with_the_next_run(temporary: Path) -> None:
    parent = temporary / f"tuneopt-ray-{os.getuid()}"
    (parent / "999999999-123" / "session").mkdir(parents=True)
    parent.chmod(0o700)
    mine = parent / f"{os.getpid()}-{janitor.born(os.getpid())}"
    with scratch.scratch() as folder:
        assert folder == mine
        deadline = time.monotonic() + 15
        while (parent / "999999999-123").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sorted(path.name for path in parent.iterdir()) == [mine.name]
    assert not mine.exists()


def test_only_those_with_files_in_the_folder_are_ended(tmp_path: Path) -> None:
    inside, beside = tmp_path / "mine", tmp_path / "mine-too"
    for folder in (inside, beside):
        folder.mkdir()
    processes = [
        subprocess.Popen([sys.executable, "-c", HOLDER, str(folder / "log")], stdout=subprocess.PIPE)
        for folder in (inside, beside)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert janitor.users(inside) == [processes[0].pid]
        assert janitor.users(inside, spared=processes[0].pid) == []
        janitor.clear(inside, patience=0)
        assert processes[0].wait(10) == -signal.SIGKILL and not inside.exists()
        assert processes[1].poll() is None and beside.exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_folder_of_somebody_else_is_refused(temporary: Path) -> None:
    parent = temporary / f"tuneopt-ray-{os.getuid()}"
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    parent.symlink_to(elsewhere)
    with pytest.raises(InputError, match="not a folder of this user alone"):
        scratch.scratch().__enter__()
    parent.unlink()
    parent.mkdir(mode=0o777)
    parent.chmod(0o777)
    with pytest.raises(InputError, match="RAY_TMPDIR"):
        scratch.scratch().__enter__()


def test_a_folder_that_the_user_chose_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/anywhere")
    with scratch.scratch() as folder:
        assert folder is None


def test_sockets_below_the_folder_keep_within_their_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/a" + "/very-long-folder-name" * 4)
    session = "session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store.1"
    assert len(f"{scratch._parent()}/1234567-1234567890/{session}") <= 107
