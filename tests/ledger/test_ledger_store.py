import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from ledger_samples import make_record, make_spec
from pyarrow.fs import FileInfo, LocalFileSystem, SubTreeFileSystem

from tuneopt.ledger import Ledger, find_record, open_ledger, short_rows
from tuneopt.ledger.files import LocalFiles, RemoteFiles
from tuneopt.ledger.record import TrialRecord
from tuneopt.spec import InputError


@pytest.fixture(params=["local", "remote"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """A ledger on a local folder, and one on a pyarrow file system."""
    ledger = Ledger(tmp_path / "ledger")
    if request.param == "remote":
        (tmp_path / "bucket").mkdir()
        ledger.files = RemoteFiles(SubTreeFileSystem(str(tmp_path / "bucket"), LocalFileSystem()), "some/prefix/")
    return ledger


def test_put_get_has_ids_records(ledger: Ledger) -> None:
    records = {record.trial: record for record in (make_record(make_spec(seed)) for seed in range(3))}
    assert ledger.ids() == [] and list(ledger.records()) == []
    assert not ledger.has("0" * 16) and ledger.get("0" * 16) is None
    for record in records.values():
        assert ledger.put(record)
    assert ledger.ids() == sorted(records)
    assert [record.trial for record in ledger.records()] == sorted(records)
    for trial, record in records.items():
        assert ledger.has(trial)
        assert ledger.get(trial) == record
    assert ledger.verify() == []


def test_the_first_writer_wins(ledger: Ledger) -> None:
    first, second = make_record(loss=3.5), make_record(loss=3.4)
    assert first.trial == second.trial
    assert ledger.put(first) is True
    assert ledger.put(second) is False
    assert ledger.get(first.trial) == first


def test_sweeps_are_replaced_and_runs_are_kept_in_order(ledger: Ledger) -> None:
    ledger.put_sweep("abc", {"state": "open"})
    ledger.put_sweep("abc", {"state": "certified", "path": (1, 2)})
    names = [ledger.put_run({"number": number, "loss": float("nan")}) for number in range(3)]
    assert ledger.sweeps() == {"abc": {"state": "certified", "path": [1, 2]}}
    assert list(ledger.runs()) == sorted(names)
    assert [run["number"] for run in ledger.runs().values()] == [0, 1, 2]
    assert ledger.runs()[names[0]]["loss"] == "nan"


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "a" * 200])
def test_ids_cannot_leave_the_ledger(ledger: Ledger, name: str) -> None:
    for act in (ledger.get, ledger.has, ledger.checkpoint_dir, lambda name: ledger.put_sweep(name, {})):
        with pytest.raises(InputError):
            act(name)


def test_checkpoints_lie_inside_a_local_ledger_only(tmp_path: Path) -> None:
    assert Ledger(tmp_path).checkpoint_dir("abc") == tmp_path / "checkpoints" / "abc"
    ledger = Ledger(tmp_path)
    ledger.files = RemoteFiles(LocalFileSystem(), str(tmp_path))
    with pytest.raises(InputError, match="local folder"):
        ledger.checkpoint_dir("abc")


def test_nothing_is_written_before_the_first_put(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "deep" / "ledger")
    assert ledger.table().num_rows == 0 and ledger.curves().num_rows == 0 and ledger.compact() == 0
    assert list(tmp_path.iterdir()) == []
    ledger.put(make_record())
    assert json.loads((tmp_path / "deep/ledger/ledger.json").read_text()) == {"kind": "tuneopt ledger", "schema": 1}
    assert open_ledger(tmp_path / "deep/ledger", must_exist=True).ids() == [make_record().trial]


def test_a_ledger_travels_to_workers_with_another_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Ledger("here").put(make_record())
    ledger = pickle.loads(pickle.dumps(Ledger("here")))
    monkeypatch.chdir("/")
    assert ledger.ids() == [make_record().trial]
    assert ledger.uri == Ledger(f"file://{tmp_path}/here").uri == str(tmp_path / "here")


def refused(uri: str | Path, must_exist: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        open_ledger(uri, must_exist)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_places_that_are_no_ledger_are_refused_with_the_mend(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello")
    assert "is a file; give a folder" in refused(file)
    assert "lies inside" in refused(file / "below")
    assert "no ledger at" in refused(tmp_path / "absent", must_exist=True)
    assert "is not a ledger" in refused(tmp_path, must_exist=True)
    assert open_ledger(tmp_path).ids() == []
    assert "did you mean 's3'" in refused("s4://bucket/x")
    assert "empty" in refused(" ")
    assert "another host" in refused("file://host/x")


@pytest.mark.parametrize(
    ("marker", "word"),
    [
        ('{"kind": "tuneopt ledger", "schema": 2}', "upgrade tuneopt"),
        ('{"kind": "tuneopt ledger", "schema": "x"}', "no known schema"),
        ('{"kind" "tuneopt le', "damaged"),
        ('{"kind": "a bank", "schema": 1}', "another program"),
    ],
)
def test_a_foreign_marker_is_refused_and_never_written_under(tmp_path: Path, marker: str, word: str) -> None:
    (tmp_path / "ledger.json").write_text(marker)
    assert word in refused(tmp_path)
    with pytest.raises(InputError, match=word):
        Ledger(tmp_path).put(make_record())
    assert Ledger(tmp_path).ids() == []


def test_an_unreadable_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", denied)
    assert "cannot be read by this user" in refused(tmp_path)


def test_an_unreachable_object_store_is_one_line(tmp_path: Path) -> None:
    class Broken(LocalFiles):
        def exists(self, name: str) -> bool:
            raise OSError("network\nunreachable")

    from tuneopt.ledger import place

    with pytest.raises(InputError, match="network unreachable"):
        place.inspect("s3://bucket/x", Broken(tmp_path), must_exist=True)


def test_without_hard_links_the_first_writer_still_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    contenders = [make_record(loss=3.0 + number / 10) for number in range(8)]
    barrier = Barrier(len(contenders))

    def put(record: TrialRecord) -> bool:
        barrier.wait()
        return Ledger(tmp_path).put(record)

    with ThreadPoolExecutor(len(contenders)) as pool:
        won = list(pool.map(put, contenders))
    assert won.count(True) == 1
    assert Ledger(tmp_path).get(contenders[0].trial) == contenders[won.index(True)]
    assert Ledger(tmp_path).verify() == []


def test_a_vanished_object_is_left_out_of_a_bulk_read(tmp_path: Path) -> None:
    files = RemoteFiles(LocalFileSystem(), str(tmp_path))
    files.replace("trials/a.json", b"1")
    assert list(files.read_all(["trials/a.json", "trials/b.json"])) == [("trials/a.json", b"1")]
    assert isinstance(files.filesystem.get_file_info(str(tmp_path)), FileInfo)
    assert files.names("nowhere") == [] and files.stray("trials") == []


def test_listing_and_finding_by_prefix(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    records = [make_record(make_spec(seed), loss=None if seed == 0 else 3.0 + seed) for seed in range(20)]
    for record in records:
        ledger.put(record)
    rows = short_rows(ledger)
    assert [row["select_loss"] for row in rows] == [*(3.0 + seed for seed in range(1, 20)), None]
    assert rows[0]["seconds"] == 23.5 and rows[0]["proof_passed"] is True
    one = records[5]
    assert find_record(ledger, one.trial) == one
    assert find_record(ledger, one.trial[:12]) == one
    with pytest.raises(InputError, match="begins with 'zz'"):
        find_record(ledger, "zz")
    with pytest.raises(InputError, match="begins with ''"):
        find_record(ledger, "")
    digits = [trial[0] for trial in ledger.ids()]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(InputError, match="ambiguous") as caught:
        find_record(ledger, twice)
    assert all(trial in str(caught.value) for trial in ledger.ids() if trial.startswith(twice))
