"""Shared by all tests: nothing outside the test's own folders is written, and no test finds what another one set."""

import logging
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from tuneopt.ledger import CurvePoint, TrialRecord
from tuneopt.spec import TrialSpec

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


@pytest.fixture
def make_record() -> Callable[..., TrialRecord]:
    def make(spec: TrialSpec, loss: float | None) -> TrialRecord:
        tokens = spec.steps * spec.batch * spec.regime.scale.seq_len
        curve = (CurvePoint(0, 0, 0.0, 7.0, 7.0, 7.0, 0.1), CurvePoint(spec.steps, tokens, 0.0, loss, loss, loss, 1.0))
        return TrialRecord(
            trial=spec.id,
            status="completed" if loss is not None else "diverged",
            spec=spec,
            select_loss=loss,
            report_loss=loss,
            initial_loss=7.0,
            curve=curve,
            tokens=tokens,
            steps=spec.steps,
            epochs=0.1,
            flops=spec.regime.flops,
            seconds={"train": 1.0, "eval": 0.1, "startup": 0.0, "checkpoint": 0.0},
            peak_bytes=None,
            checkpoint_bytes=None,
            optimizer_state_bytes=None,
            proof={"passed": True, "checks": []},
            routing=(),
            environment={},
            started="2026-01-01T00:00:00+00:00",
            ended="2026-01-01T00:00:01+00:00",
            resumes=0,
            tokens_per_second=1.0,
        )

    return make
