"""Shared by all tests: nothing outside the test's own folders is written, and no test finds what another one set."""

import logging
import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prepared corpora go to a folder of this test run, for this process and those that it starts."""
    os.environ["TUNEOPT_CACHE"] = str(tmp_path_factory.mktemp("tuneopt-cache"))


@pytest.fixture(autouse=True)
def own_process_state() -> Iterator[None]:
    """Training flushes subnormal numbers to zero, and commands set up logging, for the rest of their process."""
    logger = logging.getLogger("tuneopt")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
