"""The fuzz targets, their seeds and hostile values live in fuzz/; the tests run the same ones."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fuzz"))


@pytest.fixture(scope="session")
def seeds() -> dict[str, list[bytes]]:
    from seeds import seeds as make

    return make()
