"""`tuneopt compare`: the shapes of its documents, its exit codes, and what it says before it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuneopt import api, cli
from tuneopt.ledger import open_ledger

STUDIES = Path(__file__).resolve().parents[2] / "studies"
QUESTION = ("compare", "soap", "--minutes", "8", "--slots", "2")


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["tuneopt", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_simulated_comparison_has_the_promised_shape(tmp_path, monkeypatch, capsys):
    code = run(monkeypatch, *QUESTION, "--simulate", "--ledger", tmp_path / "none", "--json")
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["baseline"] == "adamw"
    budget = document["budget"]
    assert budget["spent_hours"] == pytest.approx(budget["planned_hours"], rel=0.15)
    assert 0 < document["resolution"] < 0.2
    (row,) = document["speedups"]
    assert {"optimizer", "scale", "ratio", "speedup", "low", "high", "tie_group", "flags"} <= set(row)
    assert row["low"] < row["speedup"] < row["high"]
    assert f"{row['speedup']:.2f}x" in document["statement"]
    assert document["report"] == ""
    cares = document["care"]
    assert [care["optimizer"] for care in cares] == ["adamw", "soap"]
    assert len({care["trials"] for care in cares}) == 1, "equal budgets, and recorded"
    assert all("learning_rate" in care["coordinates"] and care["resolution"] > 0 for care in cares)
    assert not (tmp_path / "none").exists(), "a simulation leaves nothing"


def test_a_dry_run_says_what_the_plan_will_tell_apart_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "tuneopt.training.run.trained_throughput", lambda *some, **more: pytest.fail("a step was trained")
    )
    saved = tmp_path / "plans" / "mine.yaml"
    ledger = tmp_path / "ledger"
    assert run(monkeypatch, *QUESTION, "--dry-run", "--ledger", ledger, "--save", saved) == 0
    shown = capsys.readouterr().out
    assert "can be told apart from" in shown and "half of that takes" in shown and "a speedup of" in shown
    assert not ledger.exists()
    assert run(monkeypatch, "study", "plan", saved, "--ledger", ledger, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [part["name"] for part in document["phases"]] == ["I", "seeds", "baseline"]
    assert document["power"][0]["nats"] > 0
    assert document["limits"]["max_device_hours"] > document["total"]["device_hours"]
    assert run(monkeypatch, "study", "run", saved, "--simulate", "--slots", 2, "--noise", 0.025, "--json") in (0, 3)
    assert json.loads(capsys.readouterr().out)["finished"]


@pytest.mark.parametrize(
    "words, told",
    [
        (("soap",), "give --hours or --minutes, or --resolution"),
        (("soap", "--hours", "1", "--minutes", "60"), "not both"),
        (("soap", "--hours", "1", "--resolution", "0.01"), "give --hours or --minutes, or --resolution"),
        (("soap", "--minutes", "-1"), "must be a positive number"),
        (("soap", "--minutes", "0.5"), "too few"),
        (("sopa", "--minutes", "8"), "soap"),
        (("adamw", "--minutes", "8"), "name at least one optimizer"),
        (("soap", "--minutes", "8", "--baseline", "adam"), "adamw"),
        (("soap", "--minutes", "8", "--space", "muon=x.py"), "not compared"),
        (("soap", "--minutes", "8", "--set", "learning_rte=1"), "learning_rate"),
        (("soap", "--minutes", "8", "--scale", "nano-66k"), "nano-65k"),
        (("soap", "--minutes", "8", "--tokens-per-second", "0"), "must be a positive number"),
        (("soap", "--minutes", "8", "--scale", "130m"), "--tokens-per-second"),
        (("soap", "--minutes", "nan"), "--hours or --minutes must be a positive number"),
        (("soap", "--minutes", "8", "--ratio", "0.0001"), "less than one step of 8 sequences"),
        (("soap", "--minutes", "3", "--ratio", "8"), "ask for shorter runs (--tokens "),
        (("soap", "--resolution", "1e-9"), "ask for 0.003 nats or more"),
        (("muon", "--minutes", "8", "--set", "lr_schedule=cosin"), "cosine"),
        (("muon", "--minutes", "8", "--set", "lr_schedule=cosine", "--set", "decay=0.5"), "decay"),
    ],
)
def test_bad_input_is_one_sentence_and_two(words, told, tmp_path, monkeypatch, capsys):
    code = run(monkeypatch, "compare", *words, "--dry-run", "--slots", 2, "--ledger", tmp_path / "none")
    printed = capsys.readouterr()
    assert code == 2 and printed.out == ""
    assert printed.err.startswith("tuneopt: ") and printed.err.count("\n") == 1
    assert told in printed.err


@pytest.mark.parametrize(
    "words, measured",  # of a study its three optimizers at the smallest scale, and the baseline at the two larger ones
    [(("tune", "-O", "soap", "--dry-run"), 1), (("study", "plan", STUDIES / "nano.yaml"), 5)],
)
def test_a_cost_is_arithmetic_until_measuring_is_asked_for(words, measured, tmp_path, monkeypatch, capsys):
    timed = []
    monkeypatch.setattr("tuneopt.training.run.trained_throughput", lambda *some, **more: timed.append(some) or 1234.0)
    ledger = ("--ledger", tmp_path / "none", "--json")
    assert run(monkeypatch, *words, *ledger) == 0
    known = json.loads(capsys.readouterr().out)
    assert not timed and "known core" in known["throughput_from"]
    power = known["power"] if isinstance(known["power"], dict) else known["power"][0]
    assert power["nats"] > 0 and power["speedup"] > 1 and power["halving_seeds"] == 4 * power["seeds"]
    assert run(monkeypatch, *words, "--measure", *ledger) == 0
    assert len(timed) == measured and "measured now" in json.loads(capsys.readouterr().out)["throughput_from"]


@pytest.mark.parametrize(("gpus", "where"), [(0.0, "cpu"), (1.0, "cuda")])
def test_steps_are_timed_where_trials_will_train(gpus, where, tmp_path, monkeypatch):
    """A trial that asks for no GPU sees none, so a GPU's step times would plan a run that its cores cannot keep."""
    timed = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(
        "tuneopt.training.run.trained_throughput", lambda spec, corpus, models, beside: timed.append(models) or 1e5
    )
    plan = api.comparison_plan(["soap"], hours=8, gpus_per_trial=gpus, ledger=tmp_path / "none", measure=True)
    assert {models.device.type for models in timed} == {where}
    assert plan.slots == (1 if gpus else os.cpu_count())


def test_a_cost_is_a_range_and_wider_where_nobody_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tuneopt.training.run.trained_throughput", lambda *some, **more: 50_000.0)
    widths = []
    for words in ((), ("--measure",)):
        assert run(monkeypatch, "tune", "-O", "soap", "--dry-run", *words, "--ledger", tmp_path / "none", "--json") == 0
        known = json.loads(capsys.readouterr().out)
        assert known["seconds_low"] < known["seconds"] < known["seconds_high"]
        widths.append(known["seconds_high"] / known["seconds_low"])
    assert widths[0] > 2 * widths[1]
    assert run(monkeypatch, "study", "plan", STUDIES / "nano.yaml", "--ledger", tmp_path / "none", "--json") == 0
    whole = json.loads(capsys.readouterr().out)["total"]
    assert whole["device_hours_low"] < whole["device_hours"] < whole["device_hours_high"]


def test_a_comparison_on_gpus_is_planned_by_the_trials_that_they_hold(tmp_path, monkeypatch, capsys):
    """One GPU beside many cores trains one trial at a time, whatever the cores could hold."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    words = ("compare", "soap", "--hours", "8", "--tokens-per-second", "50000", "--dry-run", "--json")
    for gpus, slots in ((1, 1), (0.5, 2), (0, 16)):
        run(monkeypatch, *words, "--gpus-per-trial", gpus, "--ledger", tmp_path / "none")
        assert json.loads(capsys.readouterr().out)["budget"]["slots"] == slots


def test_it_comes_first_among_the_commands(monkeypatch, capsys):
    run(monkeypatch, "--help")
    commands = capsys.readouterr().out.partition("Commands:")[2].split("\n")
    assert commands[1].split()[0] == "compare"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_comparison_that_is_killed_twice_goes_on_with_its_plan(tmp_path):
    """Real trials in one process, of a hundred steps less than anybody would take."""
    words = [
        sys.executable, "-m", "tuneopt", "compare", "soap", "--minutes", "6", "--ratio", "0.01", "--backend", "inline",
        "--no-compile", "--ledger", str(tmp_path / "ledger"), "-o", str(tmp_path / "page.html"), "--json",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ledger = open_ledger(tmp_path / "ledger")
    plans = []
    for records in (2, 6):
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(ledger.ids()) < records and process.poll() is None:
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        plans.append([path.read_text() for path in (tmp_path / "ledger" / "comparisons").glob("*.yaml")])
    before = set(ledger.ids())
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 3), ended.stderr
    document = json.loads(ended.stdout)
    assert plans[0] == plans[1] and len(plans[0]) == 1
    assert document["trials"]["reused"] == len(before) and document["run"] > 0
    assert document["statement"] and document["speedups"]
    assert (tmp_path / "page.html").is_file()
    again = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert json.loads(again.stdout)["run"] == 0
    assert json.loads(again.stdout)["statement"] == document["statement"]
    assert Path(document["report"]) == tmp_path / "page.html"
