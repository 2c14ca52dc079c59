"""The examples run as they are, and give what they promise."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
from pages import ROOT


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_listed_and_tested():
    listed = (ROOT / "examples" / "README.md").read_text()
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert len(names) == 5 and all(f"({name})" in listed for name in names)
    assert all(f'example("{name[:-3]}")' in Path(__file__).read_text() for name in names)


def test_a_table_from_a_tracker_gives_the_speedup_that_was_put_in(tmp_path):
    module = example("table_from_a_tracker")
    page = module.main(str(tmp_path))
    rows = [row for row in page["speedups"] if row["optimizer"] == "newopt" and row["ratio"] < 8]
    assert len(rows) == 3 and (tmp_path / "report.html").exists()
    for row in rows:
        assert row["low"] < module.FASTER < row["high"] and row["speedup"] == pytest.approx(module.FASTER, rel=0.15)


def test_a_certificate_is_read(capsys):
    views = example("reading_a_certificate").main()
    shown = capsys.readouterr().out
    assert {view.optimizer for view in views} == {"adamw", "muon", "soap"}
    assert "single changes of the best configuration" in shown and "learning_rate = " in shown


def test_a_study_is_planned_and_simulated(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # its study is the shipped one
    result = example("study_on_a_cluster").main(ledger=str(tmp_path / "ledger"))
    assert "fits: True" in capsys.readouterr().out and result.status["finished"]


@pytest.mark.slow
def test_my_gpt_on_my_text_learns(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    words = (ROOT / "docs" / "glossary.md").read_text() + (ROOT / "docs" / "analysis.md").read_text()
    for number in range(40):
        (texts / f"{number}.txt").write_text(words[number * 500 :][:4000])
    losses = example("my_gpt_on_my_text").main(str(texts), ledger=str(tmp_path / "ledger"))
    assert set(losses) == {"adamw", "muon"} and max(losses.values()) < math.log(1024)


@pytest.mark.slow
def test_an_optimizer_from_a_package_runs_and_learns(tmp_path):
    pytest.importorskip("lion_pytorch", reason="lion-pytorch is not installed (pip install lion-pytorch)")
    losses = example("optimizer_from_a_package").main(str(tmp_path))
    assert set(losses) == {"Lion", "adamw"} and max(losses.values()) < 6.9
