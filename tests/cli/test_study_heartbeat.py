"""What a running study says of itself to whoever asks meanwhile."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuneopt.ledger import open_ledger
from tuneopt.run import heartbeat
from tuneopt.run.heartbeat import Heartbeat, read_moment


def state() -> SimpleNamespace:
    """The part of `tuneopt.observe.state.RunState` that is written down."""
    running = {"aa": SimpleNamespace(fraction=0.25), "bb": SimpleNamespace(fraction=0.0)}
    return SimpleNamespace(running=running, slots=2, elapsed=50.0, plan=SimpleNamespace(device_seconds=90.0))


@pytest.fixture
def ledger(tmp_path: Path):
    return open_ledger(str(tmp_path / "ledger"))


def soon(ledger, wanted) -> None:
    """Wait until a beat says it."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        moment = read_moment(ledger, "s")
        if moment is not None and wanted(moment):
            return
        time.sleep(0.01)
    raise AssertionError(f"never said: {read_moment(ledger, 's')}")


def test_it_beats_by_itself_and_ends_with_its_context(ledger, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.02)
    with Heartbeat(ledger, "s", "smoke", 40.0) as heart:
        assert read_moment(ledger, "s") is None and not list(Path(ledger.uri).glob("*")), "nothing before it starts"
        heart.begun(state())
        soon(ledger, lambda moment: moment.running == {})
        heart.changed(state())
        soon(ledger, lambda moment: moment.running == {"aa": 0.25, "bb": 0.0})
        moment = read_moment(ledger, "s")
        assert (moment.slots, moment.seconds, moment.device_seconds) == (2, 50.0, 50.0), "earlier runs' time left out"
        name = Path(ledger.uri) / "studies" / "s.json"
        first = json.loads(name.read_text())["at"]
        until = time.monotonic() + 30
        while json.loads(name.read_text())["at"] == first and time.monotonic() < until:
            time.sleep(0.05)
        assert json.loads(name.read_text())["at"] > first, "it goes on without anybody telling it anything"
    assert read_moment(ledger, "s") is None, "a run that is over is not under way"


def test_a_run_that_is_refused_leaves_nothing(ledger):
    with pytest.raises(ValueError, match="refused"), Heartbeat(ledger, "s", "smoke", 0.0):
        raise ValueError("refused")
    assert not Path(ledger.uri).exists()


def test_an_old_beat_is_that_of_a_run_that_is_gone(ledger, monkeypatch):
    with Heartbeat(ledger, "s", "smoke", 0.0) as heart:
        heart.begun(state())
        heart.changed(state())
        soon(ledger, lambda moment: True)
        monkeypatch.setattr(heartbeat, "STALE_SECONDS", -1.0)
        assert read_moment(ledger, "s") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"at": "yesterday"}', '{"at": "2026-01-01T00:00:00+00:00"}'])
def test_a_damaged_beat_says_nothing(ledger, text):
    ledger.files.replace("studies/s.json", text.encode())
    assert read_moment(ledger, "s") is None


def test_a_trial_with_a_record_runs_no_longer(ledger, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.02)
    with Heartbeat(ledger, "s", "smoke", 0.0) as heart:
        heart.begun(state())
        heart.changed(state())
        soon(ledger, lambda moment: len(moment.running) == 2)
        ledger.files.replace("trials/aa.json", b"{}")
        assert set(read_moment(ledger, "s").running) == {"bb"}


def test_a_place_that_cannot_be_written_ends_nothing(ledger, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.02)
    tries = []

    def refuse(name, data):
        tries.append(name)
        raise OSError("no space left")

    monkeypatch.setattr(ledger.files, "replace", refuse)
    with Heartbeat(ledger, "s", "smoke", 0.0) as heart:
        heart.begun(state())
        until = time.monotonic() + 30
        while len(tries) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(tries) > 3


@pytest.mark.parametrize(
    "text",
    ["[" * 50_000, '{"at":' * 50_000, "\x80", '{"at": "2026-01-01T00:00:00+00:00"}', "{}", "9" * 6000],
    ids=["lists", "objects", "bytes", "short", "empty", "number"],
)
def test_a_damaged_moment_says_nothing(ledger, text):
    ledger.files.replace("studies/s.json", text.encode())
    assert read_moment(ledger, "s") is None


@pytest.mark.parametrize("change", [{"slots": "two"}, {"slots": -1}, {"seconds": 1e999}, {"running": {"a": "half"}}])
def test_a_moment_with_a_value_of_another_kind_says_nothing(ledger, change):
    now = datetime.now(UTC).isoformat()
    plain = {"at": now, "over": False, "slots": 2, "running": {"a": 0.5}, "seconds": 1.0, "device_seconds": 1.0}
    ledger.files.replace("studies/s.json", json.dumps(plain).encode())
    assert read_moment(ledger, "s").running == {"a": 0.5}
    ledger.files.replace("studies/s.json", json.dumps(plain | change).encode())
    assert read_moment(ledger, "s") is None
