"""Out-of-sample calibration of the speedups' intervals; see the benchmark of that name."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuneopt.analysis.inputs import load, published
from tuneopt.analysis.noise import PAPER_LADDER_SIGMA, measure
from tuneopt.analysis.speedup import IntervalSettings
from tuneopt.analysis.winner import winners

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
_SPEC = importlib.util.spec_from_file_location("calibration", SCRIPT)
assert _SPEC is not None and _SPEC.loader is not None
calibration: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["calibration"] = calibration  # dataclasses look their own module up
_SPEC.loader.exec_module(calibration)
Case, GOAL, LAWS = calibration.Case, calibration.GOAL, calibration.LAWS
coarser, left_out, simulated = calibration.coarser, calibration.left_out, calibration.simulated
summarise, tables = calibration.summarise, calibration.tables

STEPLAW = Path(__file__).resolve().parents[3] / "shared" / "tables" / "steplaw_dense.csv"
QUICK = IntervalSettings(draws=300)

needs_steplaw = pytest.mark.skipif(not STEPLAW.exists(), reason="the Step Law table does not lie beside this clone")


def share(cases: list[Any]) -> float:
    return sum(one.held for one in cases) / len(cases)


def test_runs_left_out_of_the_published_study_are_held() -> None:
    """At 300M. What noise between seeds and one power law say, without tuning and form, holds fewer of them."""
    runs = published().runs
    small = [winner for winner in winners(runs, measure(runs)) if winner.regime.scale == "300m"]
    cases = list(left_out("study", small, QUICK))
    kinds = Counter(one.row for one in cases)
    assert kinds == {"study: longest run left out": 10, "study: inner run left out": 20}
    assert share(cases) >= GOAL[0]
    nothing = list(left_out("study", small, replace(QUICK, tuning=0.0, drift=0.0)))
    assert share(nothing) < share(cases) - 0.1


def test_simulated_laws_of_every_form_are_held() -> None:
    cases = list(simulated(12, QUICK))
    rows = {row["what"]: row for row in summarise(cases)}
    assert all(f"simulated {name}, inside the budgets" in rows for name in LAWS)
    assert 0.82 <= share(cases) <= 0.97  # 240 intervals: four standard errors around 90%


def test_a_row_is_judged_where_it_has_cases_enough() -> None:
    held, missed = (Case("t: inner run left out", held, 0.1, 0.01, 0.02) for held in (True, False))
    few = summarise([held] * 9)
    assert {row["what"]: row["good"] for row in few} == {"t: inner run left out": None, "t: every run left out": None}
    fine, poor = summarise([held] * 18 + [missed] * 2), summarise([held] * 15 + [missed] * 5)
    assert fine[1]["good"] is True and fine[1]["held"] == 0.9 and poor[1]["good"] is False
    assert summarise([held] * 20)[1]["good"] is False  # intervals that always hold are too wide
    rivals = summarise([replace(held, row="t: rivals once the baseline's longest run is known")] * 20)
    assert rivals[0]["good"] is True


@needs_steplaw
def test_the_step_law_table_is_held_and_splits_into_four_grids() -> None:
    runs = load(STEPLAW).runs
    cases = list(left_out("steplaw", winners(runs, measure(runs, PAPER_LADDER_SIGMA)), QUICK))
    assert len(cases) == 9 and sum(one.held for one in cases) >= 8
    grids = coarser(runs)
    assert len(grids) == 4 and sum(map(len, grids)) == len(runs)
    assert coarser(runs[:50]) == []


@pytest.mark.slow
def test_the_whole_benchmark_is_as_declared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--table", str(STEPLAW)] if STEPLAW.exists() else []
    monkeypatch.setattr("sys.argv", ["calibration.py", "--studies", "60", *extra])
    assert calibration.main() == 0, capsys.readouterr().out
    rows = {row["what"]: row for row in summarise(list(tables(extra[1:], IntervalSettings())))}
    longest = rows["published study: longest run left out"]
    assert GOAL[0] <= longest["held"] <= GOAL[1] and longest["of"] == 31
