"""The house is as the architecture page draws it: no circles of imports, no file too long to follow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_house_is_as_drawn() -> None:
    pytest.importorskip("grimp")
    done = subprocess.run([sys.executable, "docs/house.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
