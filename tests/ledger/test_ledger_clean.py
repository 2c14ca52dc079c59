"""What no run needs: found with its reason, removed only when asked, and nothing else goes."""

import json
import os
import time
from pathlib import Path

import pytest
from ledger_samples import make_record, make_spec
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from tuneopt import api
from tuneopt.ledger import Ledger
from tuneopt.ledger.clean import clean_cache, leftovers, remove
from tuneopt.ledger.files import RemoteFiles

DAY = 86400.0


@pytest.fixture(params=["local", "remote"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger")
    if request.param == "remote":
        ledger.files = RemoteFiles(SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "ledger")
    ledger.put(make_record(make_spec(0)))
    for seed, age in ((0, 0.0), (1, 0.0), (2, 40 * DAY)):
        folder = tmp_path / "ledger" / "checkpoints" / make_spec(seed).id
        folder.mkdir(parents=True)
        for name in ("step-000000001.pt", "step-000000002.pt"):
            (folder / name).write_bytes(b"x" * 100)
            os.utime(folder / name, (time.time() - age,) * 2)
    (tmp_path / "ledger" / "weights" / make_spec(0).id).mkdir(parents=True)
    (tmp_path / "ledger" / "weights" / make_spec(0).id / "model.safetensors").write_bytes(b"kept")
    return ledger


def checkpoints(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "ledger" / "checkpoints").iterdir() if any(path.iterdir())}


def test_checkpoints_of_recorded_trials_go_and_those_of_unfinished_ones_stay(ledger: Ledger, tmp_path: Path) -> None:
    (found,) = leftovers(ledger)
    assert found.name == f"checkpoints/{make_spec(0).id}/" and found.bytes == 200 and "has its record" in found.why
    assert len(checkpoints(tmp_path)) == 3, "looking removes nothing"
    remove(ledger, [found])
    assert checkpoints(tmp_path) == {make_spec(1).id, make_spec(2).id}
    assert (tmp_path / "ledger" / "weights" / make_spec(0).id / "model.safetensors").read_bytes() == b"kept"
    assert leftovers(ledger) == [] and ledger.ids() == [make_spec(0).id]


def test_what_nobody_wrote_to_for_long_goes_when_asked(ledger: Ledger) -> None:
    found = {each.name: each.why for each in leftovers(ledger, older_than=30 * DAY)}
    assert set(found) == {f"checkpoints/{make_spec(seed).id}/" for seed in (0, 2)}
    assert "untouched for 40.0 days" in found[f"checkpoints/{make_spec(2).id}/"]


def test_leftovers_of_dead_writers_go(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put(make_record(make_spec(0)))
    dead = tmp_path / "trials" / ".a.json~elsewhere~12~ab.tmp"
    dead.write_text("{")
    os.utime(dead, (time.time() - 7200,) * 2)
    done = api.clean(str(tmp_path), dry_run=True)
    assert [leftover.name for leftover in done.leftovers] == [f"trials/{dead.name}"] and not done.removed
    assert dead.exists()
    assert api.clean(str(tmp_path)).removed and not dead.exists()
    assert ledger.ids() == [make_spec(0).id] and ledger.verify() == []


def test_the_cache_of_a_machine_keeps_nothing_of_a_recorded_trial(ledger: Ledger, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "checkpoints"
    for seed in (0, 1):
        (cache / make_spec(seed).id).mkdir(parents=True)
        (cache / make_spec(seed).id / "step-000000001.pt").write_bytes(b"x")
    found = clean_cache(ledger, cache, dry_run=False)
    if ledger.is_local:
        assert found == [], "beside a local ledger the cache holds no checkpoints of its own"
    else:
        assert [each.bytes for each in found] == [1]
        assert [path.name for path in cache.iterdir()] == [make_spec(1).id]


def test_the_command_names_what_it_does(ledger: Ledger, tmp_path: Path, capsys, monkeypatch) -> None:
    if not ledger.is_local:
        pytest.skip("the command opens its ledger by address")
    from tuneopt import cli

    monkeypatch.setattr("sys.argv", ["tuneopt", "ledger", "clean", "--ledger", ledger.uri, "--dry-run", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bytes"] == 200 and document["removed"] is False
    monkeypatch.setattr("sys.argv", ["tuneopt", "ledger", "mend", "--ledger", ledger.uri])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and "nothing is damaged" in capsys.readouterr().err


def test_checkpoints_of_a_damaged_record_stay_for_the_trial_that_runs_again(ledger: Ledger, tmp_path: Path) -> None:
    ledger.files.replace(f"trials/{make_spec(0).id}.json", b"{")
    assert leftovers(ledger) == [] and len(checkpoints(tmp_path)) == 3


@pytest.mark.parametrize("command", ["compact", "mend", "tidy"])
def test_what_interrupted_writes_left_goes_with_the_next_command_that_writes(tmp_path: Path, command: str) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.put(make_record(make_spec()))
    folders = ("trials", "sweeps", "runs", "comparisons", "studies", "leases", "compacted", "damaged", ".")
    dead = [tmp_path / folder / ".a.json~elsewhere~12~ab.tmp" for folder in folders]
    young = tmp_path / "trials" / ".b.json~elsewhere~12~ab.tmp"
    for path in (*dead, young):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{")
    for path in dead:
        os.utime(path, (time.time() - 7200,) * 2)
    getattr(ledger, command)()
    assert not any(path.exists() for path in dead) and young.exists()
