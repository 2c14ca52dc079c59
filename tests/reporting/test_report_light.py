"""An installation that only reads results: what it does runs without the packages that training takes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tuneopt.errors import TRAINING_PACKAGES

ROOT = Path(__file__).parents[2]

BLOCKED = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TRAINING_PACKAGES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
"""Makes the packages of training absent, whether or not they are installed."""

COMMANDS = """
import contextlib, io, json
from tuneopt.cli import main

for words in json.loads(sys.argv[1]):
    sys.argv = ["tuneopt", *words]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            main()
    except SystemExit as end:
        print(json.dumps([end.code, text.getvalue()[-300:]]))
"""

READING = (
    ["--help"],
    ["optimizers"],
    ["space", "soap"],
    ["predict", "--optimizer", "muon", "--params", "1.2e9", "--ratio", "8"],
    ["scale", "show", "nano-65k"],
    ["scale", "show", str(ROOT / "scales" / "gpt2.yaml")],
    ["study", "plan", str(ROOT / "studies" / "nano.yaml")],
    ["study", "run", str(ROOT / "studies" / "smoke.yaml"), "--simulate"],
    ["report", "--published", "-o", "published.html"],
    ["report", "--ledger", "LEDGER", "-o", "own.html", "--figures", "figures"],
    ["ledger", "ls", "--ledger", "LEDGER"],
    ["ledger", "export", "trials.parquet", "--ledger", "LEDGER"],
)
"""What a reader of results runs."""

NOTEBOOK = """
import tuneopt as to

for draw in (to.plot_speedups, to.plot_flips, to.plot_curves):
    assert draw(sys.argv[1]).data
assert to.predict("muon", 1.2e9, 8).forecast.regimes == 12
assert not {"torch", "ray", "deepspeed", "datasets", "optuna"} & set(sys.modules)
"""


def run(code: str, *words: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *words], capture_output=True, text=True, timeout=280, cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def outcomes(commands: list[list[str]], cwd: Path) -> list[tuple[int, str]]:
    return [tuple(json.loads(line)) for line in run(COMMANDS, json.dumps(commands), cwd=cwd).splitlines()]


def test_results_are_read_without_the_packages_of_training(several, tmp_path):
    commands = [[several.uri if word == "LEDGER" else word for word in words] for words in READING]
    ended = dict(zip(map(" ".join, commands), outcomes(commands, tmp_path), strict=True))
    assert {
        command: end for command, end in ended.items() if end[0] != (3 if command.startswith("study run") else 0)
    } == {}
    assert len(list((tmp_path / "figures").iterdir())) > 3 and (tmp_path / "own.html").stat().st_size > 100_000


def test_a_notebook_draws_without_the_packages_of_training(several, tmp_path):
    run(NOTEBOOK, several.uri, cwd=tmp_path)


@pytest.mark.parametrize("words", [["train", "--optimizer", "adamw"], ["data", "inspect"]], ids=" ".join)
def test_what_trains_names_the_package_that_it_lacks(words, tmp_path):
    ((code, said),) = outcomes([words], tmp_path)
    assert code == 2 and said.count("\n") == 1
    assert re.match(rf"tuneopt: this needs the package ({'|'.join(TRAINING_PACKAGES)}), .*pip install", said)


def test_the_doctor_finds_what_is_missing_instead_of_failing(tmp_path):
    ((_, said),) = outcomes([["doctor"]], tmp_path)
    assert "traceback" not in said and "disk, temporary files" in said


def test_the_light_requirements_are_all_but_what_training_takes() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    light = {line for line in (ROOT / "requirements-light.txt").read_text().splitlines() if line[:1] != "#"}
    assert light < declared
    assert {re.split(r"[\[><=]", line)[0] for line in declared - light} == set(TRAINING_PACKAGES)
