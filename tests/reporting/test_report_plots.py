"""The figures of a notebook: plotly figures with the finding as title, from every source, without torch and ray."""

import json
import subprocess
import sys

import pytest
from report_rows import table_rows

import tuneopt
from tuneopt.spec import InputError


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("plots") / "rows.json"
    path.write_text(json.dumps(table_rows()))
    return path


def test_the_published_study_is_one_call_away():
    speedups, flips = tuneopt.plot_speedups(published=True), tuneopt.plot_flips(published=True, by="size")
    assert "the largest measured is Muon's 1.42 at 130M/1x" in speedups.layout.title.text
    assert "changes with model size" in flips.layout.title.text
    assert {annotation.text for annotation in speedups.layout.annotations} >= {"<b>130M</b>", "<b>Muon</b>", "Lion"}


def test_curves_come_from_a_table_and_from_a_ledger(rows, several):
    assert "behind during training" in tuneopt.plot_curves(results=rows).layout.title.text
    assert len(tuneopt.plot_curves(several).data) > 4


def test_another_baseline_is_named_on_the_axis():
    figure = tuneopt.plot_speedups(published=True, baseline="Muon")
    assert "speedup over Muon" in {annotation.text for annotation in figure.layout.annotations}


def test_what_cannot_be_drawn_is_said_in_one_sentence():
    with pytest.raises(InputError, match="there is nothing to report on"):
        tuneopt.plot_flips()
    with pytest.raises(InputError, match="by ratio or by size, not by 'model'"):
        tuneopt.plot_speedups(published=True, by="model")


def test_a_notebook_needs_neither_torch_nor_ray():
    code = "import sys, tuneopt; tuneopt.plot_flips(published=True); assert not {'torch', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
