"""The optimizer-step benchmark, on a model of a few thousand parameters and torch's own peers."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from tuneopt.spec import Scale


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("optimizer_step")


def test_rows_have_times_ratios_and_state_bytes(bench, monkeypatch):
    absent = bench.Candidate("absent", "absent", lambda model: importlib.import_module("no_such_optimizers"))
    kept = [c for c in bench.CANDIDATES["adamw"] if c.package in ("tuneopt", "torch")]
    monkeypatch.setitem(bench.CANDIDATES, "adamw", [*kept, absent])
    rows = bench.compare("adamw", Scale("tiny", "nano", 1, 16, 32, 2, 8), 24, "cpu", 0.0, 1)
    ours, fused, _, missing = rows
    assert ours["state_bytes_per_parameter"] == pytest.approx(8, abs=1e-9)
    assert 8 <= fused["state_bytes_per_parameter"] < 8.5  # torch counts steps in tensors
    assert 0 < ours["min_ms"] <= ours["median_ms"] <= ours["max_ms"]
    assert ours["median_ratio"] == pytest.approx(ours["median_ms"] / min(r["median_ms"] for r in rows[1:3]))
    assert "median_ratio" not in fused
    assert ".[peers]" in missing["missing"]
    head = {"hardware": "h", "clock": "c", "parameters": 3000, "versions": {"torch": "2"}, "date": "d", "command": "x"}
    table = bench.markdown(head, rows)
    assert table.count("| adamw |") == 4
    assert "**tuneopt**" in table
    json.dumps(rows)


class Dropping(torch.optim.SGD):
    """A peer that drops the gradients it was given, as one of the public packages does."""

    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


class Slow(torch.optim.AdamW):
    """A peer that moves parameters half as far as its rule says."""

    def __init__(self, parameters, **settings):
        super().__init__(parameters, **{**settings, "lr": settings["lr"] / 2})


class Idle(torch.optim.SGD):
    """A peer that does nothing, very fast."""

    def step(self, closure=None):
        return None


def test_a_time_counts_only_where_a_step_was_made(bench, monkeypatch):
    from step_peers import ADAM

    def built(cls, **settings):
        return lambda model: [cls(list(model.parameters()), **settings)]

    kept = [c for c in bench.CANDIDATES["adamw"] if c.package == "tuneopt"]
    rivals = [
        bench.Candidate("drops", "x", built(Dropping, lr=0.1), same=False),
        bench.Candidate("idle", "x", built(Idle, lr=0.1), same=False),
        bench.Candidate("slow", "x", built(Slow, **ADAM)),
        bench.Candidate("torch", "x", built(torch.optim.AdamW, **ADAM)),
    ]
    monkeypatch.setitem(bench.CANDIDATES, "adamw", [*kept, *rivals])
    _, drops, idle, slow, same = bench.compare("adamw", Scale("tiny", "nano", 1, 16, 32, 2, 8), 24, "cpu", 0.0, 1)
    assert drops["steps"] >= 5 and "missing" not in drops  # its gradients are set anew before each step
    assert "median_ms" not in idle and "stood still in step 1" in idle["missing"]
    assert "median_ms" not in slow and "moved 0.5 times as far" in slow["missing"]
    assert same["moved"] == pytest.approx(1, abs=1e-3) and same["aligned"] == pytest.approx(1, abs=1e-3)


def test_ratios_are_to_peers_of_the_same_rule_where_there_are_any(bench):
    def row(ours, same, ms):
        return {"ours": ours, "same_rule": same, "median_ms": ms, "min_ms": ms, "mean_ms": ms}

    rows = [row(True, True, 6.0), row(False, True, 3.0), row(False, False, 1.0)]
    bench.add_ratios(rows)
    assert rows[0]["median_ratio"] == 2.0
    kindred = [row(True, True, 6.0), row(False, False, 12.0)]
    bench.add_ratios(kindred)
    assert kindred[0]["median_ratio"] == 0.5


def test_every_optimizer_has_a_place(bench):
    from tuneopt.optim.info import BUILT_IN

    assert set(bench.CANDIDATES) == {entry.name for entry in BUILT_IN}
    assert all(candidates[0].ours for candidates in bench.CANDIDATES.values())


@pytest.mark.parametrize("name", ["ademamix", "adopt", "prodigy", "schedule_free", "dion", "shampoo", "muonh", "adamc"])
def test_further_rules_and_presets_step_and_move(bench, monkeypatch, name):
    kept = [one for one in bench.CANDIDATES[name] if one.package in ("tuneopt", "pytorch_optimizer", "schedulefree")]
    monkeypatch.setitem(bench.CANDIDATES, name, kept)
    rows = bench.compare(name, Scale("tiny", "nano", 1, 16, 32, 2, 8), 24, "cpu", 0.0, 1)
    assert all("median_ms" in row or row["missing"].startswith("not installed") for row in rows), rows


def test_our_own_failure_is_not_hidden(bench, monkeypatch):
    monkeypatch.setitem(bench.CANDIDATES, "lion", [bench.Candidate("broken", "tuneopt", lambda model: 1 / 0)])
    with pytest.raises(ZeroDivisionError):
        bench.compare("lion", Scale("tiny", "nano", 1, 16, 32, 2, 8), 24, "cpu", 0.0, 1)
    assert "optimizer_step" in sys.modules
