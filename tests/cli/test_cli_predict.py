"""``tuneopt predict``: its JSON shape, its table, its sources and its refusals."""

from __future__ import annotations

import json
import sys

import pytest

from tuneopt import api
from tuneopt.cli import main
from tuneopt.spec import InputError


def cli(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["tuneopt", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_json_has_the_documented_shape(monkeypatch, capsys):
    code = cli(monkeypatch, "predict", "--optimizer", "adamw", "--params", "1.2e9", "--ratio", "16", "--json")
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert set(document["extrapolation"]) == {"params", "ratio"}
    assert document["extrapolation"]["params"] == pytest.approx(1.2e9 / 536870912)
    assert document["extrapolation"]["ratio"] == 2.0
    assert {"learning_rate", "weight_decay", "train_batch_size", "warmup"} <= set(document["config"])
    for each in document["config"].values():
        assert {"value", "low", "high"} <= set(each)
        assert each["low"] <= each["value"] <= each["high"]
    assert document["config"]["train_batch_size"]["value"] in (128, 256, 512, 1024)


def test_parameters_are_counted_as_people_write_them(monkeypatch, capsys):
    for written in ("124M", "124e6", "124_000_000"):
        assert cli(monkeypatch, "predict", "-O", "adamw", "--params", written, "--ratio", "1", "--json") == 0
        assert json.loads(capsys.readouterr().out)["params"] == 124e6
    with pytest.raises(InputError, match=r"at least 1,000, not 0.124; write 124 million as 124e6"):
        api.predict("adamw", 0.124, 1)


def test_people_see_a_table_and_how_far_it_reaches(monkeypatch, capsys):
    code = cli(monkeypatch, "predict", "--optimizer", "lion", "--params", "1.2e9", "--ratio", "8")
    shown = capsys.readouterr()
    assert code == 0
    assert "learning_rate" in shown.out and "ratio^" in shown.out and "12 regimes" in shown.out
    assert "beyond what was tuned" in shown.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--optimizer", "adamv", "--params", "1e9", "--ratio", "1"), "adamw"),
        (("--optimizer", "adamw", "--params", "0", "--ratio", "1"), "params must be"),
        (("--optimizer", "adamw", "--params", "0.124", "--ratio", "1"), "params must be a whole number"),
        (("--optimizer", "adamw", "--params", "124", "--ratio", "1"), "at least 1,000, not 124; write"),
        (("--optimizer", "adamw", "--params", "124MB", "--ratio", "1"), "params must be a count such as 50M"),
        (("--optimizer", "adamw", "--params", "1e9", "--ratio", "-2"), "ratio must be"),
        (("--optimizer", "adamw", "--params", "1e9", "--ratio", "1", "--ledger", "/nowhere/at/all"), "ledger"),
    ],
)
def test_bad_input_ends_in_one_line(monkeypatch, capsys, words, hint):
    assert cli(monkeypatch, "predict", *words) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and hint in shown.err


def test_certified_sweeps_of_a_ledger_are_the_ground(monkeypatch):
    """Two certified sweeps and one unfinished one, as the ledger's replay tells them."""
    from dataclasses import replace
    from types import SimpleNamespace

    from tuneopt.run.simulated import simulate
    from tuneopt.search import records
    from tuneopt.search.space import load_space
    from tuneopt.search.sweep import Sweep
    from tuneopt.spec import SCALES, CorpusId, Regime

    corpus = CorpusId("embedded", "00000000", 512)
    sweeps = {}
    states = {}
    for scale, best in (("nano-65k", 0.016), ("nano-262k", 0.008), ("nano-147k", None)):
        sweep = Sweep(load_space("adamw").on("nano"), Regime(SCALES[scale], 1, corpus), replicates=1)
        sweeps[sweep.id] = sweep.to_dict()
        if best is None:
            states[sweep.id] = sweep.state({})
        else:
            ended = simulate(sweep, lambda spec, best=best: 3 + 40 * abs(spec.config["learning_rate"] - best)).state
            # The finish may end on another incumbent than the search: that one counts.
            states[sweep.id] = replace(ended, searched=sweep.state({}).searched)
    ledger = SimpleNamespace(sweeps=lambda: sweeps, uri="copy", address="here")
    monkeypatch.setattr(records, "replay", lambda task, ledger: (SimpleNamespace(state=states[task.sweep.id]), {}))
    found = api.predict("adamw", 131072, 1, ledger).to_dict()
    assert (found["regimes"], found["ladder"]) == (2, "nano")
    rate = found["config"]["learning_rate"]
    assert (rate["low"], rate["high"], rate["method"]) == (0.008, 0.016, "median")
    with pytest.raises(InputError, match="no certified sweep of muon"):
        api.predict("muon", 1e6, 1, ledger)


def test_a_sweep_that_varies_nothing_tells_no_regime():
    """The example has eight complete certificates of AdamW, and in one of those sweeps something was varied."""
    from tuneopt.reporting.example import FILE

    found = api.predict("adamw", 1e9, 1, str(FILE))
    assert found.forecast.regimes == 1 and found.forecast.extrapolation["ratio"] == pytest.approx(1 / 0.7071, rel=1e-4)
    assert {name: each.method for name, each in found.forecast.coordinates.items()}["learning_rate"] == "constant"
    assert found.forecast.coordinates["learning_rate"].support == 1
    assert found.forecast.coordinates["weight_decay"].support == 0  # held in the one sweep, so not tuned
    assert found.source == f"certified sweeps in {FILE}" and "from 1 regime: " in str(found)
    with pytest.raises(InputError, match="no certified sweep of muon that varies anything"):
        api.predict("muon", 1e9, 1, str(FILE))


def test_a_regime_has_one_winner_that_of_the_sweep_that_varies_most(monkeypatch):
    """Five sweeps in two regimes: no law. What one sweep held is told by another that varied it."""
    from types import SimpleNamespace

    from tuneopt.run.simulated import simulate
    from tuneopt.search import records
    from tuneopt.search.space import load_space
    from tuneopt.search.sweep import Sweep
    from tuneopt.spec import SCALES, CorpusId, Regime

    corpus = CorpusId("embedded", "00000000", 512)
    every = load_space("adamw").on("nano")
    sweeps, states = {}, {}
    for scale, seed, varied, best in (
        ("nano-65k", 0, ("learning_rate", "warmup"), 0.016),
        ("nano-65k", 1, ("learning_rate",), 0.001),
        ("nano-65k", 2, ("learning_rate",), 0.001),
        ("nano-65k", 3, (), 0.001),
        ("nano-262k", 4, ("learning_rate",), 0.008),
    ):
        space = every.pin({axis.name: axis.start for axis in every.axes if axis.name not in varied})
        sweep = Sweep(space, Regime(SCALES[scale], 1, corpus), seed, replicates=1)
        sweeps[sweep.id] = sweep.to_dict()
        states[sweep.id] = simulate(
            sweep, lambda spec, best=best: 3 + 40 * abs(spec.config["learning_rate"] - best)
        ).state
    ledger = SimpleNamespace(sweeps=lambda: sweeps, address="here")
    monkeypatch.setattr(records, "replay", lambda task, ledger: (SimpleNamespace(state=states[task.sweep.id]), {}))
    found = api.predict("adamw", 131072, 1, ledger).to_dict()
    assert found["regimes"] == 2
    rate = found["config"]["learning_rate"]
    assert (rate["low"], rate["high"], rate["method"]) == (0.008, 0.016, "median")
    assert found["config"]["warmup"]["support"] == 1 and found["config"]["weight_decay"]["support"] == 0
