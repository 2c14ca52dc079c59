import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_samples import make_record, make_spec

from tuneopt import api
from tuneopt.ledger import Ledger, open_ledger
from tuneopt.spec import InputError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    for seed in range(3):
        ledger.put(make_record(make_spec(seed)))
    ledger.put_sweep("sweep", {"a": 1})
    ledger.put_run({"a": 1})
    ledger.compact()
    assert ledger.verify() == []
    return ledger


def rewrite(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return act


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda path: path.write_text(path.read_text()[:-30]), "truncated"),
        (lambda path: path.write_text(""), "truncated"),
        (lambda path: path.write_bytes(b"\x00" * 900), "truncated"),
        (rewrite(lambda tree: tree.pop("curve")), "lacks the field curve"),
        (rewrite(lambda tree: tree.update(extra=1)), "no field 'extra'"),
        (rewrite(lambda tree: tree.update(schema=7)), "upgrade"),
        (rewrite(lambda tree: tree.update(schema=None)), "no known schema"),
        (rewrite(lambda tree: tree.update(select_loss=float("nan"))), "NaN"),
        (rewrite(lambda tree: tree.update(report_loss=float("inf"))), "Infinity"),
        (rewrite(lambda tree: tree["spec"].update(seed=99)), "hash"),
        (rewrite(lambda tree: tree["spec"]["hyperparameters"].update(learning_rate=0.1)), "hash"),
    ],
)
def test_a_damaged_record_is_found_and_stops_reading(ledger: Ledger, damage: Callable[[Path], None], word: str) -> None:
    trial = ledger.ids()[1]
    path = Path(ledger.uri) / "trials" / f"{trial}.json"
    damage(path)
    before = path.read_bytes()
    problems = ledger.verify()
    assert any(problem.startswith(f"trials/{trial}.json: ") and word in problem for problem in problems)
    assert all("\n" not in problem for problem in problems)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match=r"damaged.*move it away|upgrade tuneopt"):
        ledger.get(trial)
    with pytest.raises(InputError, match=r"damaged|upgrade tuneopt"):
        ledger.compact()


def test_a_record_under_another_name_is_found(ledger: Ledger) -> None:
    folder, (first, second, _) = Path(ledger.uri) / "trials", ledger.ids()
    (folder / f"{second}.json").write_bytes((folder / f"{first}.json").read_bytes())
    assert f"trials/{second}.json: holds the record of trial {first}" in ledger.verify()
    with pytest.raises(InputError, match="holds the record"):
        ledger.get(second)


def test_a_changed_number_that_is_still_plausible_does_not_fit_the_seal(ledger: Ledger) -> None:
    trial = ledger.ids()[0]
    rewrite(lambda tree: tree.update(select_loss=3.4))(Path(ledger.uri) / "trials" / f"{trial}.json")
    (problem,) = ledger.verify()
    assert f"trials/{trial}.json: its seal does not fit" in problem


def test_without_a_seal_it_disagrees_with_the_compaction(ledger: Ledger) -> None:
    trial = ledger.ids()[0]
    rewrite(lambda tree: (tree.pop("seal"), tree.update(select_loss=3.4)))(
        Path(ledger.uri) / "trials" / f"{trial}.json"
    )
    (problem,) = ledger.verify()
    assert f"disagrees with trials/{trial}.json" in problem


def test_left_over_and_foreign_files_are_found_and_kept(ledger: Ledger) -> None:
    folder = Path(ledger.uri) / "trials"
    dead = folder / ".a.json~elsewhere~12~ab.tmp"
    dead.write_text("{")
    os.utime(dead, (time.time() - 7200,) * 2)
    young = folder / ".b.json~elsewhere~12~ab.tmp"
    young.write_text("{")
    (folder / "notes.txt").write_text("mine")
    problems = ledger.verify()
    assert len(problems) == 2
    assert any("notes.txt: not a record" in problem for problem in problems)
    assert any(dead.name in problem and "left behind" in problem for problem in problems)
    assert dead.exists() and young.exists()
    assert len(ledger.ids()) == 3


def test_damaged_sweeps_runs_and_markers_are_found(ledger: Ledger) -> None:
    root = Path(ledger.uri)
    (root / "sweeps" / "sweep.json").write_text("{")
    next((root / "runs").iterdir()).write_text("[]")
    (root / "ledger.json").write_text("{}")
    problems = "\n".join(ledger.verify())
    assert "sweeps/sweep.json: " in problems and "runs/" in problems and "another program" in problems
    with pytest.raises(InputError, match=r"sweeps/sweep.json .* damaged"):
        ledger.sweeps()
    (root / "ledger.json").unlink()
    assert any("ledger.json: missing" in problem for problem in ledger.verify())


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff\xfe.json"), "a\nb.json", "{trial}.json.bak", "notes.txt"])
def test_a_file_that_no_document_is_called_is_named_and_set_aside(ledger: Ledger, name: str) -> None:
    trials = Path(ledger.uri) / "trials"
    name = name.format(trial=ledger.ids()[0])
    (trials / name).write_bytes((trials / f"{ledger.ids()[0]}.json").read_bytes())
    (problem,) = ledger.verify()
    assert "not a record; move it away" in problem and problem.isprintable()
    assert len(list(ledger.records())) == 3 and ledger.compact() == 3
    (sentence,) = ledger.mend()
    assert "has a name that no document has" in sentence and sentence.isprintable()
    assert ledger.verify() == [] and len(list((Path(ledger.uri) / "damaged" / "trials").iterdir())) == 1


def test_a_marker_that_was_cut_short_is_named_by_readers_and_mended(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    (Path(ledger.uri) / "ledger.json").write_text("")
    open_ledger(ledger.uri, must_exist=True)
    assert "ledger.json was cut short" in caplog.text
    assert any(problem.startswith("ledger.json: ") for problem in ledger.verify())
    (sentence,) = Ledger(ledger.uri).mend()
    assert "ledger.json" in sentence and "cut short" in sentence and ledger.verify() == []


def test_a_folder_that_leads_nowhere_is_no_empty_ledger(ledger: Ledger) -> None:
    """As where a disk is not mounted."""
    trials = Path(ledger.uri) / "trials"
    trials.rename(trials.with_name("away"))
    trials.symlink_to("/nonexistent/disk")
    for read in (ledger.ids, ledger.table, lambda: list(ledger.records()), ledger.verify, ledger.mend):
        with pytest.raises(InputError, match="trials/ of the ledger is a link to nothing; mount what it leads to"):
            read()


def test_whoever_reads_says_that_records_are_gone(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    trial = ledger.ids()[0]
    ledger.put_run({"run": [trial, ledger.ids()[1]]})
    (Path(ledger.uri) / "trials" / f"{trial}.json").unlink()
    assert ledger.table().num_rows == len(list(ledger.records())) == 2
    assert (
        caplog.text.count(f"1 record is gone from {ledger.uri} that accounts of runs tell of (trials/{trial}.json)")
        == 1
    )
    found = api.verify(ledger)
    assert len(found.gone) == 1 and set(found.gone) < set(found.problems)


def test_a_ledger_that_lost_a_record_is_packed_as_it_is(ledger: Ledger, tmp_path_factory, caplog) -> None:
    ledger.put_run({"run": ledger.ids()})
    for name in (f"trials/{ledger.ids()[0]}.json", "sweeps/sweep.json"):  # the second describes no sweep
        ledger.files.delete(name)
    target = tmp_path_factory.mktemp("packed") / "p.parquet"
    api.pack(ledger, target)
    assert "1 document is gone, and is not packed" in caplog.text
    assert len(Ledger(open_ledger(target, must_exist=True).uri).ids()) == 2


def test_a_broken_seal_is_not_called_one_of_an_earlier_release(ledger: Ledger) -> None:
    path = Path(ledger.uri) / "trials" / f"{ledger.ids()[0]}.json"
    path.write_bytes(path.read_bytes() + b"\n")
    found = ledger.findings()
    assert len(found.problems) == 1 and "seal" in found.problems[0] and found.unsealed == []


def test_a_record_that_meets_a_deleted_ledger_is_stored_whole_and_says_so(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(ledger.uri)
    assert ledger.put(make_record(make_spec(7)))
    assert "was deleted or moved while this ran" in caplog.text
    assert ledger.verify() == [] and len(open_ledger(ledger.uri, must_exist=True).ids()) == 1
