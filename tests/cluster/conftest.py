"""What sweeps run on: a folder of real text, and records as a worker would write them, without training."""

import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

import tuneopt.data
from tuneopt.ledger import CurvePoint, TrialRecord
from tuneopt.spec import TrialSpec


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 200 documents of the embedded corpus, as a user's own folder."""
    folder = tmp_path_factory.mktemp("text")
    embedded = Path(tuneopt.data.__file__).parent / "embedded" / "public-domain-mix.txt.xz"
    documents = lzma.decompress(embedded.read_bytes()).decode().split("<|endoftext|>")
    for number, text in enumerate(documents[:200]):
        (folder / f"{number:03d}.txt").write_text(text)
    return folder


@pytest.fixture
def make_record() -> Callable[..., TrialRecord]:
    def make(spec: TrialSpec, loss: float | None) -> TrialRecord:
        curve = (CurvePoint(0, 0, 0.0, 7.0, 7.0, 7.0, 0.1), CurvePoint(spec.steps, 1, 0.0, loss, loss, loss, 1.0))
        return TrialRecord(
            trial=spec.id,
            status="completed" if loss is not None else "diverged",
            spec=spec,
            select_loss=loss,
            report_loss=loss,
            initial_loss=7.0,
            curve=curve,
            tokens=spec.regime.tokens,
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
