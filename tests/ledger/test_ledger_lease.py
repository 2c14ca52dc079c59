"""Who works on a sweep: two processes at once, a killed holder, a holder on another machine, a damaged lease."""

import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tuneopt.ledger import Ledger, lease
from tuneopt.ledger.lease import Holder, hold, parse
from tuneopt.spec import InputError

HOLD = """
import sys, time
from tuneopt.ledger import Ledger
from tuneopt.ledger.lease import hold
from tuneopt.spec import InputError
try:
    with hold(Ledger(sys.argv[1]), "sweep"):
        print("held", flush=True)
        sys.stdin.readline()
except InputError as error:
    print(error, flush=True)
"""


def start(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=30)


def test_of_processes_started_together_one_holds_and_the_others_name_it(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(3)]
    said = {process.pid: first_line(process) for process in processes}
    holders = [pid for pid, line in said.items() if line == "held"]
    assert len(holders) == 1
    for pid, line in said.items():
        if pid != holders[0]:
            assert f"sweep sweep is under way: process {holders[0]} on " in line and " since 20" in line
    for process in processes:
        end(process)
    with hold(Ledger(tmp_path), "sweep"):
        pass


def test_a_killed_holder_holds_nothing_up(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert first_line(process) == "held"
    process.kill()  # not waited for: even as a zombie it counts as dead
    while lease._born(process.pid):
        time.sleep(0.005)
    began = time.monotonic()
    with hold(Ledger(tmp_path), "sweep"):
        assert time.monotonic() - began < 1.0
        end(process)


def test_a_lease_that_could_not_be_deleted_does_not_bar_its_own_process(tmp_path: Path, monkeypatch) -> None:
    """A notebook goes on where a disk was full for a moment; a lease that is held there is refused as anybody's."""
    ledger = Ledger(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(type(ledger.files), "delete", lambda *given: (_ for _ in ()).throw(OSError(28, "full")))
        with hold(ledger, "sweep"):
            pass
    assert (tmp_path / "leases" / "sweep.json").exists()
    with (
        hold(ledger, "sweep"),
        pytest.raises(InputError, match=f"under way: process {os.getpid()} "),
        hold(ledger, "sweep"),
    ):
        pass
    assert not (tmp_path / "leases" / "sweep.json").exists()


def test_other_sweeps_of_one_ledger_are_free(tmp_path: Path) -> None:
    with hold(Ledger(tmp_path), "one"), hold(Ledger(tmp_path), "two"), pytest.raises(InputError, match="one is under"):
        hold(Ledger(tmp_path), "one").__enter__()
    assert Ledger(tmp_path).files.names("leases") == []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "EXPIRY_SECONDS", 0.6)


def elsewhere(**changes: object) -> Holder:
    return dataclasses.replace(Holder.here(), machine="another", host="far", at=time.time(), **changes)  # type: ignore[arg-type]


def put(ledger: Ledger, holder: Holder) -> None:
    ledger.files.replace("leases/sweep.json", holder.to_json())


@pytest.mark.usefixtures("quick")
def test_a_holder_elsewhere_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    ledger, far = Ledger(tmp_path), elsewhere()
    put(ledger, far)
    beating = threading.Timer(0.1, lambda: put(ledger, far.beaten()))
    beating.start()
    with pytest.raises(InputError, match=f"process {far.process} on far works on it since"):
        hold(ledger, "sweep").__enter__()
    beating.join()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("behind", [-3600.0, 3600.0])
def test_a_living_holder_whose_clock_is_wrong_is_not_succeeded(tmp_path: Path, behind: float) -> None:
    ledger, far = Ledger(tmp_path), dataclasses.replace(elsewhere(), at=time.time() - behind)
    put(ledger, far)
    later = dataclasses.replace(far, beat=far.beat + 1, at=far.at + lease.BEAT_SECONDS)
    beating = threading.Timer(lease.BEAT_SECONDS, lambda: put(ledger, later))
    beating.start()
    with pytest.raises(InputError, match="works on it since"):
        hold(ledger, "sweep").__enter__()
    beating.join()
    assert parse(ledger.files.read("leases/sweep.json")) == later


@pytest.mark.usefixtures("quick")
def test_a_holder_elsewhere_whose_heart_stands_still_is_succeeded(tmp_path: Path) -> None:
    ledger, far = Ledger(tmp_path), elsewhere()
    put(ledger, far)
    began = time.monotonic()
    with hold(ledger, "sweep"):
        assert 0.4 < time.monotonic() - began < 5
        found = parse(ledger.files.read("leases/sweep.json"))
        assert found is not None and found.token != far.token
    put(ledger, dataclasses.replace(far, at=time.time() - 3600))
    began = time.monotonic()
    with hold(ledger, "sweep"):
        assert time.monotonic() - began < 0.4, "what has stood still for an hour is not waited for"


@pytest.mark.usefixtures("quick")
def test_one_that_lost_its_lease_does_not_take_it_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger, far = Ledger(tmp_path), elsewhere()
    with hold(ledger, "sweep"):
        put(ledger, far)
        time.sleep(0.3)
    assert parse(ledger.files.read("leases/sweep.json")) == far
    assert "nothing is recorded twice" in caplog.text


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"token": 1}', b"\0" * 200])
def test_a_damaged_lease_holds_nothing(tmp_path: Path, text: bytes) -> None:
    ledger = Ledger(tmp_path)
    ledger.files.replace("leases/sweep.json", text)
    with hold(ledger, "sweep"):
        assert parse(ledger.files.read("leases/sweep.json")) is not None


def test_its_heart_beats_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    ledger = Ledger(tmp_path)
    with hold(ledger, "sweep"):
        deadline = time.monotonic() + 10
        while True:
            found = parse(ledger.files.read("leases/sweep.json"))
            if found is not None and found.beat >= 3:
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)
