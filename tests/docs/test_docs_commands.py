"""Every command that a page prints is one: it is understood as it stands, and what trains nothing runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ALL, PAGES, ROOT, commands
from typer.main import get_command

from tuneopt.cli import app

RUN = {"space", "optimizers", "predict", "scale", "doctor"}
"""Commands that answer from what is there."""

WORDS = ("--simulate", "--example", "--published")
"""Options by which a command trains nothing."""


def trains_nothing(words: list[str]) -> bool:
    quick = words[0] in RUN or words[:2] == ["study", "plan"] or any(word in words for word in WORDS)
    return quick and not any(word.startswith("./") or "my" in word.lower() for word in words[1:])


def named(words: list[str]) -> str:
    return " ".join(words)


RUNNABLE = sorted({named(words) for _, words in ALL if trains_nothing(words)})


@pytest.mark.parametrize(("page", "words"), ALL, ids=[f"{page}: {named(words)}" for page, words in ALL])
def test_a_printed_command_is_understood(page, words):
    command = get_command(app)
    context = command.make_context("tuneopt", list(words), resilient_parsing=True)
    rest = list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"{page}: there is no command {rest[0]}"
        command = command.commands[rest.pop(0)]
    if hasattr(command, "commands"):  # `tuneopt --version`
        assert {"--version", "--install-completion", "-h", "--help"} & set(rest)
        return
    command.make_context(named(words), rest, parent=context)  # raises for what it does not take


def test_the_pages_show_commands():
    assert len(ALL) > 40 and len(RUNNABLE) > 6


@pytest.mark.parametrize("target", sorted({words[0] for page in PAGES for words in commands(page, "make") if words}))
def test_a_printed_target_is_in_the_makefile(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNNABLE)
def test_a_command_that_trains_nothing_runs_as_printed(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tuneopt", *command.split()], capture_output=True, text=True, cwd=tmp_path, timeout=280,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr  # 3: a simulated comparison may end without a certificate


def test_every_page_has_its_place_in_the_site():
    text = (ROOT / "mkdocs.yml").read_text()
    listed = set(re.findall(r": ([\w-]+\.md)$", text, re.MULTILINE))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} | {"cli.md"} == listed


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    program = Path(os.environ.get("TUNEOPT_MKDOCS", ROOT / ".venv-docs" / "bin" / "mkdocs"))
    if not program.exists():
        pytest.skip("the site's own environment is not here: `make docs` makes it")
    done = subprocess.run(
        [program, "build", "--strict", "-d", str(tmp_path / "site")], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    reference = (tmp_path / "site" / "cli.html").read_text()
    assert "tuneopt study plan" in reference and "--tokens-per-second" in reference
    assert "plot_speedups" in (tmp_path / "site" / "api.html").read_text()
