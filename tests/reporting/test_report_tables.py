import shlex
from dataclasses import replace

from report_samples import make_record, make_sweep, run_sweep, smooth_loss

from tuneopt.analysis.importance import importances
from tuneopt.ledger import Ledger
from tuneopt.reporting import provenance
from tuneopt.reporting import section as tables
from tuneopt.reporting.figures.star import path_info
from tuneopt.reporting.provenance import tune_command
from tuneopt.reporting.study import read_study
from tuneopt.reporting.write import write_report
from tuneopt.search.space import load_space


def facts(found):
    return dict(found.values)


def test_hyperparameters_show_start_best_grid_and_edge(view):
    table = tables.hyperparameters(view)
    rows = {row[0]: row for row in table.rows}
    assert set(rows) == set(dict(view.state.descent.incumbent))
    assert rows["learning_rate"][1:4] == ("0.016", "0.032", "changed")
    assert "0.064" in rows["learning_rate"][4]
    assert rows["precondition_frequency"][5] == "at its bound"
    assert rows["lr_schedule"][4] == "held"
    assert table.rows[-1][4] == "held"


def test_moves_add_up_to_the_incumbent(view):
    table = tables.moves(path_info(view))
    assert table.rows[0][2] == "start"
    assert table.rows[-1][4] == f"{view.state.descent.incumbent_loss:.4f}"
    assert "learning_rate 0.016 \u2192 0.032" in table.rows[1][3]
    assert table.rows[-1][2] == "finalist" and "its losses are means" in table.note
    searched = tables.moves(path_info(replace(view, state=replace(view.state, descent=view.state.searched))))
    assert searched.rows == table.rows[: len(searched.rows)] and "finalist" not in searched.note


def test_the_certificate_states_what_it_rests_on(view):
    found = facts(tables.certificate(view))
    certificate = view.state.certificate
    assert (found["state"], found["star complete"]) == ("certified", "yes")
    assert f"{certificate.resolution:.4f} nats with 95% confidence, asked {certificate.asked:g}" == found["resolution"]
    assert f"{view.state.tolerance:.4f}" in found["tolerance"]
    assert f"{view.state.sigma:.4f}" in found["noise between seeds \u03c3"]
    assert found["changes in the star"] == f"{len(view.state.descent.star)} completed"


def test_the_budget_counts_every_trial_and_the_slots(view):
    found = facts(tables.budget(view))
    assert found["trials"].startswith(f"{len(view.records)} done, 0 diverged")
    assert found["slot utilisation"] == "87%"
    assert "train 85%" in found["of which"]


def test_reused_trials_are_told_from_run_ones(tmp_path):
    ledger = Ledger(tmp_path)
    sweep = make_sweep("adamw")
    spec = sweep.spec(sweep.space.start)
    ledger.put(make_record(spec, smooth_loss(spec)))
    run_sweep(ledger, sweep)
    assert facts(tables.budget(read_study(ledger).views[0]))["not run by this sweep"] == "1 reused"


def test_provenance_names_corpus_versions_proof_and_routing(view):
    assert facts(provenance.corpus(view))["fingerprint"] == "0123456789abcdef"
    assert facts(provenance.corpus(view))["passes over the training text"] == "0.328"
    environment = facts(provenance.environment([view]))
    assert environment["torch"] == "2.13.0"
    assert environment["first start, last end"] == "2026-01-31T12:00:00Z, 2026-01-31T12:00:20Z"
    assert provenance.proof(view).rows[0][:3] == ("orthogonal basis", "passed", "3.1e-06")
    rules = {(row[0], row[2]) for row in provenance.routing(view).rows}
    assert rules == {("soap", "16"), ("adamw", "1")}


def test_all_trials_are_listed_best_first_or_the_limit_is_said(view):
    whole = provenance.trials(view, 1000)
    assert len(whole.rows) == len(view.every)
    losses = [row[4] for row in whole.rows]
    assert losses == sorted(losses)
    part = provenance.trials(view, 10)
    assert len(part.rows) == 10
    assert f"10 of {len(view.every)} trials" in part.note
    assert part.rows[0] == whole.rows[0]


def test_what_differs_between_trials_is_counted(tmp_path):
    ledger = Ledger(tmp_path)
    sweep = make_sweep("adamw")
    spec = sweep.spec(sweep.space.start)
    ledger.put(make_record(spec, smooth_loss(spec), environment={"torch": "2.12.0"}))
    run_sweep(ledger, sweep)
    view = read_study(ledger).views[0]
    assert facts(provenance.environment([view]))["torch"] == f"2.12.0 (1 trial), 2.13.0 ({len(view.every) - 1} trials)"


def options(command):
    words = shlex.split(command)
    assert words[:2] == ["tuneopt", "tune"]
    return words[2:]


def test_the_command_repeats_the_sweep(tmp_path):
    ledger = Ledger(tmp_path)
    run_sweep(ledger, make_sweep("soap", grids={}), waves=0)
    words = options(tune_command(read_study(ledger).views[0]))
    assert words[: words.index("--no-compile")] == [
        "--optimizer", "soap", "--scale", "nano-65k", "--ratio", "1", "--corpus", "embedded",
        "--seed", "0", "--replicates", "3", "--policy", "joint",
    ]  # fmt: skip
    assert "--set" not in words
    assert "--grid" not in words


def test_the_command_carries_pins_and_grids(tmp_path):
    ledger = Ledger(tmp_path)
    sweep = make_sweep("adamw", grids={"learning_rate": [0.004, 0.008], "beta1": [0.9]}, seed=3)
    run_sweep(ledger, sweep, waves=1)
    words = options(tune_command(read_study(ledger).views[0]))
    given = {words[at]: words[at + 1] for at in range(len(words) - 1) if words[at] in ("--seed",)}
    assert given == {"--seed": "3"}
    pins = dict(words[at + 1].split("=") for at, word in enumerate(words) if word == "--set")
    grids = dict(words[at + 1].split("=") for at, word in enumerate(words) if word == "--grid")
    assert load_space("adamw").on("nano", pins, grids) == sweep.space


def test_the_command_quotes_hostile_text(tmp_path):
    from tuneopt.spec import CorpusId

    ledger = Ledger(tmp_path)
    name = "mine; rm -rf ~ $(boom)"
    run_sweep(ledger, make_sweep("adamw", corpus=CorpusId(name, "0" * 16, 1024)), waves=1)
    words = options(tune_command(read_study(ledger).views[0]))
    assert words[words.index("--corpus") + 1] == name


def test_importances_are_optunas_own_and_need_enough_trials(view, tmp_path):
    table, own = tables.importances(view), importances(view.sweep, view.every.values())
    assert own is not None and table is not None
    assert [row[0] for row in table.rows] == [entry.coordinate for entry in own.entries]
    assert f"over {own.trials} trials" in table.note and "PED-ANOVA" in table.note
    ledger = Ledger(tmp_path / "short")
    short = run_sweep(ledger, make_sweep("adamw"), waves=1)
    assert tables.importances(read_study(ledger, [short.id]).views[0]) is None


def test_another_searcher_is_marked_wherever_its_result_stands(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    sweep = run_sweep(ledger, make_sweep("soap"))
    found = {"search": "tpe", "scheduler": "asha", "trials": 30, "cut": {"a" * 16: {}, "b" * 16: {}}}
    ledger.put_sweep(sweep.id, {**sweep.to_dict(), **found})
    document = write_report(ledger, tmp_path / "report.html")
    assert any("proposed by tpe, not by coordinate descent" in warning for warning in document["warnings"])
    assert any("asha cut 2 trials" in warning for warning in document["warnings"])
    assert "proposed by tpe" in (tmp_path / "report.html").read_text()
    words = options(tune_command(read_study(ledger).views[0]))
    assert "--policy" not in words, "the command would be refused"
    for option, value in (("--search", "tpe"), ("--scheduler", "asha"), ("--trials", "30")):
        assert words[words.index(option) + 1] == value
