"""A wait for another process's lock is said, with the process that holds it."""

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tuneopt.data.cache import acquire, holder

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path):
    path = tmp_path / ".corpus.lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who holds a lock")
def test_the_holder_is_found_and_gone_with_its_process(held) -> None:
    path, process = held
    assert holder(path) == process.pid
    process.kill()
    process.wait()
    assert holder(path) is None
    assert holder(path.with_name("not there")) is None


def test_a_long_wait_is_said_once_and_then_at_long_intervals(held, caplog: pytest.LogCaptureFixture) -> None:
    path, process = held
    lock = FileLock(path)

    def let_go() -> None:
        while len(caplog.records) < 3:
            time.sleep(0.01)
        process.stdin.close()

    letting = threading.Thread(target=let_go, daemon=True)
    letting.start()
    with caplog.at_level(logging.WARNING):
        acquire(lock, "'corpus' in the cache", first=0.05, every=0.1)
    lock.release()
    letting.join(10)
    known = f"process {process.pid}" if Path("/proc/locks").exists() else "another process"
    assert caplog.records[0].getMessage() == f"waiting: 'corpus' in the cache is being built by {known}"


def test_a_free_lock_is_taken_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = FileLock(tmp_path / "free.lock")
    acquire(lock, "nothing")
    assert lock.is_locked and caplog.records == []
    lock.release()
