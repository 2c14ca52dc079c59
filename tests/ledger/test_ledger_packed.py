"""A ledger in one file is read where it lies, cannot be written to, and shows any change."""

import errno
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneopt import api
from tuneopt.ledger import open_ledger
from tuneopt.ledger import packed as packed_ledgers
from tuneopt.ledger.files import LocalFiles
from tuneopt.ledger.packed import _SEAL_KEY, _digest, pack
from tuneopt.ledger.place import MARKER, marker_text
from tuneopt.reporting.example import example_ledger
from tuneopt.reporting.study import read_study
from tuneopt.spec import InputError


@pytest.fixture(scope="module")
def packed_once(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "ledger.parquet"
    assert api.pack(example_ledger(), path) > len(example_ledger().ids()) > 100
    return path


@pytest.fixture
def packed(packed_once, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEOPT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "study" / "ledger.parquet"
    path.parent.mkdir()
    return Path(shutil.copy(packed_once, path))


def test_a_packed_ledger_is_read_as_the_one_it_was_made_of(packed):
    for address in (packed, packed.parent, str(packed)):
        ledger = open_ledger(address, must_exist=True)
        assert ledger.ids() == example_ledger().ids() and api.verify(ledger).problems == []
    ledger = open_ledger(packed, must_exist=True)
    assert list(ledger.records()) == list(example_ledger().records())
    assert ledger.sweeps() == example_ledger().sweeps() and ledger.runs() == example_ledger().runs()


def test_it_packs_to_the_same_bytes_again(packed):
    assert pack(open_ledger(packed, must_exist=True).files)[0] == packed.read_bytes()


@pytest.fixture
def two_studies(tmp_path):
    """The example's trials as those of two studies in one ledger: SOAP's sweeps and accounts are the second one's."""
    known, ledger = example_ledger(), open_ledger(tmp_path / "both")
    for record in known.records():
        ledger.put(record)
    for sweep, plain in known.sweeps().items():
        study = "second" if plain["space"]["optimizer"] == "soap" else "first"
        ledger.put_sweep(sweep, {**plain, "study": study, "study_id": study[:1] * 16})
    for plain in known.runs().values():
        ledger.put_run(plain)
    return ledger


@pytest.mark.parametrize("word", ["second", "s" * 16])
def test_one_study_of_a_ledger_can_be_packed_alone(two_studies, tmp_path, word):
    ours = [sweep for sweep, plain in two_studies.sweeps().items() if plain["study"] == "second"]

    api.pack(two_studies, tmp_path / "second" / "ledger.parquet", word)

    alone = open_ledger(tmp_path / "second", must_exist=True)
    assert api.verify(alone).problems == []
    assert list(alone.sweeps()) == ours and len(ours) == len(alone.runs()) + 1 == 3
    whole, part = read_study(two_studies, ours).views, read_study(alone).views
    assert [view.state for view in part] == [view.state for view in whole]
    assert [view.every for view in part] == [view.every for view in whole]
    assert set(alone.ids()) == {trial for view in whole for trial in view.every}


def test_both_packs_together_hold_all_that_the_ledger_does(two_studies, tmp_path):
    packs = []
    for study in ("first", "second"):
        api.pack(two_studies, tmp_path / study / "ledger.parquet", study)
        packs.append(open_ledger(tmp_path / study, must_exist=True))
        assert api.verify(packs[-1]).problems == []
    both = set(packs[0].ids()) | set(packs[1].ids())
    assert both == {trial for view in read_study(two_studies).views for trial in view.every}
    assert sorted([*packs[0].sweeps(), *packs[1].sweeps()]) == sorted(two_studies.sweeps())
    left = two_studies.runs().keys() - packs[0].runs().keys() - packs[1].runs().keys()
    assert ["sweep" in two_studies.runs()[run] for run in left] == [False]  # that of what the sweeps of both share


def test_a_study_that_the_ledger_does_not_have_is_not_packed(two_studies, tmp_path):
    with pytest.raises(InputError, match="no sweep of a study 'secnd'; did you mean 'second'"):
        api.pack(two_studies, tmp_path / "x.parquet", "secnd")
    assert not (tmp_path / "x.parquet").exists()


def test_nothing_is_recorded_in_it(packed):
    before = packed.read_bytes()
    for act in (open_ledger, api.mend, api.compact, api.clean):
        with pytest.raises(InputError, match="packed ledger, which is only read; `tuneopt ledger unpack"):
            act(str(packed.parent))
    assert packed.read_bytes() == before and [each.name for each in packed.parent.iterdir()] == ["ledger.parquet"]


def broken_copy(fault, folder):
    """Damage the copy in the cache."""
    record = min((folder / "trials").iterdir())
    if fault == "short":
        record.write_bytes(record.read_bytes()[:-40])
    elif fault == "flip":
        record.write_bytes(record.read_bytes().replace(b"1", b"2", 1))
    elif fault == "gone":
        record.unlink()
    elif fault == "marker gone":
        (folder / MARKER).unlink()
    elif fault in ("file for folder", "link for folder"):
        shutil.move(folder / "trials", folder.parent / "elsewhere")
        if fault == "file for folder":
            (folder / "trials").write_text("")
        else:
            (folder / "trials").symlink_to(folder.parent / "elsewhere")
            shutil.copy(folder.parent / "elsewhere" / record.name, folder.parent / "elsewhere" / "another.json")
    elif fault == "another":
        shutil.copy(record, record.with_name("another.json"))
    else:
        record.unlink()
        record.mkdir() if fault == "folder" else record.symlink_to("nowhere")


@pytest.mark.parametrize("fault", ["short", "flip", "gone", "marker gone", "another", "folder", "dead link",
                                   "file for folder", "link for folder"])  # fmt: skip
def test_a_damaged_copy_in_the_cache_is_made_again(packed, tmp_path, fault):
    expected = list(open_ledger(packed, must_exist=True).records())
    (folder,) = (tmp_path / "cache" / "ledgers").iterdir()
    broken_copy(fault, folder)
    left = {path: path.stat().st_mtime_ns for path in (folder / "sweeps").iterdir()}

    again = open_ledger(packed, must_exist=True)

    assert list(again.records()) == expected and api.verify(again).problems == []
    assert {path: path.stat().st_mtime_ns for path in (folder / "sweeps").iterdir()} == left
    elsewhere = tmp_path / "cache" / "ledgers" / "elsewhere"
    assert fault != "link for folder" or (elsewhere / "another.json").exists(), "nothing is deleted through a link"


def test_an_unpacking_that_was_interrupted_is_repeated(packed, tmp_path, monkeypatch):
    target, full = tmp_path / "grown", iter(range(60))

    def write(self, name, data, whole=LocalFiles.replace):
        if next(full, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(self, name, data)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(LocalFiles, "replace", write)
        api.unpack(packed, target)
    with pytest.raises(InputError, match="is not a ledger"):  # half of one would pass for the whole
        open_ledger(target, must_exist=True)
    api.unpack(packed, target)
    assert list(open_ledger(target, must_exist=True).records()) == list(example_ledger().records())


@pytest.mark.parametrize("name", ["trials/0000.json", "trials/{known}"])
def test_it_is_not_unpacked_among_documents_of_another_ledger(packed, tmp_path, name):
    known = min(path.name for path in (Path(example_ledger().uri) / "trials").iterdir())
    other = tmp_path / "other" / name.format(known=known)
    other.parent.mkdir(parents=True)
    other.write_text("{}\n")
    with pytest.raises(InputError, match=rf"holds trials/{other.name}, which is not of .*; give another folder"):
        api.unpack(packed, tmp_path / "other")
    assert list((tmp_path / "other").rglob("*.json")) == [other] and other.read_text() == "{}\n"


def test_unpacked_it_can_grow(packed, tmp_path):
    count = api.unpack(packed.parent, tmp_path / "grown")
    ledger = open_ledger(tmp_path / "grown")
    assert ledger.ids() == example_ledger().ids() and count > len(ledger.ids())
    with pytest.raises(InputError, match="holds a ledger already"):
        api.unpack(packed, tmp_path / "grown")
    with pytest.raises(InputError, match="no packed ledger at"):
        api.unpack(tmp_path / "grown", tmp_path / "again")


def test_it_is_not_written_among_the_files_of_a_ledger(packed, tmp_path):
    api.unpack(packed, tmp_path / "grown")
    with pytest.raises(InputError, match="has files of its own"):
        api.pack(str(tmp_path / "grown"), tmp_path / "grown" / "trials" / "all.parquet")
    assert api.verify(str(tmp_path / "grown")).problems == []


def test_a_ledger_beside_its_packed_copy_is_the_one_that_is_meant(packed, tmp_path):
    api.unpack(packed, tmp_path / "both")
    (tmp_path / "both" / "ledger.parquet").write_bytes(b"an older copy")
    assert open_ledger(tmp_path / "both").ids() == example_ledger().ids()


@pytest.mark.parametrize("fault", ["flip", "short", "text", "another table"])
def test_a_file_that_was_changed_is_refused(packed, fault):
    data = packed.read_bytes()
    if fault == "flip":
        packed.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif fault == "short":
        packed.write_bytes(data[:-100])
    elif fault == "text":
        table = pq.read_table(packed)
        texts = table["text"].to_pylist()
        texts[7] = texts[7].replace("1", "2", 1)
        pq.write_table(table.set_column(1, "text", [texts]).replace_schema_metadata(table.schema.metadata), packed)
    else:
        pq.write_table(pq.read_table(packed).rename_columns(["a", "b"]), packed)
    with pytest.raises(InputError, match=r"is damaged|no packed ledger"):
        open_ledger(packed, must_exist=True)


MARKED = (MARKER, marker_text().decode())


def forged(path, rows, kind):
    """A file as `pack` makes it, with a seal that fits, of rows that nobody packed."""
    names, texts = zip(*rows, strict=True)
    table = pa.table({"name": pa.array(names, kind), "text": pa.array(texts, pa.string())})
    pq.write_table(table.replace_schema_metadata({_SEAL_KEY: _digest(table).encode()}), path)


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        ([MARKED, ("../evil", "x")], pa.string(), r"'\.\./evil' is no document of a ledger"),
        ([MARKED, ("{outside}/evil", "x")], pa.string(), r"evil' is no document of a ledger"),
        ([MARKED, ("trials/../../evil.json", "x")], pa.string(), "is no document of a ledger"),
        ([MARKED, ("trials/a/b.json", "x")], pa.string(), "is no document of a ledger"),
        ([MARKED, ("trials/.a.json", "x")], pa.string(), "is no document of a ledger"),
        ([MARKED, ("trials/a\0.json", "x")], pa.string(), "is no document of a ledger"),
        ([MARKED, ("trials/" + "a" * 300 + ".json", "x")], pa.string(), "is no document of a ledger"),
        ([MARKED, ("trials/a.yaml", "x")], pa.string(), "is no document of a ledger"),
        ([MARKED, ("leases/a.json", "x")], pa.string(), "is no document of a ledger"),
        ([MARKED, ("trials", "x"), ("trials/a.json", "{}")], pa.string(), "'trials' is no document of a ledger"),
        ([MARKED, ("", "x")], pa.string(), "'' is no document of a ledger"),
        ([MARKED, ("trials/a.json", "{}"), ("trials/a.json", "{1}")], pa.string(), "holds 'trials/a.json' twice"),
        ([MARKED, ("trials/a.json", None)], pa.string(), "not all of its names and documents are texts"),
        ([MARKED, (None, "x")], pa.string(), "not all of its names and documents are texts"),
        ([(1, MARKED[1])], pa.int64(), "not all of its names and documents are texts"),
        ([("trials/a.json", "{}")], pa.string(), "lacks ledger.json"),
        ([(MARKER, '{"kind": "tuneopt ledger", "schema": 99}')], pa.string(), "upgrade tuneopt"),
        ([(MARKER, "{}")], pa.string(), "belongs to another program"),
    ],
)
def test_a_sealed_file_of_what_is_no_ledger_writes_nothing(tmp_path, monkeypatch, rows, kind, said):
    monkeypatch.setenv("TUNEOPT_CACHE", str(tmp_path / "cache" / "deep"))
    rows = [(name.format(outside=tmp_path) if isinstance(name, str) else name, text) for name, text in rows]
    forged(tmp_path / "evil.parquet", rows, kind)
    for read in (
        lambda: open_ledger(tmp_path / "evil.parquet", must_exist=True),
        lambda: api.unpack(tmp_path / "evil.parquet", tmp_path / "out" / "deep"),
    ):
        with pytest.raises(InputError, match=said):
            read()
    assert [each.name for each in tmp_path.rglob("*")] == ["evil.parquet"]


def test_a_text_that_a_few_bytes_repeat_too_often_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.parquet"
    names = [f"trials/{number:016x}.json" for number in range(1000)]
    forged(path, [MARKED, *((name, "x" * 1000) for name in names)], pa.string())
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(packed_ledgers, "LARGEST_UNPACKED", 1 << 20)
    open_ledger(path, must_exist=True)
    forged(path, [MARKED, *((name, "x" * 2000) for name in names)], pa.string())
    with pytest.raises(InputError, match="unpacks to more than"):
        open_ledger(path, must_exist=True)


def test_texts_that_are_no_unicode_are_refused(packed):
    table = pq.read_table(packed)
    broken = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    raw = pa.table({"name": broken, "text": pa.array(["x"])}).replace_schema_metadata(table.schema.metadata)
    pq.write_table(raw, packed)
    with pytest.raises(InputError, match="no packed ledger, or damaged"):
        open_ledger(packed, must_exist=True)


def test_a_damaged_ledger_is_not_packed(packed, tmp_path):
    api.unpack(packed, tmp_path / "grown")
    record = next((tmp_path / "grown" / "trials").iterdir())
    record.write_bytes(record.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged"):
        api.pack(str(tmp_path / "grown"), tmp_path / "again.parquet")
    assert not (tmp_path / "again.parquet").exists()
    with pytest.raises(InputError, match=r"name it again\.parquet"):
        api.pack(example_ledger(), tmp_path / "again.json")
