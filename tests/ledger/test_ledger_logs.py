"""A trial's log beside its record: appended in a folder, put whole into a bucket, bounded, and never in the way."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import make_record, make_spec
from pyarrow.fs import LocalFileSystem

from tuneopt.ledger import Ledger, logs
from tuneopt.ledger.browse import find_log
from tuneopt.ledger.files import RemoteFiles
from tuneopt.ledger.logs import SilentLog, TrialLog, follow_log, has_log, log_address, read_log
from tuneopt.spec import InputError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def bucket(tmp_path: Path) -> Ledger:
    """A ledger whose files know no appending, as on an object store."""
    made = Ledger(tmp_path / "bucket")
    made.files = RemoteFiles(LocalFileSystem(), str(tmp_path / "bucket"))
    return made


def test_events_come_back_in_order_with_time_and_level(ledger: Ledger) -> None:
    log = TrialLog(ledger, "t1")
    log.write("start", pid=1)
    log.write("point", step=3, select_loss=None)
    log.write("error", "error", text="out\nof memory")
    events, offset = read_log(ledger, "t1")
    assert [event["event"] for event in events] == ["start", "point", "error"]
    assert [event["level"] for event in events] == ["info", "info", "error"]
    assert all(event["trial"] == "t1" and event["time"].endswith("+00:00") for event in events)
    assert events[2]["text"] == "out\nof memory"
    assert offset == Path(log_address(ledger, "t1")).stat().st_size
    assert Path(log.where).read_text().count("\n") == 3, "one line an event"


def test_a_log_makes_the_ledger_and_is_no_problem_to_verify(ledger: Ledger) -> None:
    TrialLog(ledger, "t1").write("start")
    assert ledger.files.exists("ledger.json")
    assert ledger.verify() == [] and ledger.ids() == []


def test_a_later_process_goes_on_in_the_same_log(ledger: Ledger, bucket: Ledger) -> None:
    for place in (ledger, bucket):
        TrialLog(place, "t1").write("start", pid=1)
        TrialLog(place, "t1").write("end", pid=2)
        assert [event["pid"] for event in read_log(place, "t1")[0]] == [1, 2]


WRITER = """
import sys
from tuneopt.ledger import Ledger
from tuneopt.ledger.logs import TrialLog
log = TrialLog(Ledger(sys.argv[1]), "t1")
for count in range(200):
    log.write("point", writer=int(sys.argv[2]), count=count, text="x" * 500)
"""


def test_two_processes_never_tear_each_others_lines(ledger: Ledger) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, ledger.uri, str(number)]) for number in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    events, _ = read_log(ledger, "t1")
    assert len(events) == 400
    for number in range(2):
        assert [event["count"] for event in events if event["writer"] == number] == list(range(200))


def test_uploads_are_few_but_errors_and_ends_go_at_once(bucket: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    replace = bucket.files.replace
    monkeypatch.setattr(bucket.files, "replace", lambda name, data: (puts.append(name), replace(name, data)))
    bucket.mark()
    puts.clear()
    log = TrialLog(bucket, "t1")
    for step in range(50):
        log.write("point", step=step)
    for _ in range(50):
        log.write("warning", "warning", text="at every step")
    assert len(puts) == 1, "the first event goes up, the others wait"
    log.write("error", "error", text="boom")
    assert len(puts) == 2
    log.write("end", status="completed")
    assert len(puts) == 3
    assert len(read_log(bucket, "t1")[0]) == 102, "nothing that was written is lost at the end"


def test_a_log_is_bounded_but_keeps_errors_and_the_end(ledger: Ledger, bucket: Ledger, monkeypatch) -> None:
    monkeypatch.setattr(logs, "LIMIT", 4000)
    for place in (ledger, bucket):
        log = TrialLog(place, "t1")
        for step in range(200):
            log.write("point", step=step)
        log.write("end", status="completed")
        events, offset = read_log(place, "t1")
        assert events[0]["step"] == 0 and events[-1]["event"] == "end"
        assert len(events) < 60
        for _ in range(200):
            log.write("warning", "warning", text="again and again")
        assert read_log(place, "t1")[1] < 2 * 4000 + 200
        assert offset < 4200


def test_a_huge_text_keeps_its_beginning_and_end(ledger: Ledger) -> None:
    TrialLog(ledger, "t1").write("error", "error", traceback="first " + "x" * 100_000 + " last")
    text = read_log(ledger, "t1")[0][0]["traceback"]
    assert text.startswith("first ") and text.endswith(" last") and len(text) < 20_000


VALUES = st.one_of(
    st.text(max_size=50), st.integers(), st.floats(), st.none(), st.binary(max_size=8), st.lists(st.text(max_size=5))
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(["text", "step", "config", "where"]), VALUES))
def test_whatever_is_logged_comes_back_as_one_event(tmp_path: Path, fields: dict) -> None:
    ledger = Ledger(tmp_path / "hypothesis")
    before = read_log(ledger, "t1")[1]
    TrialLog(ledger, "t1").write("note", **fields)
    events, _ = read_log(ledger, "t1", before)
    assert len(events) == 1 and events[0]["event"] == "note"
    assert all(events[0][name] == value for name, value in fields.items() if isinstance(value, str | int | None))


def test_what_cannot_be_written_is_said_once_and_raises_nothing(tmp_path: Path, caplog) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "logs").write_text("a file where the folder should be")
    log = TrialLog(Ledger(tmp_path / "ledger"), "t1")
    with caplog.at_level(logging.WARNING):
        for step in range(5):
            log.write("point", step=step)
    assert len(caplog.records) == 1 and "cannot write the log" in caplog.text
    assert caplog.records[0].trial == "t1"


def test_a_store_that_does_not_answer_is_left_alone_for_a_while(bucket: Ledger, monkeypatch) -> None:
    TrialLog(bucket, "other").write("start")
    tries = []

    def refuse(name: str, data: bytes) -> None:
        tries.append(name)
        raise OSError("the network is down")

    good = bucket.files.replace
    log = TrialLog(bucket, "t1")
    monkeypatch.setattr(bucket.files, "replace", refuse)
    for step in range(20):
        log.write("point", step=step)
    log.write("warning", "warning", text="it waits as well")
    assert len(tries) == 1
    monkeypatch.setattr(bucket.files, "replace", good)
    monkeypatch.setattr(time, "monotonic", lambda clock=time.monotonic: clock() + logs.BACK_OFF_SECONDS)
    log.write("end")
    assert len(read_log(bucket, "t1")[0]) == 22, "what was held back goes up with the next success"


def test_a_log_is_found_by_the_beginning_of_its_id(ledger: Ledger) -> None:
    for trial in ("aa11", "aa22", "bb33"):
        TrialLog(ledger, trial).write("start")
    assert find_log(ledger, "b") == "bb33" and find_log(ledger, "aa1") == "aa11"
    with pytest.raises(InputError, match="ambiguous; give more digits of one of aa11, aa22"):
        find_log(ledger, "aa")
    with pytest.raises(InputError, match="no trial in"):
        find_log(ledger, "ff")
    with pytest.raises(InputError, match="no trial in"):
        find_log(ledger, "../../etc/passwd")
    record = make_record(make_spec())
    ledger.put(record)
    assert not has_log(ledger, record.trial)
    with pytest.raises(InputError, match="a record but no log"):
        find_log(ledger, record.trial[:6])


def test_damaged_lines_and_half_written_ones_are_told_apart(ledger: Ledger) -> None:
    TrialLog(ledger, "t1").write("start")
    with Path(log_address(ledger, "t1")).open("ab") as file:
        file.write(b"\xff\xfe rubbish\n[1, 2]\n" + json.dumps({"event": 7}).encode() + b'\n{"event": "poi')
    events, offset = read_log(ledger, "t1")
    assert [event["event"] for event in events] == ["start", "unreadable", "unreadable", "unreadable"]
    with Path(log_address(ledger, "t1")).open("ab") as file:
        file.write(b'nt", "step": 4}\n')
    assert read_log(ledger, "t1", offset)[0] == [{"time": "", "level": "info", "event": "point", "step": 4}]


@pytest.mark.parametrize("last", ["end", "failed"])
def test_following_shows_events_as_they_come_and_stops_at_the_end(ledger: Ledger, last: str) -> None:
    log = TrialLog(ledger, "t1")
    log.write("start")
    seen: list[str] = []

    def follow() -> None:
        seen.extend(event["event"] for event in follow_log(ledger, "t1", pause=0.01))

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    for event in ("point", "restart", "start", "point", last):
        time.sleep(0.03)
        log.write(event)
    reader.join(10)
    assert not reader.is_alive()
    assert seen == ["start", "point", "restart", "start", "point", last]


def test_other_ranks_are_silent(ledger: Ledger) -> None:
    SilentLog(ledger, "t1").write("start")
    assert not has_log(ledger, "t1") and read_log(ledger, "t1") == ([], 0)


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_log_is_not_written_through_a_link_or_into_a_fifo(tmp_path: Path, kind: str, caplog) -> None:
    path = tmp_path / "logs" / "a.jsonl"
    path.parent.mkdir()
    (tmp_path / "victim").write_text("precious")
    path.symlink_to(tmp_path / "victim") if kind == "link" else os.mkfifo(path)
    TrialLog(Ledger(tmp_path), "a").write("start")
    assert (tmp_path / "victim").read_text() == "precious" and "cannot write the log" in caplog.text
