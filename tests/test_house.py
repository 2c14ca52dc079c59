"""The house is as its pages say: no circles of imports, no file too long to follow, and what they name is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_house_is_as_drawn() -> None:
    pytest.importorskip("grimp")
    done = subprocess.run([sys.executable, "docs/house.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _files_named_in(page: Path) -> Iterator[Path]:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        yield page.parent / target
    for target in re.findall(r"\b(?:tuneopt|search_spaces|benchmarks|docs|tests)/[\w/]+\.(?:py|md|yaml)\b", text):
        yield ROOT / target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    assert [str(path) for path in _files_named_in(page) if not path.exists()] == []


def test_every_file_of_the_walks_is_there() -> None:
    rooms = ROOT / "tuneopt"
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text()))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (rooms / name).exists() and not [*rooms.glob(f"*/{name}")]] == []


def test_class_names_are_unique_over_the_package() -> None:
    """One thing, one name: private classes may repeat one, public ones may not."""
    found = [
        node.name
        for folder in ("tuneopt", "search_spaces")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [name for name, count in Counter(found).items() if count > 1] == []
