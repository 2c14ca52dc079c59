"""What tuning has cost: every trial once, unequal budgets by name, and the runs of a study with each second once."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_samples import make_sweep, run_sweep

from tuneopt.analysis.costs import Budget
from tuneopt.ledger import Ledger
from tuneopt.reporting import section as tables
from tuneopt.reporting.chapters import cost
from tuneopt.reporting.compare import compare
from tuneopt.reporting.figures.costs import budgets_info, draw_budgets
from tuneopt.reporting.page import build_page
from tuneopt.reporting.sources import gather
from tuneopt.reporting.study import read_study
from tuneopt.search.study.spent import AHEAD, START


def test_every_trial_counts_once(study):
    info = budgets_info(study.views)
    every = {trial for view in study.views for trial in view.every}
    assert sum(row.trials for row in info.rows) == len(every)
    seconds = {trial: sum(record.seconds.values()) for view in study.views for trial, record in view.every.items()}
    assert sum(row.device_seconds for row in info.rows) == pytest.approx(sum(seconds.values()))
    for name in info.optimizers:
        cells = [info.cell(name, purpose) for purpose in info.purposes]
        assert sum(cell.trials for cell in cells if cell) == sum(
            row.trials for row in info.rows if row.optimizer == name
        )
    assert info.purposes[0] == START and "learning_rate" in info.purposes
    assert info.optimizers == ("adamw", "muon", "soap")
    assert info.cell("adamw", "momentum") is None, "adamw has no such coordinate"


def test_the_map_shows_the_numbers_of_the_record(study):
    info = budgets_info(study.views)
    drawing = draw_budgets(info)
    shown = {(note["x"], note["y"]): note["text"] for note in drawing.notes}
    for column, name in enumerate(info.optimizers):
        for row, purpose in enumerate(info.purposes):
            cell = info.cell(name, purpose)
            assert shown.get((column, row)) == (None if cell is None else f"{cell.trials:,}")
    shares = [share for line in drawing.traces[0]["z"] for share in line if share is not None]
    assert sum(shares) == pytest.approx(len(info.optimizers)), "of each optimizer's device time the shares are all"


def test_what_was_launched_ahead_in_vain_is_counted_as_that(tmp_path):
    ledger = Ledger(tmp_path)
    sweep, other = make_sweep("soap"), make_sweep("adamw")
    run_sweep(ledger, sweep)
    run_sweep(ledger, other, waves=1)
    needed = set(read_study(ledger, [sweep.id]).views[0].records)
    vain = [trial for trial in ledger.ids() if trial not in needed]
    ledger.put_run({"sweep": sweep.id, "run": vain, "slots": 2, "wall_seconds": 1.0, "busy_seconds": 1.0})
    info = budgets_info(read_study(ledger, [sweep.id]).views)
    assert info.cell("soap", AHEAD).trials == len(vain)


def test_unequal_budgets_are_named_widest_first(comparison, study):
    counts = {(one.optimizer, one.ratio): one.configurations for one in comparison.analysis.budgets}
    assert counts["adamw", 1.0] != counts["soap", 1.0]
    words = " ".join(cost.budgets_chapter(study, comparison).lead)
    assert "Budgets are unequal in 2 of 2 regimes" in words
    assert re.search(rf"{counts['adamw', 1.0]:,}( configurations?)? of adamw", words)
    assert re.search(rf"{counts['soap', 1.0]:,}( configurations?)? of soap", words)
    even = tuple(replace(one, configurations=30) for one in comparison.analysis.budgets)
    same = replace(comparison, analysis=replace(comparison.analysis, budgets=even))
    assert "equally many configurations in all 2 regimes" in " ".join(cost.budgets_chapter(study, same).lead)
    assert isinstance(even[0], Budget)


def test_a_studys_seconds_are_counted_once(tmp_path):
    ledger = Ledger(tmp_path)
    sweeps = [make_sweep("adamw"), make_sweep("soap")]
    for sweep in sweeps:
        run_sweep(ledger, sweep)
    for path in (tmp_path / "runs").iterdir():
        path.unlink()
    ids = [sweep.id for sweep in sweeps]
    for wall, unfinished, interrupted in ((100.0, 20.0, True), (300.0, 0.0, False)):
        shared = {"study": "s", "slots": 2, "interrupted": interrupted}
        ledger.put_run({**shared, "sweeps": ids, "wall_seconds": wall, "busy_seconds": unfinished})
        for name in ids:
            ledger.put_run({**shared, "sweep": name, "run": [], "reused": [], "failed": {}, "busy_seconds": wall / 2})
    ledger.put_run({"sweep": "elsewhere", "study": "other", "busy_seconds": 1e9, "slots": 2})
    study = read_study(ledger)
    material = gather(ledger)
    facts = dict(cost.budgets_chapter(study, compare(material)).blocks[-1].values)
    assert facts["runs"] == "2, 1 of them interrupted" and facts["wall time"] == "6.67 min"
    assert facts["slot utilisation"] == "52%", "420 busy seconds of 800"
    for view in study.views:
        own = dict(tables.budget(view).values)
        assert own["wall time"] == "shared with the other sweeps of its study" and own["slot utilisation"] == "\u2013"


def test_the_chapter_is_on_the_page_of_a_ledger_and_not_of_a_table(material, comparison, table):
    page = build_page(material, comparison)
    assert "budgets" in [chapter.anchor for chapter in page.chapters]
    assert "spent" in [figure.key for figure in page.all_figures]
    foreign = gather(results=table)
    assert "budgets" not in [chapter.anchor for chapter in build_page(foreign, compare(foreign)).chapters]
