"""Each test sees its own files and its own installed packages."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuneopt import outside


@pytest.fixture(autouse=True)
def own_packages() -> Iterator[None]:
    """Entry points are looked up once per process; here they are looked up anew, and the import path is restored."""
    outside.installed.cache_clear()
    before, handler = set(sys.modules), signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)  # the command line takes it over
    outside.installed.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith(("sample_", "_tuneopt_outside_")):
            del sys.modules[name]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder
