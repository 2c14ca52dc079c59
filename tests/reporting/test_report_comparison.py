"""A comparison's page and its statement rest on the same runs, and agree to the last digit."""

from __future__ import annotations

import json

import pytest
from report_samples import make_record

from tuneopt import api
from tuneopt.api.studies import planned_study, run_study, study_queue, study_status
from tuneopt.ledger import Ledger
from tuneopt.reporting.study import read_study
from tuneopt.reporting.verdict import certificate_sentence, certificate_state, key_numbers, sweep_verdict
from tuneopt.search.records import recorded
from tuneopt.search.standing import REPEATED
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


def test_what_went_as_planned_is_no_warning_and_the_answer_comes_first(compared, tmp_path):
    """A tuning ends when its trials are spent, and its noise is measured by the seeds that come after it."""
    ledger, _, result = compared
    document = api.report(ledger, tmp_path / "page.html")
    assert not [one for one in document["warnings"] if "not finished" in one or "is a guess" in one]
    (row,) = result.speedups
    headline = document["answer"]["headline"]
    assert headline.startswith("SOAP reaches AdamW's loss with") and "nano-65k/" in headline
    assert f"{row['speedup']:.2f}" in headline and f"[{row['low']:.2f}, {row['high']:.2f}]" in headline
    views = read_study(ledger).views
    rationed = [view for view in views if view.quota is not None]
    assert {view.phase for view in rationed} == {"I", "baseline"} and all(view.state.finished for view in views)
    for view in rationed:
        assert len(view.records) == view.quota or certificate_state(view) in ("certified", "blind")
        assert "not finished" not in certificate_sentence(view)


def test_a_comparison_that_was_stopped_is_still_called_unfinished(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    plan = api.comparison_plan(["soap"], hours=8 / 60, slots=2, ledger=ledger, tokens_per_second=50_000.0, keep=True)
    surfaces, look_up = Surfaces(plan.study, noise=0.025), recorded(ledger)
    queue = study_queue(planned_study(plan.study), ledger)
    for _ in range(3):
        spec = queue.next()
        ledger.put(make_record(spec, surfaces.evaluate(spec)))
        queue.tell(spec, look_up(spec))
    for name, plain in queue.documents():
        ledger.put_sweep(name, plain)
    warnings = api.report(ledger, tmp_path / "page.html")["warnings"]
    assert any("not finished" in one for one in warnings) and any("is a guess" in one for one in warnings)
    status = study_status(plan.study, ledger)
    assert not status["finished"] and status["phase"] == "I"


def test_a_study_file_ends_with_the_statement_of_its_comparison(compared):
    ledger, plan, result = compared
    again = run_study(plan.study, ledger)
    assert again.certified and again.conclusion.statement == result.statement
    assert again.to_dict()["statement"] == result.statement and again.to_dict()["speedups"] == result.speedups
    status = study_status(plan.study, ledger)
    assert status["statement"] == result.statement and status["phase"] == "done"
    assert sum(part["trials"] for part in status["phases"]) == len(result.outcomes), "each trial once"
    assert {row["certificate"]["state"] for row in status["results"]} == {REPEATED}
    assert sum(part["certificates"] for part in status["phases"]) == 0
    document = api.study_plan(plan.study, ledger)
    assert document["left"]["trials"] == 0 and document["left"]["device_hours_high"] == 0


def test_care_is_judged_by_the_noise_that_the_seeds_have_shown(compared):
    """A tuning of one seed each knows the noise by a law; its resolution counts what came after."""
    _, _, result = compared
    cares = result.conclusion.care
    assert len({care.trials for care in cares}) == 1
    assert all(care.resolution is not None and 0 <= care.resolution < 0.5 for care in cares)
