"""The first minute: the bare command, the version, the help, completion in a shell, and a link to the report."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import tuneopt
from tuneopt.cli import app
from tuneopt.commands.help import COMMANDS, EXAMPLES, GROUPS, UNITS


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuneopt", *words], capture_output=True, text=True, timeout=120, cwd=cwd,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **environment},
    )  # fmt: skip


def commands(command=None, path=""):
    """Every command with its path, those that hold others too."""
    command = get_command(app) if command is None else command
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}".strip())


ALL = dict(commands())


def test_the_version_is_one_line(tmp_path):
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tuneopt {tuneopt.__version__}\n", "")


@pytest.mark.parametrize("words", [(), ("study",)], ids=["bare", "study"])
def test_a_bare_command_prints_its_help_in_lines(words, tmp_path):
    bare, asked = run(*words, cwd=tmp_path), run(*words, "-h", cwd=tmp_path)
    assert bare.returncode == 2 and asked.returncode == 0
    assert bare.stderr == asked.stdout and bare.stdout == ""
    assert max(map(len, bare.stderr.splitlines())) <= 80


def test_the_first_command_of_the_list_is_compare_and_no_line_is_cut(tmp_path):
    listed = run("--help", cwd=tmp_path).stdout.partition("Commands:\n")[2]
    assert re.findall(r"^  ([a-z]+)  ", listed, re.MULTILINE)[0] == "compare"
    assert "..." not in listed
    assert list(COMMANDS) == list(get_command(app).list_commands(None))


@pytest.mark.parametrize("path", [path for path in ALL if path], ids=str)
def test_help_fits_80_columns(path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["tuneopt", *path.split(), "--help"])
    with pytest.raises(SystemExit) as end:
        tuneopt.cli.main()
    shown = capsys.readouterr().out
    assert not end.value.code and max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"<[a-z]", shown), "a value is named by what it is, not by its type in Python"
    assert ("Example" in shown) == (path in EXAMPLES)


def test_options_stand_in_groups_with_their_units(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tuneopt", "tune", "-h"])
    with pytest.raises(SystemExit):
        tuneopt.cli.main()
    shown = capsys.readouterr().out
    places = [shown.index(f"{title}:") for title in GROUPS]
    assert places == sorted(places)
    assert "--hours HOURS" in shown and "--resolution NATS" in shown
    assert shown.index("Budget and certainty:") < shown.index("--hours") < shown.index("Search:")


def test_what_groups_and_units_name_are_options():
    parameters = {parameter.name for command in ALL.values() for parameter in command.params}
    planned = {"model", "tokenizer", "tokens", "steps", "example", "quick", "coordinates"}  # their place is kept
    assert {name for names in GROUPS.values() for name in names} - parameters <= planned
    assert set(UNITS) <= parameters


@pytest.mark.parametrize("command", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_of_the_help_are_understood(command):
    words = shlex.split(command)
    path = " ".join(words[:2]) if " ".join(words[:2]) in ALL else words[0]
    inner = ALL[path]
    inner.make_context(path, words[len(path.split()) :])  # raises for what it does not take


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tuneopt co", {"compare"}),
        ("tuneopt compare s", {"schedule_free", "scion", "sf_muon", "shampoo", "soap", "soap_muon", "sophia"}),
        ("tuneopt tune --scale nano-6", {"nano-65k"}),
        ("tuneopt tune --optimizer mu", {"muon", "muonc", "muonh"}),
    ],
)
def test_a_shell_completes_commands_and_names(typed, offered, tmp_path):
    about = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_TUNEOPT_COMPLETE": "complete_bash"}
    program = Path(sys.executable).parent / "tuneopt"
    done = subprocess.run([program], capture_output=True, text=True, env={**os.environ, **about}, cwd=tmp_path)
    assert set(done.stdout.split()) == offered


def test_a_report_is_named_with_an_address_for_the_browser(tmp_path):
    done = run("report", "--published", "-o", "page one.html", cwd=tmp_path)
    assert done.returncode == 0
    address = re.search(r"^open +(file://\S+)$", done.stdout, re.MULTILINE)
    assert address is not None and address[1] == (tmp_path / "page one.html").as_uri()
