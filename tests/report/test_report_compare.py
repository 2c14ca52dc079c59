import pytest
from report_samples import make_sweep, run_sweep, smooth_loss

from tuneopt.analysis.runs import RegimeKey
from tuneopt.ledger import Ledger
from tuneopt.report.compare import compare, winner_of
from tuneopt.report.standing import speedup_text, standing
from tuneopt.report.study import read_study
from tuneopt.report.tables import budget_table, results


@pytest.fixture(scope="module")
def comparison(study):
    return compare(study)


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
    for seed in list(sweep.seeds)[1:]:
        incumbent = read_study(ledger).views[0].state.descent.incumbent
        (tmp_path / "trials" / f"{sweep.trial_id(incumbent, seed)}.json").unlink()
    view = read_study(ledger).views[0]
    assert len(view.winner) == 1
    ranking = next(iter(compare(read_study(ledger)).rankings.values()))
    assert ranking["losses"] == [view.winner[0].report_loss]


def test_the_first_screen_names_groups_and_speedups(study, comparison):
    words = standing(study, comparison)
    assert words.headline == "soap has the lowest loss in both regimes with several optimizers"
    assert words.sentences[0].startswith("nano-65k/1x: soap leads at 3.")
    assert "adamw +0.0" in words.sentences[0]
    assert words.sentences[-1].startswith("Speedup over adamw at nano-65k, 4x: soap 1.")


def test_ties_are_named_as_ties(tmp_path):
    ledger = Ledger(tmp_path)
    run_sweep(ledger, make_sweep("soap"), lambda spec: smooth_loss(spec) + 0.005)
    run_sweep(ledger, make_sweep("muon"))
    study = read_study(ledger)
    comparison = compare(study)
    ranking = next(iter(comparison.rankings.values()))
    words = standing(study, comparison)
    if ranking["tie_groups"] == [1, 1]:
        assert "tie for the lowest loss" in words.headline
        assert "cannot be told apart" in words.sentences[0]
    else:
        assert f"{ranking['order'][0]} has the lowest loss" in words.headline


def test_tables_agree_with_the_document(study, comparison):
    table = results(study, comparison)
    assert len(table.rows) == 6
    first = table.rows[0]
    assert first[:2] == ("nano-65k/1x", "soap")
    assert first[5] == speedup_text(comparison.speedups[RegimeKey("embedded", "nano-65k", 1.0), "soap"])
    assert {row[5] for row in table.rows if row[1] == "adamw"} == {"baseline"}
    budgets = budget_table(comparison)
    trials = sum(int(row[2].replace(",", "")) for row in budgets.rows)
    assert trials == sum(len(view.every) for view in study.views)


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"speedup": 1.234, "low": 1.1, "high": 1.3, "flags": []}, "1.23 [1.10, 1.30]"),
        ({"speedup": 1.2, "low": None, "high": None, "flags": []}, "1.20"),
        (
            {"speedup": 2.0, "low": 1.5, "high": None, "flags": ["lower bound", "open above"]},
            "\u2265 2.00 [1.50, open]",
        ),
    ],
)
def test_speedups_read_with_their_interval(row, shown):
    assert speedup_text(row) == shown
