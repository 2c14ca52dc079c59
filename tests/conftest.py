"""Shared by all tests: nothing outside the test's own folders is written."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prepared corpora go to a folder of this test run, for this process and those that it starts."""
    os.environ["TUNEOPT_CACHE"] = str(tmp_path_factory.mktemp("tuneopt-cache"))
