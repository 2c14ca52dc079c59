"""Promises that are checked with fresh seeds: on a ledger whose losses are known, without training."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from report_samples import make_record, make_sweep, run_sweep, smooth_loss

from tuneopt.ledger import Ledger
from tuneopt.spec import TrialSpec


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("held_out")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = Ledger(tmp_path_factory.mktemp("swept"))
    run_sweep(ledger, make_sweep("muon"))
    return ledger


def with_fresh(held_out: ModuleType, swept: Ledger, folder: Path, loss: Callable[[TrialSpec], float | None]) -> object:
    """The check of the one sweep, after its fresh trials ended as ``loss`` says."""
    ledger, (view,) = Ledger(folder), held_out.certified(swept)
    pair = held_out.pair_of(view, 4)
    for spec in (*pair.winner, *pair.rival):
        ledger.put(make_record(spec, loss(spec)))
    return held_out.check(view, pair, ledger)


def test_winner_and_rival_differ_in_one_value_and_run_with_seeds_that_nobody_had(held_out, swept):
    (view,) = held_out.certified(swept)
    pair = held_out.pair_of(view, 4)

    (changed,) = set(pair.rival[0].hyperparameters) - set(pair.winner[0].hyperparameters)
    assert pair.change == f"{changed[0]} {changed[1]}"
    assert pair.winner[0].hyperparameters == view.state.descent.incumbent
    assert [spec.seed for spec in pair.winner] == [spec.seed for spec in pair.rival] == [1000, 1001, 1002, 1003]
    assert not {spec.id for spec in (*pair.winner, *pair.rival)} & set(swept.ids())
    others = [held_out.mean(view, one.config) for one in view.state.descent.star if view.seeds(one.config)]
    assert held_out.mean(view, pair.rival[0].hyperparameters) == min(others)


def test_a_promise_holds_where_the_fresh_runs_are_as_before(held_out, swept, tmp_path):
    found = with_fresh(held_out, swept, tmp_path, smooth_loss)

    assert found.held and not found.broken
    assert found.report_after == pytest.approx(found.report_before, abs=0.02)


@pytest.mark.parametrize(("better", "held", "broken"), [(0.5, True, False), (4.0, False, True)])
def test_a_rival_that_is_better_by_more_than_was_promised_breaks_it(held_out, swept, tmp_path, better, held, broken):
    (view,) = held_out.certified(swept)
    promised = view.state.descent.certificate.resolution

    def loss(spec: TrialSpec) -> float:
        mine = spec.hyperparameters == view.state.descent.incumbent
        return 3.0 + 0.0001 * (spec.seed % 2) - (0 if mine else better * promised)

    found = with_fresh(held_out, swept, tmp_path, loss)
    assert found.after == pytest.approx(better * promised)
    assert (found.held, found.broken) == (held, broken)
    assert not replace(found, error=10 * promised).broken  # noise explains it


def test_a_rival_that_diverges_is_no_better_one(held_out, swept, tmp_path):
    (view,) = held_out.certified(swept)

    def loss(spec: TrialSpec) -> float | None:
        return 3.0 if spec.hyperparameters == view.state.descent.incumbent else None

    assert with_fresh(held_out, swept, tmp_path, loss).held
