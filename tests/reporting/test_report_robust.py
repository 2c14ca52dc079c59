"""Whatever the losses are, however far the sweep came and whichever policy it used: a page that agrees with itself."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from report_samples import make_sweep, run_sweep

from tuneopt.ledger import Ledger
from tuneopt.reporting.compare import compare
from tuneopt.reporting.figures.star import path_info, star_info
from tuneopt.reporting.html import render
from tuneopt.reporting.page import build_page
from tuneopt.reporting.sources import gather
from tuneopt.reporting.write import report_document
from tuneopt.search.descent import FINALIST


def page_of(ledger):
    material = gather(ledger)
    comparison = compare(material)
    return material, comparison, build_page(material, comparison)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.integers(0, 15), st.none() | st.floats(0.5, 12), max_size=16),
    st.integers(0, 3),
    st.sampled_from(["joint", "single", "cyclic", "model"]),
)
@example({11: None}, 3, "model")  # a resolution that nobody had asked for yet
def test_any_losses_at_any_moment_make_a_page(table, waves, policy):
    def loss(spec):
        key = sum(map(ord, f"{spec.hyperparameters}{spec.seed}")) % 16
        return table.get(key, 3.0 + 0.01 * key)

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger")
        sweep = make_sweep("adamw", policy=policy)
        run_sweep(ledger, sweep, loss, waves=waves)
        material, comparison, page = page_of(ledger)
        view = material.study.views[0]
        shown = report_document(material, comparison, page, Path("r.html"))["sweeps"][0]
        assert shown["trials"]["done"] == len(view.records)
        best = view.record(view.state.descent.incumbent)
        assert shown["best"]["select_loss"] == (best.select_loss if best and best.comparable else None)
        # A finalist stands at its mean over seeds, whoever the search made incumbent at its own run.
        moved = [move.kind for move in view.state.descent.path][-1:] == [FINALIST]
        by = "select_mean" if moved else "select_loss"
        assert view.state.descent.incumbent_loss == (shown["best"][by] and pytest.approx(shown["best"][by], abs=1e-9))
        for figure in page.all_figures:
            assert figure.plot["data"]
        for lane in star_info(view).lanes:
            assert sum(point.incumbent for point in lane.points) == 1
        html = render(page)
        assert page.answer.headline.split(":")[0] in html
        assert "NaN" not in html.split("<script")[0]


@pytest.mark.parametrize("policy", ["single", "cyclic"])
def test_every_policy_shows_all_its_moves(tmp_path, policy):
    ledger = Ledger(tmp_path)
    run_sweep(ledger, make_sweep("soap", policy=policy))
    material, _, page = page_of(ledger)
    view = material.study.views[0]
    info = path_info(view)
    assert len(info.stands) == len(view.state.descent.path) + 1 > 2
    blocks = {getattr(block, "title", ""): block for block in page.sections[0].blocks}
    assert len(blocks["Moves"].rows) == len(info.stands)
    assert all(len(stand.changes) == 1 for stand in info.stands[1:])
    assert [stand.place for stand in info.stands] == sorted(stand.place for stand in info.stands)
    assert f"--policy {policy}" in blocks["How to repeat this sweep"].text


def test_a_tried_configuration_is_described_from_its_nearest_incumbent(view):
    info = path_info(view)
    incumbents = {stand.place for stand in info.stands}
    for each in info.tried:
        assert (each.changes == ()) == (each.place in incumbents)
    assert max(len(each.changes) for each in info.tried) <= max(len(stand.changes) for stand in info.stands)


def test_two_sweeps_of_one_optimizer_in_one_regime_share_a_result(tmp_path):
    ledger = Ledger(tmp_path)
    run_sweep(ledger, make_sweep("adamw"))
    run_sweep(ledger, make_sweep("adamw", policy="single"))
    material, comparison, page = page_of(ledger)
    assert len(material.study.views) == len(page.sections) == 2
    assert [row["order"] for row in comparison.rankings.values()] == [["adamw"]]
    assert len({section.anchor for section in page.sections}) == 2


def test_sections_are_open_while_they_are_few_and_named_in_a_list(tmp_path, several):
    ledger = Ledger(tmp_path)
    run_sweep(ledger, make_sweep("adamw"))
    run_sweep(ledger, make_sweep("soap"))
    few = render(page_of(ledger)[2])
    assert few.count('<details class="whole" open>') == 2
    assert few.count("<li style=") == 2
    assert few.index('<nav aria-label="Contents">') < few.index("<li style=")
    many = render(page_of(several)[2])
    assert '<details class="whole" open>' not in many
    assert many.count('<details class="whole">') == 6
