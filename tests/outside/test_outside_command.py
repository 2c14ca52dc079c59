"""The command line with a third party's files: bad input ends in one sentence and exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from outside_samples import PLAIN, SPACE, install

from tuneopt import outside
from tuneopt.cli import main

BAD = {
    "missing file": (["./nowhere.py:Plain", "./space.py"], "there is no optimizer at nowhere.py"),
    "missing class": (["./mine.py:Plan", "./space.py"], "is one for 'Plain', not for 'Plan'"),
    "no class in it": (["./mine.py:Absent", "./absent.py"], "has no class 'Absent'"),
    "no class named": (["./mine.py", "./space.py"], "PATH.py:Class"),
    "no optimizer": (["./mine.py:NotOne", "./notone.py"], "is no torch optimizer"),
    "no space": (["./mine.py:Plain"], "add --space PATH.py"),
    "missing space": (["./mine.py:Plain", "./nospace.py"], "there is no search space at nospace.py"),
    "space without SPACE": (["./mine.py:Plain", "./mine.py"], "bind a SearchSpace to the name SPACE"),
    "built-in name": (["./taken.py:adamw", "./space.py"], "has the name of a built-in optimizer"),
    "clashing package": (["lion"], "claimed by tuneopt itself and by package sample_bad 1.0"),
    "broken package": (["broken", "./broken_space.py"], "cannot be imported: ModuleNotFoundError"),
    "unknown words": (["./mine.py:Plain", "./words.py"], "has no hyperparameter 'gamma'"),
}


@pytest.fixture
def messy(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outside, "SOURCES", {})
    (tmp_path / "mine.py").write_text(PLAIN)
    (tmp_path / "taken.py").write_text(PLAIN.replace("Plain", "adamw"))
    for file, name in (("space", "Plain"), ("absent", "Absent"), ("notone", "NotOne"), ("broken_space", "broken")):
        (tmp_path / f"{file}.py").write_text(SPACE.format(name=name))
    (tmp_path / "words.py").write_text(SPACE.format(name="Plain").replace("beta1", "gamma"))
    entries = "lion = sample_bad.optimizer:Plain\nbroken = sample_bad.broken:Plain"
    install(site, "sample_bad", entries, optimizer=PLAIN, broken="import sample_nowhere")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tuneopt", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize("command", ["tune", "train"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(case, command, messy, monkeypatch, capsys):
    (optimizer, *space), expected = BAD[case]
    options = ["--space", *space] if space else []
    assert run(monkeypatch, command, "--optimizer", optimizer, *options) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.strip().splitlines()) == 1 and expected in err, err


def test_a_clash_or_a_broken_package_stops_the_list_too(messy, monkeypatch, capsys):
    assert run(monkeypatch, "optimizers") == 2
    assert "claimed by tuneopt itself" in capsys.readouterr().err


def test_a_broken_package_is_named_by_the_list(site, monkeypatch, capsys):
    install(site, "sample_broken", "broken = sample_broken.broken:Plain", broken="import sample_nowhere")
    assert run(monkeypatch, "optimizers", "--json") == 2
    out, err = capsys.readouterr()
    assert out == "" and "'broken' of package sample_broken 1.0 cannot be imported" in err


def test_installed_optimizers_are_listed_and_their_spaces_shown(site, monkeypatch, capsys):
    install(
        site, "sample_good", "good = sample_good.optimizer:Plain", "good = sample_good.space",
        optimizer=PLAIN, space=SPACE.format(name="good"),
    )  # fmt: skip
    assert run(monkeypatch, "optimizers", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows][-1] == "good" and rows[-1]["origin"] == "package sample_good 1.0"
    assert run(monkeypatch, "optimizers") == 0
    (line,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("good")]
    assert line[:4] == ["good", "package", "sample_good", "1.0"] and line.count("declared") == 2
    assert run(monkeypatch, "space", "good", "--json") == 0
    assert json.loads(capsys.readouterr().out)["optimizer"] == "good"


def test_a_space_file_is_shown(messy, monkeypatch, capsys):
    assert run(monkeypatch, "space", "./space.py") == 0
    assert "learning_rate" in capsys.readouterr().out


def test_predictions_for_a_class_from_a_file_rest_on_its_own_sweeps(messy, monkeypatch, capsys):
    """A sweep whose records lie in the ledger; the old version's name still works when the file has been edited."""
    from dataclasses import replace

    from ledger_records import put_simulated

    from tuneopt.api import space_of
    from tuneopt.ledger import open_ledger
    from tuneopt.search.sweep import Sweep
    from tuneopt.spec import SCALES, CorpusId, Regime

    ledger = open_ledger(str(messy / "ledger"))
    space = space_of("./mine.py:Plain", "./space.py").on("nano", {"train_batch_size": 16, "warmup": 0.1})
    corpus = CorpusId("embedded", "00000000", 1024)
    for scale, best in (("nano-65k", 0.1), ("nano-262k", 0.01)):
        sweep = replace(Sweep(space, Regime(SCALES[scale], 1, corpus)), replicates=1)
        put_simulated(ledger, sweep, lambda spec, best=best: 3 + abs(float(spec.config["learning_rate"]) - best))
    words = ["predict", "--params", "131072", "--ratio", "1", "--ledger", "ledger", "--json"]
    assert run(monkeypatch, *words, "--optimizer", "./mine.py:Plain") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["optimizer"] == space.optimizer and found["regimes"] == 2
    assert (found["config"]["learning_rate"]["low"], found["config"]["learning_rate"]["high"]) == (0.01, 0.1)
    (messy / "mine.py").write_text(PLAIN + "# edited\n")
    assert run(monkeypatch, *words, "--optimizer", "./mine.py:Plain") == 2
    assert f"give --optimizer {space.optimizer}" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--optimizer", space.optimizer) == 0


def test_without_a_ledger_predictions_need_published_points(messy, monkeypatch, capsys):
    for options in (["./mine.py:Plain", "--space", "./space.py"], ["./mine.py:Plain"]):
        code = run(monkeypatch, "predict", "--params", "1e9", "--ratio", "1", "--optimizer", *options)
        assert code == 2
    err = capsys.readouterr().err.splitlines()
    assert "has no published tuned points; give the --ledger" in err[0] and "add --space PATH.py" in err[1]
