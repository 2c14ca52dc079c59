import pytest
from report_samples import make_sweep, run_sweep, smooth_loss

from tuneopt.analysis.runs import RegimeKey
from tuneopt.ledger import Ledger
from tuneopt.reporting.answer import answer
from tuneopt.reporting.chapters import fairness
from tuneopt.reporting.chapters.ranking import results
from tuneopt.reporting.compare import compare, winner_of
from tuneopt.reporting.figures.speedups import interval_text
from tuneopt.reporting.sources import gather
from tuneopt.reporting.study import read_study
from tuneopt.reporting.verdict import certificate_state


def test_an_optimizer_is_judged_by_what_its_sweep_ended_on(study, comparison):
    for view in study.views:
        regime = comparison.regimes[view.id]
        ranking = comparison.rankings[regime]
        loss = dict(zip(ranking["order"], ranking["losses"], strict=True))[view.optimizer]
        assert loss == pytest.approx(view.state.best.report_loss)
        assert winner_of(study, comparison, regime, view.optimizer) is view


def test_speedups_come_where_the_baseline_has_three_ratios(comparison):
    found = {(regime.ratio, name) for regime, name in comparison.speedups}
    assert (4.0, "soap") in found
    row = comparison.speedups[RegimeKey("embedded", "nano-65k", 4.0), "soap"]
    assert row["low"] < row["speedup"] < row["high"]
    assert row["speedup"] > 1.1


def test_an_unconfirmed_winner_is_not_replaced_by_its_better_measured_start(tmp_path):
    ledger = Ledger(tmp_path)
    sweep = run_sweep(ledger, make_sweep("soap"))
    state = read_study(ledger).views[0].state
    for spec in state.needed:  # as before the winner of the search and the finish were given further seeds
        if spec.hyperparameters != sweep.space.start and spec.seed != sweep.seed:
            (tmp_path / "trials" / f"{spec.id}.json").unlink()
    view = read_study(ledger).views[0]
    assert view.state.descent.incumbent == state.searched.incumbent != sweep.space.start
    assert certificate_state(view) == "running", "one run of it confirms nothing"
    assert len(view.winner) == 1 < len(view.start)
    ranking = next(iter(compare(gather(ledger)).rankings.values()))
    assert ranking["losses"] == [view.winner[0].report_loss]


def test_the_first_screen_names_groups_and_speedups(comparison):
    found = answer(comparison.document)
    assert found.headline == "SOAP has the lowest loss in both regimes with several optimizers"
    assert [(place.ratio, place.leaders) for place in found.places] == [(1.0, ("soap",)), (4.0, ("soap",))]
    assert [bool(place.interval) for place in found.places] == [True, True]


def test_ties_are_named_as_ties(tmp_path):
    ledger = Ledger(tmp_path)
    run_sweep(ledger, make_sweep("soap"), lambda spec: smooth_loss(spec) + 0.0115)
    run_sweep(ledger, make_sweep("muon"))
    comparison = compare(gather(ledger))
    ranking = next(iter(comparison.rankings.values()))
    headline = answer(comparison.document).headline
    assert ranking["tie_groups"] == [1, 1]
    assert headline == "Muon and SOAP tie for the lowest loss at nano-65k/1x"


def test_tables_agree_with_the_document(study, comparison):
    table = results(study, comparison)
    assert len(table.rows) == 6
    first = table.rows[0]
    assert first[:2] == ("nano-65k/1x", "soap")
    row = comparison.speedups[RegimeKey("embedded", "nano-65k", 1.0), "soap"]
    assert first[5] == interval_text(row["speedup"], row["low"], row["high"])
    assert {row[5] for row in table.rows if row[1] == "adamw"} == {"baseline"}
    claims = {(view.sweep.regime.label, view.optimizer): view.state.certificate for view in study.views}
    assert {(row[0], row[1]): row[7] for row in table.rows} == {
        place: f"certified at {claim.resolution:.4f} nats" for place, claim in claims.items()
    }
    budgets = next(block for block in fairness.chapter(comparison).blocks if block.kind == "table"
                   and block.title.startswith("Tuning budget"))  # fmt: skip
    assert budgets.columns[2:4] == ("configurations", "trials")
    trials = sum(int(row[3].replace(",", "")) for row in budgets.rows)
    assert trials == sum(len(view.every) for view in study.views)
