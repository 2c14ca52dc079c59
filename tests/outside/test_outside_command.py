"""The command line with a third party's files: bad input ends in one sentence and exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from outside_samples import PLAIN, SPACE, install

from tuneopt.cli import main
from tuneopt.optim import external

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
    monkeypatch.setattr(external, "_SOURCES", {})
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
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line[:4] == ["good", "package", "sample_good", "1.0"] and line.count("declared") == 2
    assert run(monkeypatch, "space", "good", "--json") == 0
    assert json.loads(capsys.readouterr().out)["optimizer"] == "good"


def test_a_space_file_is_shown(messy, monkeypatch, capsys):
    assert run(monkeypatch, "space", "./space.py") == 0
    assert "learning_rate" in capsys.readouterr().out
