"""Results in a notebook: how they read, what they give as tables, which figures they draw, and how a run goes on."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from report_samples import make_sweep

import tuneopt as to
from tuneopt.api import SweepResult
from tuneopt.notebook import NotebookDisplay
from tuneopt.observe.observer import Observer
from tuneopt.observe.state import RunState
from tuneopt.search.plan import PlanProgress
from tuneopt.search.records import replay
from tuneopt.search.standing import Task
from tuneopt.spec import InputError


@pytest.fixture(scope="module")
def swept(several):
    sweep = make_sweep("soap", ratio=4)
    standing, outcomes = replay(Task(sweep), several)
    return SweepResult(outcomes=outcomes, reused=list(outcomes), ledger=several, sweep=sweep, state=standing.state)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    plan = to.comparison_plan(["adamw", "soap"], hours=0.2, ledger=str(tmp_path_factory.mktemp("x")), slots=2)
    return to.simulate_comparison(plan)


def test_a_sweep_says_what_it_found_and_how_sure_it_is(swept):
    first, *rest = repr(swept).splitlines()
    assert first.startswith("soap at nano-65k/4x on embedded: select loss ") and "mean of 3 seeds" in first
    assert any(line.strip().startswith("certificate") and "sees 0.0" in line for line in rest)
    page = swept._repr_html_()
    assert page.count("<tr>") > 20 and "learning_rate" in page and first[:30] in page


def test_the_rows_of_a_sweep_are_its_trials(swept):
    table = swept.to_pandas()
    assert len(table) == len(swept.outcomes) > 10
    best = table[table.trial == swept.state.best.trial].iloc[0]
    assert best.select_loss == swept.state.best.select_loss
    assert best.learning_rate == swept.state.best.spec.config["learning_rate"]


def test_a_sweep_draws_its_star_and_its_curves(swept):
    star, curves = swept.plot_star(), swept.plot_curves()
    assert star.layout.title.text == "Ablations around the best configuration: soap at nano-65k/4x"
    assert len(star.data) > 3 and len(curves.data) > 3
    with pytest.raises(InputError, match="no sweep of sopa"):
        swept.plot_star("sopa")


def test_a_comparison_reads_as_its_statement(simulated):
    assert repr(simulated).startswith(simulated.statement)
    assert "soap" in simulated._facts() and "x in tokens" in repr(simulated)
    table = simulated.to_pandas()
    assert list(table.optimizer) == ["soap"] and table.speedup[0] == simulated.speedups[0]["speedup"]
    assert "ask again, and it goes on" in repr(replace(simulated, interrupted=True))
    with pytest.raises(InputError, match="a simulation leaves no records"):
        simulated.plot_speedups()


def test_a_report_is_its_document_and_its_figures(several, tmp_path):
    page = to.report(several, tmp_path / "page one.html")
    assert page["path"] and page["answer"]["headline"] in repr(page)
    assert f'<a href="{(tmp_path / "page one.html").as_uri()}">' in page._repr_html_()
    assert len(page.to_pandas()) == len(page["speedups"])
    for draw in (page.plot_speedups, page.plot_flips, page.plot_curves, page.plot_star):
        assert draw().data
    with pytest.raises(InputError, match="no ledger was read"):
        to.report(published=True, path=tmp_path / "published.html").plot_star()


def test_text_from_outside_is_text(several, tmp_path):
    page = to.report(several, tmp_path / "page.html")
    page["speedups"][0]["optimizer"] = "<script>alert(1)</script>"
    assert "<script>" not in page._repr_html_()


def test_a_prediction_shows_every_value_with_its_interval():
    predicted = to.predict("muon", 1.2e9, 8)
    table = predicted.to_pandas().set_index("coordinate")
    assert (table.low <= table.value).all() and "learning_rate" in repr(predicted)
    assert "beyond what was tuned" in predicted._facts()


class Stop(Observer):
    def ended(self, spec, end):
        raise KeyboardInterrupt


TINY = {
    "ratio": 0.005, "compile": False, "replicates": 1, "grids": {"learning_rate": [0.004, 0.016]},
    "overrides": {
        "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-10, "max_grad_norm": 1, "warmup": 0.1, "train_batch_size": 16,
        "weight_decay": 0.1,
    },
}  # fmt: skip


def test_an_interrupted_cell_says_so_and_the_same_cell_goes_on(tmp_path):
    stopped = to.tune("adamw", tmp_path / "ledger", backend="inline", observers=[Stop()], max_trials=2, **TINY)
    assert stopped.interrupted and "call it again, and it goes on" in repr(stopped)
    again = to.tune("adamw", str(tmp_path / "ledger"), backend="inline", max_trials=2, **TINY)
    assert not again.interrupted and len(again.reused) == 1 and len(again.run) == 1


def test_the_last_line_in_a_notebook_is_of_the_end_even_where_looking_is_slow(monkeypatch):
    """Between two looks at a plan a display shows the earlier one; what it shows last stays."""
    updated = []
    handle = SimpleNamespace(update=lambda bundle, raw: updated.append(bundle["text/plain"]))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=lambda bundle, **how: handle))
    done = iter([0, 1])

    def slow():
        time.sleep(0.05)
        return PlanProgress(done=next(done))

    state = RunState(SimpleNamespace(progress=slow, kind="sweep", reused=(), outcomes={}))
    display = NotebookDisplay("tuning", "adamw")
    display.changed(state)
    display.changed(state)  # a trial ended at once
    display.end()
    assert "\n0 of" in updated[0] and "\n1 of" in updated[-1]


def test_progress_in_a_notebook_is_one_output_that_changes(tmp_path, monkeypatch):
    shown, updated = [], []

    def display(bundle, **how):
        shown.append((bundle, how))
        return SimpleNamespace(update=lambda bundle, raw: updated.append(bundle))

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object())))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    to.tune("adamw", str(tmp_path / "ledger"), backend="inline", max_trials=1, **TINY)
    assert len(shown) == 1 and shown[0][1]["display_id"] is True
    assert "1 of " in updated[-1]["text/plain"] and "<b>tuning adamw at nano-65k" in updated[-1]["text/html"]
    to.tune("adamw", str(tmp_path / "ledger"), backend="inline", max_trials=1, progress=False, **TINY)
    assert len(shown) == 1


def test_a_report_of_mapped_columns_draws_its_figures(tmp_path):
    rows = [f"{name},130m,{ratio},{loss - ratio / 50}\n" for name, loss in (("adamw", 3.53), ("muon", 3.49))
            for ratio in (1, 2, 4)]  # fmt: skip
    (tmp_path / "a.csv").write_text("who,scale,ratio,final\n" + "".join(rows))
    columns = {"optimizer": "who", "loss": "final"}
    page = to.report(results=tmp_path / "a.csv", path=tmp_path / "page.html", columns=columns)
    assert page.plot_speedups().data and page.plot_flips().data
