"""Damaged files: found, set aside, never deleted; their trials are recorded again, and good records stay."""

import json
import logging
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import make_record, make_spec
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from tuneopt import cli
from tuneopt.api.scales import scale_notes
from tuneopt.api.step_times import recorded_times
from tuneopt.ledger import Ledger, open_ledger, place
from tuneopt.ledger.damage import DamagedRecordError
from tuneopt.ledger.files import RemoteFiles
from tuneopt.ledger.store import mending
from tuneopt.search.records import recorded, spread_of
from tuneopt.spec import SCALES, InputError


@pytest.fixture(params=["local", "remote"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger")
    if request.param == "remote":
        (tmp_path / "bucket").mkdir()
        ledger.files = RemoteFiles(SubTreeFileSystem(str(tmp_path / "bucket"), LocalFileSystem()), "prefix")
    for seed in range(3):
        ledger.put(make_record(make_spec(seed)))
    return ledger


def damage(ledger: Ledger, name: str, data: bytes) -> None:
    ledger.files.replace(name, data)


def kept(ledger: Ledger, folder: str = "damaged/trials") -> list[str]:
    return ledger.files.names(folder)


def test_a_damaged_record_counts_as_none_and_is_not_moved_by_looking(ledger: Ledger, caplog) -> None:
    trial = make_spec(1).id
    damage(ledger, f"trials/{trial}.json", b'{"trial"')
    with caplog.at_level(logging.WARNING):
        assert ledger.sound(trial) is None
        assert recorded(ledger)(make_spec(1)) is None
    assert f"trials/{trial}.json" in caplog.text and "runs again" in caplog.text
    assert ledger.files.read(f"trials/{trial}.json") == b'{"trial"' and kept(ledger) == []
    assert ledger.sound(make_spec(0).id) == make_record(make_spec(0))


def test_recording_it_again_sets_the_damaged_one_aside(ledger: Ledger) -> None:
    record, half = make_record(make_spec(1)), b'{"trial"'
    damage(ledger, f"trials/{record.trial}.json", half)
    assert ledger.put(record) is True
    assert ledger.get(record.trial) == record
    (name,) = kept(ledger)
    assert name.startswith(f"{record.trial}.json~") and ledger.files.read(f"damaged/trials/{name}") == half
    assert ledger.put(make_record(make_spec(1), 9.0)) is False, "a good record is never written over"
    assert ledger.get(record.trial) == record
    assert ledger.verify() == []


def test_two_damages_of_one_record_are_both_kept(ledger: Ledger) -> None:
    record = make_record(make_spec(1))
    for half in (b"{", b""):
        damage(ledger, f"trials/{record.trial}.json", half)
        assert ledger.put(record)
    assert len(kept(ledger)) == 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.integers(0, 999))
def test_a_record_cut_anywhere_is_noticed(ledger: Ledger, part: int) -> None:
    record = make_record(make_spec(2))
    whole = record.to_json().encode() + b"\n"
    cut = whole[: part * (len(whole) - 1) // 1000]
    damage(ledger, f"trials/{record.trial}.json", cut)
    assert ledger.sound(record.trial) is None
    assert ledger.put(record) and ledger.get(record.trial) == record


def test_mend_moves_what_is_damaged_and_nothing_else(ledger: Ledger) -> None:
    ledger.put_sweep("sweep", {"a": 1})
    run = ledger.put_run({"a": 1})
    ledger.compact()
    assert ledger.mend() == []
    trial = make_spec(0).id
    for name in (f"trials/{trial}.json", "sweeps/sweep.json", f"runs/{run}.json", "compacted/trials.parquet"):
        damage(ledger, name, b"\0" * 50)
    assert len(ledger.verify()) >= 4
    said = ledger.mend()
    assert len(said) == 4 and all("it is kept as damaged/" in sentence for sentence in said)
    assert ledger.verify() == [] and ledger.mend() == []
    assert ledger.ids() == sorted(make_spec(seed).id for seed in (1, 2))
    assert ledger.sweeps() == {} and ledger.runs() == {} and ledger.table().num_rows == 2


def test_a_record_of_a_newer_release_is_no_damage(ledger: Ledger) -> None:
    record = make_record(make_spec(1))
    newer = json.dumps({**json.loads(record.to_json()), "schema": 2, "more": 1}).encode()
    damage(ledger, f"trials/{record.trial}.json", newer)
    with pytest.raises(InputError, match="upgrade"):
        ledger.sound(record.trial)
    with pytest.raises(InputError, match="upgrade"):
        ledger.put(record)
    damage(ledger, f"trials/{make_spec(0).id}.json", b"{")
    moved, left = sorted(ledger.mend(), key=lambda sentence: "left alone" in sentence)
    assert "it is kept as damaged/" in moved and f"left alone: trials/{record.trial}.json" in left
    assert ledger.files.read(f"trials/{record.trial}.json") == newer


def test_what_writes_mends_says_so_and_goes_on(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    damage(ledger, f"trials/{make_spec(1).id}.json", b"{")
    with pytest.raises(DamagedRecordError, match="tuneopt ledger mend"):
        ledger.table()
    assert mending(ledger, lambda: ledger.table().num_rows) == 2
    assert caplog.text.count("it is kept as damaged/") == 1


@pytest.mark.parametrize(
    "asked",
    [
        lambda ledger: spread_of(ledger),
        lambda ledger: recorded_times(ledger, {"all": make_spec(0)}),
        lambda ledger: scale_notes([replace(SCALES["nano-65k"], name="mine")], ledger),
        lambda ledger: list(ledger.records(sound=True)),
    ],
)
def test_what_is_asked_before_a_run_does_not_stop_the_run_that_mends(ledger: Ledger, asked, caplog) -> None:
    """Noise, speeds and notes rest on all records: one that was cut off once kept a study from ever going on."""
    damage(ledger, f"trials/{make_spec(1).id}.json", b"{")
    for _ in range(2):
        asked(ledger)
    assert caplog.text.count("its trial runs again") == 1
    with pytest.raises(DamagedRecordError):
        list(ledger.records())


def test_damaged_accounts_are_passed_over_by_a_driver(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    first, second = ledger.put_run({"slots": 1}), ledger.put_run({"slots": 2})
    damage(ledger, f"runs/{first}.json", b"{")
    assert list(ledger.sound_runs()) == [second] and f"runs/{first}.json" in caplog.text


def test_mend_says_each_thing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.put(make_record(make_spec(0)))
    damage(ledger, f"trials/{make_spec(0).id}.json", b"{")
    monkeypatch.setattr("sys.argv", ["tuneopt", "ledger", "mend", ledger.uri])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 0 and (said.out + said.err).count("it is kept as damaged/") == 1


@pytest.mark.parametrize("cut", [b"", place.marker_text()[:20], b"\0" * 45])
def test_a_marker_cut_short_is_mended_by_the_next_write(ledger: Ledger, tmp_path: Path, cut: bytes) -> None:
    damage(ledger, "ledger.json", cut)
    place.inspect(ledger.uri, ledger.files, must_exist=True)
    assert any("ledger.json" in problem for problem in ledger.verify())
    again = Ledger(ledger.uri)
    again.files = ledger.files
    again.put_sweep("sweep", {})
    assert again.files.read("ledger.json") == place.marker_text() and again.verify() == []


def _put_again(place: str, loss: float, go: object, results: object) -> None:
    ledger = open_ledger(place)
    go.wait(60)  # type: ignore[attr-defined]
    results.put([loss, ledger.put(make_record(make_spec(1), loss))])  # type: ignore[attr-defined]


def test_processes_that_find_the_same_damage_leave_one_good_record(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ledger = Ledger(tmp_path / "ledger")
    ledger.put(make_record(make_spec(1)))
    ledger.files.replace(f"trials/{make_spec(1).id}.json", b"{")
    go, results = context.Event(), context.Queue()
    arguments = [(ledger.uri, 3.0 + number, go, results) for number in range(4)]
    processes = [context.Process(target=_put_again, args=each) for each in arguments]
    for process in processes:
        process.start()
    go.set()
    said = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    winners = [loss for loss, won in said if won]
    record = ledger.get(make_spec(1).id)
    assert len(winners) == 1 and record is not None and record.select_loss == winners[0]
    assert len(kept(ledger)) == 1 and ledger.verify() == []


class Meddled(RemoteFiles):
    """A bucket in which somebody else stores a record between two requests of this process."""

    def __init__(self, files: RemoteFiles, name: str, theirs: bytes, moment: int) -> None:
        super().__init__(files.filesystem, files.prefix)
        self.name, self.theirs, self.left, self.deleted = name, theirs, moment, list[bytes]()

    def read(self, name: str) -> bytes:
        data = super().read(name)
        if name == self.name:
            self.left -= 1
            if self.left == 0:
                super().replace(name, self.theirs)
        return data

    def delete(self, name: str) -> None:
        self.deleted.append(super().read(name))
        super().delete(name)


@pytest.mark.parametrize("moment", [1, 2])
@pytest.mark.parametrize("ledger", ["remote"], indirect=True)
def test_what_another_worker_stores_meanwhile_in_a_bucket_is_never_set_aside_or_deleted(
    ledger: Ledger, moment: int
) -> None:
    record = make_record(make_spec(1))
    name = f"trials/{record.trial}.json"
    good = ledger.files.read(name)
    damage(ledger, name, good[:-20])
    ledger.files = files = Meddled(ledger.files, name, good, moment)
    mine = make_record(make_spec(1), notes=("mine",))
    stored = ledger.put(mine)
    (aside,) = kept(ledger)
    assert files.read(f"damaged/trials/{aside}") == good[:-20], "what was judged is kept, not what came since"
    assert not files.deleted, "one record replaces another; at no moment is there none"
    assert ledger.get(record.trial) == (mine if stored else record) and ledger.verify() == []
    assert stored is (moment == 2), "the other worker was first, or came after the last look"
