"""Names from outside never lead out of the folder that they belong to, and links are not written through."""

import json
import os
from pathlib import Path

import pytest
import seeds as samples

from tuneopt.data import open_corpus
from tuneopt.data.manifest import DamagedCorpusError, Shard
from tuneopt.ledger import Ledger
from tuneopt.spec import InputError

OUTWARD = ["../x", "/etc/passwd", "a/b", "..", ".", "", "a\x00b", "a\nb", "x" * 300, ".hidden", "a\\..\\b/c", "é"]
SHARDS = ["../train-00000.arrow", "/train-00000.arrow", "x/train-00000.arrow", "train.arrow", "", "train-00000.arrow\n",
          "manifest.json", "..", "TRAIN-00000.arrow", "train-0.arrow"]  # fmt: skip


@pytest.mark.parametrize("name", OUTWARD)
def test_ids_of_trials_and_sweeps_are_plain_names(name: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for ask in (ledger.has, ledger.get, ledger.checkpoint_dir, lambda each: ledger.put_sweep(each, {})):
        with pytest.raises(InputError, match="no id"):
            ask(name)
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize("name", SHARDS)
def test_shards_lie_in_their_own_folder(name: str) -> None:
    with pytest.raises(InputError, match=r"train-00000\.arrow"):
        Shard(name, 10, 10, "0" * 64)


def test_a_manifest_that_points_outwards_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    folder = samples.corpus(tmp_path)
    secret = tmp_path / "secret.arrow"
    secret.write_text("precious")
    plain = json.loads((folder / "manifest.json").read_text())
    plain["splits"]["train"]["shards"][0] |= {"file": "../../../secret.arrow", "bytes": 8}
    (folder / "manifest.json").write_text(json.dumps(plain))
    with pytest.raises(DamagedCorpusError, match="must have a name such as") as refusal:
        open_corpus(folder)
    assert "precious" not in str(refusal.value)


def test_a_record_that_is_a_link_elsewhere_tells_nothing_of_what_it_found(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("password: precious")
    ledger = Ledger(tmp_path / "ledger")
    ledger.put(samples.record())
    (tmp_path / "ledger" / "trials" / "00000000000000aa.json").symlink_to(secret)
    with pytest.raises(InputError, match="damaged") as refusal:
        ledger.get("00000000000000aa")
    assert "precious" not in str(refusal.value)
    assert all("precious" not in problem for problem in ledger.verify())


def test_a_link_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    ledger = Ledger(tmp_path / "ledger")
    ledger.put_sweep("a", {"first": 1})
    for name in ("sweeps/b.json", "compacted/trials.parquet"):
        place = tmp_path / "ledger" / name
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(victim)
    ledger.put_sweep("b", {"second": 2})
    ledger.put(samples.record())
    ledger.compact()
    assert victim.read_text() == "precious"
    assert ledger.sweeps()["b"] == {"second": 2}


def test_a_record_is_never_written_through_a_dangling_link(tmp_path: Path) -> None:
    ledger, record, target = Ledger(tmp_path / "ledger"), samples.record(), tmp_path / "elsewhere.json"
    ledger.put_run({})
    place = tmp_path / "ledger" / "trials" / f"{record.trial}.json"
    place.parent.mkdir()
    place.symlink_to(target)
    ledger.put(record)
    assert not target.exists()


def test_clearing_checkpoints_does_not_follow_a_link(tmp_path: Path) -> None:
    from tuneopt.training.checkpoint import CheckpointStore

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    linked = tmp_path / "checkpoints"
    linked.symlink_to(precious, target_is_directory=True)
    CheckpointStore(linked).clear()
    assert (precious / "file").read_text() == "kept"


@pytest.mark.skipif(os.name != "posix", reason="pipes with names are POSIX")
def test_a_pipe_in_a_ledger_does_not_hold_a_reader_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.put(samples.record())
    os.mkfifo(tmp_path / "ledger" / "trials" / "00000000000000aa.json")
    assert len(list(ledger.records())) == 1
