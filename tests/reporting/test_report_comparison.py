"""A comparison's page and its statement rest on the same runs, and agree to the last digit."""

from __future__ import annotations

import json

import pytest
from report_samples import make_record

from tuneopt import api
from tuneopt.api.studies import planned_study, study_queue
from tuneopt.ledger import Ledger
from tuneopt.reporting.study import read_study
from tuneopt.reporting.verdict import REPEATED, certificate_sentence, certificate_state, key_numbers, sweep_verdict
from tuneopt.search.records import recorded
from tuneopt.search.study.surfaces import Surfaces


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory):
    """A comparison whose trials stand in a ledger with losses of the simulator's surfaces, and its result."""
    ledger = Ledger(tmp_path_factory.mktemp("compared") / "ledger")
    plan = api.comparison_plan(["soap"], hours=8 / 60, slots=2, ledger=ledger, tokens_per_second=50_000.0, keep=True)
    surfaces, look_up = Surfaces(plan.study, noise=0.025), recorded(ledger)
    queue = study_queue(planned_study(plan.study), ledger)
    while (spec := queue.next()) is not None:
        ledger.put(make_record(spec, surfaces.evaluate(spec)))
        queue.tell(spec, look_up(spec))
    for name, plain in queue.documents():
        ledger.put_sweep(name, plain)
    return ledger, plan, api.run_comparison(plan, ledger)


def test_what_is_recorded_runs_nothing_and_is_stated(compared):
    _, plan, result = compared
    assert not result.run and len(result.reused) == len(result.outcomes)
    assert result.certified and result.statement.startswith("SOAP ")
    assert json.loads(json.dumps(result.to_dict()))["statement"] == result.statement
    again = api.comparison_plan(["soap"], hours=8 / 60, slots=2, ledger=compared[0])
    assert again.stored and again.study == plan.study


def test_the_page_says_what_the_statement_says(compared, tmp_path):
    ledger, plan, result = compared
    document = api.report(ledger, tmp_path / "page.html", result.sweeps, baseline=result.baseline)
    home = plan.study.comparison.ratios[0]
    (shown,) = [row for row in document["speedups"] if (row["optimizer"], row["ratio"]) == ("soap", home)]
    (stated,) = result.speedups
    for name in ("speedup", "low", "high", "tie_group"):
        assert shown[name] == pytest.approx(stated[name]), name
    assert f"{shown['speedup']:.2f}x" in result.statement


def test_seeds_alone_are_no_certificate(compared):
    ledger, _, result = compared
    views = read_study(ledger, result.sweeps).views
    alone = [view for view in views if not view.sweep.space.varied]
    assert alone and len(alone) < len(views)
    for view in alone:
        verdict = sweep_verdict(view)
        assert certificate_state(view) == verdict.state == REPEATED
        assert "nothing to certify" in certificate_sentence(view) and not verdict.warnings
        assert {tile.name: tile.value for tile in key_numbers(view, verdict)}["Resolution"] != "0.0000"
