"""The pages as tests read them: what stands in their code blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *kinds: str) -> Iterator[str]:
    """The code blocks of a page whose language is one of ``kinds``; an empty kind is a block without a language."""
    for kind, text in _BLOCK.findall(page.read_text()):
        if kind in kinds:
            yield text


def commands(page: Path, program: str) -> list[list[str]]:
    """Every line of a page's blocks that runs ``program``, as words after it; comments and prompts left out."""
    found = []
    for block in blocks(page, "", "bash", "sh", "console"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            words = shlex.split(line.strip().removeprefix("$ "), comments=True) if program in line else []
            if words[:1] == [program]:
                found.append(list(takewhile(lambda word: not re.fullmatch(r"[|&;]+|[0-9]?>+", word), words[1:])))
    return found


ALL = [(page.name, words) for page in PAGES for words in commands(page, "tuneopt")]
