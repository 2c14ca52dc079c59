"""Sweeps as Optuna studies, read back by Optuna itself; and importances where the answer is known."""

import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from tuneopt.analysis.importance import FEWEST, importances
from tuneopt.analysis.optuna_studies import export_studies, study_name
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.scale_files import find_scale
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, Regime, TrialSpec


def sweep(optimizer: str = "adamw", seed: int = 0, ratio: float = 0.2) -> Sweep:
    regime = Regime(find_scale("nano-65k"), ratio, CorpusId("made-up", "00ff", 1024))
    return Sweep(load_space(optimizer).on("nano"), regime, seed=seed)


def record(spec: TrialSpec, loss: float | None, number: int = 0, proven: bool = True, **changes) -> TrialRecord:
    middle, end = CurvePoint(5, 1, 0.1, 6.0, 6.0, 6.0, 0.5), CurvePoint(spec.steps, 2, 0.0, loss, loss, loss, 1.0)
    fields = {
        "trial": spec.id, "status": "diverged" if loss is None else "completed", "spec": spec, "select_loss": loss,
        "report_loss": loss, "initial_loss": 7.0, "curve": (middle, end), "tokens": 10, "steps": spec.steps,
        "epochs": 0.1, "flops": 1.0, "seconds": {"train": 1.0, "eval": 0.5, "startup": 0.0, "checkpoint": 0.0},
        "peak_bytes": None, "checkpoint_bytes": None, "optimizer_state_bytes": None,
        "proof": {"passed": proven, "checks": []}, "routing": (), "environment": {},
        "started": f"2026-01-01T00:{number:02d}:00+00:00", "ended": f"2026-01-01T00:{number:02d}:30+00:00",
        "resumes": 0, "tokens_per_second": 1.0,
    }  # fmt: skip
    return TrialRecord(**{**fields, **changes})


def put_star(ledger: Ledger, of: Sweep) -> list[TrialRecord]:
    """The sweep, its start with every seed, and the star: the first change diverged, the second lacks its proof."""
    ledger.put_sweep(of.id, of.to_dict())
    specs = [of.spec(of.space.start, seed) for seed in of.seeds]
    specs += [of.spec(config) for _, _, config in of.space.star(of.space.start) if of.feasible(config)]
    first = len(of.seeds)
    written = [
        record(spec, None if place == first else 4 + place / 100, place % 60, proven=place != first + 1)
        for place, spec in enumerate(specs)
    ]
    for each in written:
        ledger.put(each)
    return written


def load(path: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{path}")


def test_a_study_holds_what_the_records_say(tmp_path: Path) -> None:
    ledger, of, path = Ledger(tmp_path / "ledger"), sweep(), tmp_path / "studies.db"
    written = {each.trial: each for each in put_star(ledger, of)}
    done = export_studies(ledger, path)
    assert (done.trials, done.added, done.left_out, len(done.studies)) == (len(written), len(written), 0, 1)
    study = load(path, done.studies[0])
    assert done.studies[0] == study_name(of.id, {}, of)
    assert study.direction.name == "MINIMIZE" and study.user_attrs["sweep"] == of.id
    assert {trial.user_attrs["trial"] for trial in study.trials} == set(written)
    varied = {axis.name for axis in of.space.axes if not axis.pinned}
    for trial in study.trials:
        kept = written[trial.user_attrs["trial"]]
        assert trial.params == {name: kept.spec.config[name] for name in varied}
        assert trial.user_attrs["hyperparameters"] == kept.spec.config
        assert trial.value == (kept.select_loss if kept.comparable else None)
        assert trial.intermediate_values == {p.step: p.select_loss for p in kept.curve if p.select_loss is not None}
        assert trial.user_attrs["search"] == "coordinate"
        assert trial.duration.total_seconds() == 30
    assert study.best_value == min(each.select_loss for each in written.values() if each.comparable)
    moments = [trial.datetime_complete for trial in study.trials]
    assert moments == sorted(moments), "a history over trial numbers is a history over time"


def test_divergence_is_pruned_and_a_failed_proof_is_failed(tmp_path: Path) -> None:
    ledger, of = Ledger(tmp_path / "ledger"), sweep()
    written = put_star(ledger, of)
    export_studies(ledger, tmp_path / "studies.db")
    states = {t.user_attrs["trial"]: t.state for t in load(tmp_path / "studies.db", study_name(of.id, {}, of)).trials}
    assert states[written[len(of.seeds)].trial] == TrialState.PRUNED
    assert states[written[len(of.seeds) + 1].trial] == TrialState.FAIL
    assert sum(state == TrialState.COMPLETE for state in states.values()) == len(written) - 2


def test_exporting_again_changes_nothing_and_adds_what_is_new(tmp_path: Path) -> None:
    ledger, of, path = Ledger(tmp_path / "ledger"), sweep(), tmp_path / "studies.db"
    put_star(ledger, of)
    first = export_studies(ledger, path)
    again = export_studies(ledger, path)
    assert again.added == 0 and again.trials == first.trials
    edge = of.space.by_name["learning_rate"]
    beyond = of.space.change(of.space.start, "learning_rate", edge.above[0])
    new = record(of.spec(beyond), 3.5, 59)
    ledger.put(new)
    assert export_studies(ledger, path).added == 1
    study = load(path, first.studies[0])
    assert study.best_trial.user_attrs["trial"] == new.trial
    assert len(study.trials) == first.trials + 1
    assert len({str(trial.distributions) for trial in study.trials}) == 1, "an extension fits what was declared"


def test_what_others_keep_in_the_storage_stays(tmp_path: Path) -> None:
    path, ledger = tmp_path / "studies.db", Ledger(tmp_path / "ledger")
    other = optuna.create_study(study_name="mine", storage=f"sqlite:///{path}")
    other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    put_star(ledger, sweep())
    export_studies(ledger, path)
    assert len(load(path, "mine").trials) == 2
    assert len(optuna.get_all_study_names(f"sqlite:///{path}")) == 2


def test_each_sweep_is_a_study_of_its_own_and_loose_trials_are_counted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    one, two = sweep("adamw"), sweep("lion")
    counts = [len(put_star(ledger, each)) for each in (one, two)]
    loose = sweep("adamw", ratio=0.5)
    ledger.put(record(loose.spec(loose.space.start), 4.0))
    done = export_studies(ledger, tmp_path / "studies.sqlite3")
    assert done.left_out == 1
    found = [len(load(tmp_path / "studies.sqlite3", study_name(each.id, {}, each)).trials) for each in (one, two)]
    assert found == counts


def test_a_sampled_search_is_named_by_its_search_and_scheduler(tmp_path: Path) -> None:
    of = sweep()
    assert " tpe+asha on made-up (abc)" in study_name("abc", {"search": "tpe", "scheduler": "asha"}, of)
    assert " coordinate on made-up (abc)" in study_name("abc", {}, of)


@pytest.mark.parametrize(
    ("name", "says"), [("studies.txt", "ends in"), ("no/such/studies.db", "make it first"), ("text.db", "no Optuna")]
)
def test_a_place_that_cannot_be_written_is_refused_and_left_alone(name: str, says: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    put_star(ledger, sweep())
    (tmp_path / "text.db").write_text("not a data base")
    with pytest.raises(InputError, match=says):
        export_studies(ledger, tmp_path / name)
    assert (tmp_path / "text.db").read_text() == "not a data base"


def test_another_programs_data_base_is_refused_and_left_alone(tmp_path: Path) -> None:
    ledger, path = Ledger(tmp_path / "ledger"), tmp_path / "other.db"
    put_star(ledger, sweep())
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE studies (x)")
    base.commit()
    base.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="no Optuna storage"):
        export_studies(ledger, path)
    assert path.read_bytes() == before


def test_a_ledger_without_sweeps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no sweep"):
        export_studies(Ledger(tmp_path / "ledger"), tmp_path / "studies.db")
    assert not (tmp_path / "studies.db").exists()


def scattered(of: Sweep, loss, count: int = 60) -> list[TrialRecord]:
    """Records of random configurations of the grids."""
    draw = random.Random(1)
    found = {}
    while len(found) < count:
        values = {axis.name: draw.choice(axis.values) for axis in of.space.axes}
        config = TrialSpec.freeze({**dict(of.space.start), **values})
        if of.feasible(config):
            spec = of.spec(config)
            found[spec.id] = record(spec, loss(spec.config), len(found) % 60)
    return list(found.values())


def test_the_coordinate_that_decides_is_the_most_important() -> None:
    of = sweep()
    rates = of.space.by_name["learning_rate"].values
    found = importances(of, scattered(of, lambda config: 4 + 0.3 * abs(rates.index(config["learning_rate"]) - 2)))
    assert found is not None and found.entries[0].coordinate == "learning_rate"
    assert found.entries[0].share > 0.4
    assert sum(entry.share for entry in found.entries) == pytest.approx(1)
    assert found.trials == 60 and found.best >= 6
    assert {entry.coordinate for entry in found.entries} == {axis.name for axis in of.space.axes if not axis.pinned}


def test_importances_are_the_same_for_the_same_records_in_any_order() -> None:
    of = sweep()
    records = scattered(of, lambda config: 4 + float(config["weight_decay"]))
    assert importances(of, records) == importances(of, list(reversed(records)))


def test_a_coordinate_that_never_varied_has_no_share() -> None:
    of = sweep()
    start = dict(of.space.start)
    found = importances(of, [r for r in scattered(of, lambda config: 4 + float(config["weight_decay"]), 400)
                             if r.spec.config["beta1"] == start["beta1"]])  # fmt: skip
    assert found is not None
    assert next(entry for entry in found.entries if entry.coordinate == "beta1").share == 0.0


def test_too_few_trials_give_no_importances_and_others_do_not_count() -> None:
    of = sweep()
    few = scattered(of, lambda config: 4.0 + float(config["weight_decay"]), FEWEST - 1)
    elsewhere = scattered(sweep(ratio=0.5), lambda config: 4.0)
    diverged = [record(each.spec, None) for each in scattered(of, lambda config: 4.0, 80)[FEWEST:]]
    assert importances(of, [*few, *elsewhere, *diverged]) is None


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in (7, 40, 0.1, 0.5)), 0.99, "tables"]
)
def test_an_export_that_was_cut_off_is_made_again(tmp_path: Path, part: float | str, caplog) -> None:
    ledger, of, path = Ledger(tmp_path / "ledger"), sweep(), tmp_path / "studies.db"
    written = put_star(ledger, of)
    export_studies(ledger, path)
    if part == "tables":
        with closing(sqlite3.connect(path)) as base:
            base.execute("DROP TABLE version_info")
    else:
        data = path.read_bytes()
        path.write_bytes(data[: part if isinstance(part, int) else int(part * len(data))])
    cut = path.read_bytes()
    done = export_studies(ledger, path)
    assert done.added == done.trials == len(written) == len(load(path, done.studies[0]).trials)
    (kept,) = tmp_path.glob("studies.db.cut-off-*")
    assert kept.read_bytes() == cut and str(kept) in caplog.text


def test_an_export_that_is_killed_in_a_transaction_is_gone_on_with(tmp_path: Path) -> None:
    """The journal of the killed process stays beside the file, and only who may write can roll it back."""
    ledger, of, path = Ledger(tmp_path / "ledger"), sweep(), tmp_path / "studies.db"
    written = put_star(ledger, of)
    export_studies(ledger, path)
    code = (
        "import os, sqlite3, sys\n"
        "base = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "base.execute('PRAGMA cache_size = 1')\n"
        "base.execute('BEGIN IMMEDIATE')\n"
        "base.execute('DELETE FROM trials')\n"
        "base.execute('DELETE FROM trial_user_attributes')\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.with_name("studies.db-journal").stat().st_size > 0
    done = export_studies(ledger, path)
    assert (done.trials, done.added) == (len(written), 0) and not list(tmp_path.glob("*cut-off*"))


def test_a_new_export_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, path = Ledger(tmp_path / "ledger"), tmp_path / "studies.db"
    put_star(ledger, sweep())
    monkeypatch.setattr("tuneopt.analysis.optuna_studies.members", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_studies(ledger, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["ledger"]


def test_a_data_base_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    ledger, path = Ledger(tmp_path / "ledger"), tmp_path / "mine.db"
    put_star(ledger, sweep())
    with closing(sqlite3.connect(path)) as base:
        base.execute("CREATE TABLE accounts (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(InputError, match="no Optuna storage"):
        export_studies(ledger, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("share", [0, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.2, 0.5)), 0.99])
def test_a_transaction_that_fails_is_one_sentence_whichever_it_is(share: float, tmp_path: Path, monkeypatch) -> None:
    """Optuna wraps errors of SQLite where it writes trials, and where it makes its tables."""
    ledger, path, again = Ledger(tmp_path / "ledger"), tmp_path / "studies.db", tmp_path / "again.db"
    put_star(ledger, sweep())
    commit, done, most = Session.commit, 0, sys.maxsize

    def counted(session: Session) -> None:
        nonlocal done
        done += 1
        if done > most:
            raise OperationalError("COMMIT", (), sqlite3.OperationalError("unable to open database file"))
        commit(session)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "commit", counted)
        export_studies(ledger, path)
        done, most = 0, int(share * done)
        with pytest.raises(InputError, match=r"cannot write the studies to .*unable to open"):
            export_studies(ledger, again)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["ledger", "studies.db"]
    assert export_studies(ledger, again).added == export_studies(ledger, path).trials
