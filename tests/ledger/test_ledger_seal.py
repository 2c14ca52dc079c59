"""Seals: every changed bit of a sealed file is found; files of earlier releases are read, named, and sealed."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_samples import make_record, make_spec

from tuneopt.checked import NewerSchemaError
from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.ledger.contradictions import in_account, in_record
from tuneopt.ledger.damage import DamagedRecordError
from tuneopt.ledger.seal import seal, seal_lines, unseal, unseal_lines
from tuneopt.optim.factory import implementation
from tuneopt.optim.info import BUILT_IN, OptimizerInfo
from tuneopt.spec import InputError

PLAN = "# A comparison.\nname: compare\nratios: [0.2, 1]\nnote: \u00e9\n"
PLAIN = {"space": {"optimizer": "adamw"}, "note": "\u00e9\n", "rates": [1e-05, 0.1, 3], "empty": {}}


def written(ledger: Ledger) -> dict[str, Path]:
    """A ledger with one document of each kind; their files by folder."""
    ledger.put(make_record(make_spec(1)))
    ledger.put_sweep("sweep", PLAIN)
    ledger.put_plan("question", PLAN)
    run = ledger.put_run({"run": [make_spec(1).id], "wall_seconds": 2.5})
    root = Path(ledger.uri)
    return {
        "trials": root / f"trials/{make_spec(1).id}.json",
        "sweeps": root / "sweeps/sweep.json",
        "runs": root / f"runs/{run}.json",
        "comparisons": root / "comparisons/question.yaml",
    }


def without_seal(path: Path) -> None:
    """As a release before seals wrote it."""
    data = path.read_bytes()
    at = data.rindex(b',"seal":')
    path.write_bytes(data[:at] + b"}\n")


READERS: dict[str, Callable[[Ledger], object]] = {
    "trials": lambda ledger: ledger.get(make_spec(1).id),
    "sweeps": Ledger.sweeps,
    "runs": Ledger.runs,
}


@pytest.mark.parametrize("folder", READERS)
def test_a_document_is_what_it_was_and_its_seal_is_no_part_of_it(tmp_path: Path, folder: str) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)[folder]
    line = path.read_text()
    assert line.endswith("}\n") and line.count("\n") == 1
    assert list(json.loads(line))[-1] == "seal"
    assert ledger.get(make_spec(1).id) == make_record(make_spec(1))
    assert ledger.sweeps() == {"sweep": PLAIN}
    assert list(ledger.runs().values()) == [{"run": [make_spec(1).id], "wall_seconds": 2.5}]
    assert ledger.findings().unsealed == [] and ledger.verify() == []


@pytest.mark.parametrize("folder", READERS)
def test_every_flipped_bit_of_a_sealed_file_is_found(tmp_path: Path, folder: str) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)[folder]
    whole = path.read_bytes()
    bits = range(8 * len(whole)) if folder != "trials" else random.Random(0).sample(range(8 * len(whole)), 2000)
    for bit in bits:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(InputError):
            READERS[folder](ledger)
    path.write_bytes(whole)
    assert ledger.verify() == []


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3))
@settings(deadline=None)
def test_any_object_comes_back_and_no_other_name_takes_its_bytes(plain: dict[str, object]) -> None:
    plain.pop("seal", None)
    data = seal("runs/a.json", json.dumps(plain))
    assert unseal("runs/a.json", data, "JSON") == (plain, "sealed")
    assert unseal("runs/b.json", data, "JSON") == (plain, "broken")


@pytest.mark.parametrize("folder", READERS)
def test_what_an_earlier_release_wrote_is_read_named_and_sealed(tmp_path: Path, folder: str) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)[folder]
    sealed = path.read_bytes()
    without_seal(path)
    READERS[folder](ledger)
    assert ledger.findings().unsealed == [f"{folder}/{path.name}"] and ledger.verify() == []
    (said,) = ledger.mend()
    assert "1 files of an earlier release were sealed" in said
    assert path.read_bytes() == sealed and ledger.mend() == []


def test_a_compaction_seals_records_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)["trials"]
    sealed = path.read_bytes()
    without_seal(path)
    assert ledger.compact() == 1
    assert path.read_bytes() == sealed and ledger.verify() == []


def test_every_flipped_bit_of_a_compaction_is_found_and_said_once(tmp_path: Path, caplog) -> None:
    ledger = Ledger(tmp_path)
    written(ledger)
    ledger.compact()
    before = ledger.table()
    path = tmp_path / "compacted" / "trials.parquet"
    whole = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 300):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert ledger.table().equals(before), "the records' own files are read instead"
        assert any("compacted/trials.parquet" in problem for problem in ledger.verify())
    assert caplog.text.count("was passed over; make it again with `tuneopt ledger compact`") == 1


def test_a_plan_is_what_it_was_and_every_flipped_bit_of_it_is_found(tmp_path: Path, caplog) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)["comparisons"]
    whole = path.read_bytes()
    assert ledger.plan("question") == PLAN and ledger.plan("other") is None and ledger.verify() == []
    assert whole.decode().startswith(PLAN) and whole.count(b"\n") == PLAN.count("\n") + 1
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        assert ledger.plan("question") is None
    assert caplog.text.count("comparisons/question.yaml") == 1 and "planned anew" in caplog.text
    assert ["comparisons/question.yaml" in problem for problem in ledger.verify()] == [True]


def test_a_damaged_plan_makes_room_for_a_new_one_and_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)["comparisons"]
    assert not ledger.put_plan("question", "another: 1\n") and ledger.plan("question") == PLAN
    path.write_bytes(path.read_bytes().replace(b"0.2", b"0.3"))
    assert ledger.put_plan("question", "another: 1\n") and ledger.plan("question") == "another: 1\n"
    (kept,) = (tmp_path / "damaged" / "comparisons").iterdir()
    assert b"0.3" in kept.read_bytes() and ledger.verify() == []


def test_a_plan_of_an_earlier_release_is_read_named_and_sealed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)["comparisons"]
    sealed = path.read_bytes()
    path.write_text(PLAN)
    assert ledger.plan("question") == PLAN and ledger.findings().unsealed == ["comparisons/question.yaml"]
    assert "1 files of an earlier release were sealed" in ledger.mend()[0] and path.read_bytes() == sealed


@given(st.text(), st.integers(0, 80))
@settings(deadline=None)
def test_any_lines_come_back_and_what_is_cut_off_in_the_seal_is_seen(text: str, less: int) -> None:
    text = text.encode(errors="replace").decode()
    data = seal_lines("comparisons/a.yaml", text)
    assert unseal_lines("comparisons/a.yaml", data, "a plan") == (
        text if text.endswith("\n") else text + "\n",
        "sealed",
    )
    assert unseal_lines("comparisons/b.yaml", data, "a plan")[1] == "broken"
    if 0 < less < 73:  # of the last line something is left
        assert unseal_lines("comparisons/a.yaml", data[:-less], "a plan")[1] == "broken"


def test_a_plan_that_is_gone_is_missed_until_the_next_run(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    written(ledger)["comparisons"].unlink()
    (problem,) = ledger.verify()
    assert problem.startswith("comparisons/question.yaml: is gone")
    ledger.put_run({"run": []})
    assert ledger.verify() == []


def test_the_newest_account_is_missed_and_what_names_it_is_mended(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    path, names = written(ledger)["runs"], tmp_path / "last-run.json"
    account = path.read_bytes()
    path.unlink()
    (problem,) = ledger.verify()
    assert path.name in problem and "is gone, and it was the newest account" in problem
    path.write_bytes(account)
    names.write_bytes(names.read_bytes().replace(b'"run"', b'"rum"'))
    (problem,) = ledger.verify()
    assert problem.startswith("last-run.json: its seal does not fit")
    assert "last-run.json" in ledger.mend()[0] and ledger.verify() == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("elsewhere")])
def test_what_stands_in_the_place_of_the_newest_accounts_name_stops_no_run(tmp_path: Path, make: Callable) -> None:
    ledger = Ledger(tmp_path)
    make(tmp_path / "last-run.json")
    ledger.mark()
    (problem,) = ledger.verify()
    assert problem.startswith("last-run.json: is a ")
    run = ledger.put_run({"run": []})
    assert list(ledger.runs()) == [run] and ledger.verify() == [] and not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("version", "newer"), [(b"3", False), (b"9", False), (b"0", False), (b"2", True)])
def test_a_version_that_one_bit_made_is_damage_and_any_later_one_is_left_alone(
    tmp_path: Path, version: bytes, newer: bool
) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)["trials"]
    path.write_bytes(path.read_bytes().replace(b'"schema":1', b'"schema":' + version))
    with pytest.raises(NewerSchemaError if newer else DamagedRecordError, match=r"seal does not fit|no known schema"):
        ledger.get(make_spec(1).id)
    (problem,) = ledger.verify()
    assert problem.startswith(f"trials/{path.name}: ") and ("upgrade tuneopt" in problem) == newer
    ledger.mend()
    assert path.exists() == newer


def unsealed(ledger: Ledger, **changes: object) -> None:
    """A record of an earlier release with changed fields."""
    plain = json.loads(make_record(make_spec(1)).to_json()) | changes
    ledger.mark()
    ledger.files.replace(f"trials/{make_spec(1).id}.json", json.dumps(plain).encode())


SOUND = json.loads(make_record(make_spec(1)).to_json())
POINT = SOUND["curve"][-1]

CONTRADICTIONS = [
    ({"steps": SOUND["steps"] - 1}, "steps"),
    ({"tokens": SOUND["tokens"] + 1}, "tokens"),
    ({"curve": SOUND["curve"][::-1]}, "goes back"),
    ({"curve": SOUND["curve"][:-1]}, "the curve ends at step"),
    ({"curve": [*SOUND["curve"][:-1], {**POINT, "tokens": 1}]}, "1 tokens at step"),
    ({"curve": [*SOUND["curve"][:-1], {**POINT, "train_loss": -1.0}]}, "negative"),
    ({"select_loss": 1.5}, "the curve ends at 3.5"),
    ({"report_loss": 7.5}, "the curve ends at 3.6"),
    ({"initial_loss": -6.9}, "negative"),
    ({"proof": {"passed": True, "checks": [{"name": "adamw.vector", "passed": False}]}}, "own checks"),
    ({"proof": {"passed": False, "status": "passed", "checks": []}}, "status"),
    ({"proof": {"passed": "yes"}}, "another form"),
    ({"proof": {"passed": True, "checks": [{"name": "lion.vector", "passed": True}]}}, "the proof is of lion"),
    ({"routing": [{"parameter": "norm.weight", "rule": "lion"}]}, "no parameter is routed to adamw"),
    ({"ended": "2026-01-30T12:00:23+00:00"}, "before it started"),
]


@pytest.mark.parametrize(("changes", "word"), CONTRADICTIONS)
def test_a_record_that_contradicts_itself_is_damaged_where_no_seal_vouches_for_it(
    tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    ledger = Ledger(tmp_path)
    unsealed(ledger)
    assert ledger.get(make_spec(1).id) == make_record(make_spec(1))
    unsealed(ledger, **changes)
    with pytest.raises(DamagedRecordError, match=word):
        ledger.get(make_spec(1).id)
    (problem,) = ledger.verify()
    assert problem.startswith(f"trials/{make_spec(1).id}.json: ") and word in problem
    assert "kept as damaged/" in ledger.mend()[0] and ledger.verify() == []


@pytest.mark.parametrize("entry", BUILT_IN, ids=lambda entry: entry.name)
def test_a_record_of_every_built_in_optimizer_with_its_own_rules_is_sound(entry: OptimizerInfo) -> None:
    """Some are another one with switches on, and route to that one's rule."""
    spec = replace(make_spec(1), optimizer=entry.name)
    rules = [rule.name for rule in implementation(entry.name).rules]
    own = make_record(
        spec,
        routing=tuple({"parameter": "norm.weight", "rule": rule} for rule in rules),
        proof={"passed": True, "checks": [{"name": f"{rule}.vector", "passed": True} for rule in rules]},
    )
    assert in_record(own) == ""
    wrong = replace(own, routing=({"parameter": "norm.weight", "rule": "another"},), proof=None)
    assert f"no parameter is routed to {rules[0]}" in in_record(wrong)


@pytest.mark.parametrize(("changes", "word"), CONTRADICTIONS)
def test_one_that_was_written_so_is_named_and_not_run_again(
    tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    """Its worker would write it so again: a sweep must not do that for ever."""
    ledger, record = Ledger(tmp_path), TrialRecord.from_dict({**SOUND, **changes})
    assert word in in_record(record)
    ledger.put(record)
    assert ledger.sound(record.trial) == record
    (problem,) = ledger.verify()
    assert "was written so" in problem and word in problem
    assert ledger.mend() == []


def test_a_diverged_trial_ends_where_it_diverged() -> None:
    short = make_record(make_spec(1), None)
    curve, per_step = short.curve[:2], short.tokens // short.steps
    steps = curve[-1].step
    plain = {**json.loads(short.to_json()), "steps": steps, "tokens": steps * per_step}
    plain["curve"] = plain["curve"][:2]
    assert in_record(TrialRecord.from_dict(plain)) == ""


@pytest.mark.parametrize(
    ("account", "word"),
    [
        ({"run": ["360993c6c602123!"]}, "no id"),
        ({"failed": {"x/../y": "why"}}, "no id"),
        ({"reused": 3}, "no list"),
        ({"wall_seconds": -1}, "wall_seconds"),
        ({"slots": "4"}, "slots"),
    ],
)
def test_an_account_of_an_earlier_release_is_verified_and_mended_like_a_record(
    tmp_path: Path, account: dict[str, object], word: str
) -> None:
    ledger = Ledger(tmp_path)
    ledger.mark()
    good = {"run": ["360993c6c602123f"], "reused": [], "failed": {"360993c6c602123f": "why"}, "wall_seconds": 2.5}
    assert in_account(good) == "" and word in in_account(good | account)
    ledger.files.replace("runs/a.json", json.dumps(good | account).encode())
    with pytest.raises(DamagedRecordError, match=f"runs/a.json in .*{word}"):
        ledger.runs()
    assert any(problem.startswith("runs/a.json: ") for problem in ledger.verify())
    assert "damaged/runs/a.json" in ledger.mend()[0] and ledger.runs() == {}


def test_a_record_that_a_run_recorded_and_that_is_gone_is_named_until_it_is_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    path = written(ledger)["trials"]
    path.unlink()
    (problem,) = ledger.verify()
    assert f"trials/{path.name}: is gone" in problem and "run the same command again" in problem
    path.write_bytes(b"{")
    ledger.mend()
    assert ledger.verify() == [], "one that was set aside is accounted for"


def test_a_sweep_or_an_account_that_is_gone_is_missed(tmp_path: Path) -> None:
    ledger, sweep = Ledger(tmp_path), "0123456789abcdef"
    ledger.put_sweep(sweep, PLAIN)
    first, second = (ledger.put_run({"sweep": sweep, "run": []}) for _ in range(2))
    assert ledger.verify() == [] and list(ledger.runs().values()) == [{"sweep": sweep, "run": []}] * 2
    (tmp_path / "runs" / f"{first}.json").unlink()
    (problem,) = ledger.verify()
    assert problem.startswith(f"runs/{first}.json: is gone, and runs/{second}.json came after it")
    (tmp_path / "sweeps" / f"{sweep}.json").unlink()
    assert any(problem.startswith(f"sweeps/{sweep}.json: is gone") for problem in ledger.verify())


def put_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("kept")


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (put_folder, "a folder"),
    "loop": (lambda path: path.symlink_to(path.name), "a link to itself"),
    "nothing": (lambda path: path.symlink_to("elsewhere"), "a link to nothing"),
    "fifo": (os.mkfifo, "a FIFO"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
}


@pytest.mark.parametrize("folder", [*READERS, "compacted"])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_plain_file_is_named_and_set_aside(tmp_path: Path, kind: str, folder: str, caplog) -> None:
    ledger, (make, word) = Ledger(tmp_path), ODD[kind]
    files = written(ledger)
    ledger.compact()
    path = files.get(folder, tmp_path / "compacted/trials.parquet")
    path.unlink()
    make(path)
    name = f"{folder}/{path.name}"
    ledger.sweeps(), ledger.runs(), ledger.table(), list(ledger.records())
    assert caplog.text.count(name) == 1
    assert ("ledger compact" if folder == "compacted" else "ledger mend") in caplog.text
    assert any(problem.startswith(f"{name}: ") for problem in ledger.verify())
    (said,) = ledger.mend()
    assert word in said and f"damaged/{name}~" in said
    assert not os.path.lexists(path) and len(list((tmp_path / "damaged" / folder).iterdir())) == 1


@pytest.mark.parametrize("kind", ODD)
def test_a_record_is_stored_where_something_else_stood_in_its_place(tmp_path: Path, kind: str) -> None:
    ledger, record = Ledger(tmp_path), make_record(make_spec(1))
    ledger.mark()
    path = tmp_path / "trials" / f"{record.trial}.json"
    path.parent.mkdir()
    ODD[kind][0](path)
    assert ledger.sound(record.trial) is None
    with pytest.raises(DamagedRecordError, match=ODD[kind][1]):
        ledger.get(record.trial)
    assert ledger.put(record) is True and ledger.get(record.trial) == record
    assert not (tmp_path / "trials" / "elsewhere").exists(), "nothing is written through a link"
