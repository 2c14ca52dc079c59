"""A ledger in one file is read where it lies, cannot be written to, and shows any change."""

import pyarrow.parquet as pq
import pytest

from tuneopt import api
from tuneopt.ledger import open_ledger
from tuneopt.ledger.packed import pack
from tuneopt.reporting.example import example_ledger
from tuneopt.spec import InputError


@pytest.fixture
def packed(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEOPT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "study" / "ledger.parquet"
    assert api.pack(example_ledger(), path) > len(example_ledger().ids()) > 100
    return path


def test_a_packed_ledger_is_read_as_the_one_it_was_made_of(packed):
    for address in (packed, packed.parent, str(packed)):
        ledger = open_ledger(address, must_exist=True)
        assert ledger.ids() == example_ledger().ids() and api.verify(ledger).problems == []
    ledger = open_ledger(packed, must_exist=True)
    assert list(ledger.records()) == list(example_ledger().records())
    assert ledger.sweeps() == example_ledger().sweeps() and ledger.runs() == example_ledger().runs()


def test_it_packs_to_the_same_bytes_again(packed):
    assert pack(open_ledger(packed, must_exist=True).files)[0] == packed.read_bytes()


def test_nothing_is_recorded_in_it(packed):
    before = packed.read_bytes()
    for act in (open_ledger, api.mend, api.compact, api.clean):
        with pytest.raises(InputError, match="packed ledger, which is only read; `tuneopt ledger unpack"):
            act(str(packed.parent))
    assert packed.read_bytes() == before and [each.name for each in packed.parent.iterdir()] == ["ledger.parquet"]


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


def test_a_damaged_ledger_is_not_packed(packed, tmp_path):
    api.unpack(packed, tmp_path / "grown")
    record = next((tmp_path / "grown" / "trials").iterdir())
    record.write_bytes(record.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged"):
        api.pack(str(tmp_path / "grown"), tmp_path / "again.parquet")
    assert not (tmp_path / "again.parquet").exists()
    with pytest.raises(InputError, match=r"name it again\.parquet"):
        api.pack(example_ledger(), tmp_path / "again.json")
