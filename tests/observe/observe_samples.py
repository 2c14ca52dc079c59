"""Trials and curve points for the tests of what a run says about itself."""

from typing import Any

from tuneopt.ledger import CurvePoint
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec

CORPUS = CorpusId("embedded", "f" * 16, 1024)


def make_spec(seed: int = 0, optimizer: str = "soap", **config: Any) -> TrialSpec:
    frozen = TrialSpec.freeze({"learning_rate": 0.004, "train_batch_size": 16, **config})
    return TrialSpec(optimizer, frozen, Regime(SCALES["nano-65k"], 0.5, CORPUS), seed=seed)


def make_points(*steps: int) -> list[CurvePoint]:
    return [
        CurvePoint(step, step * 2048, 0.004, 5.0 - step / 100, 5.1 - step / 100, 5.2 - step / 100, step / 10)
        for step in steps
    ]
