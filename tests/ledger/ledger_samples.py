"""Records for the ledger's tests: every field plausible, each one open to change."""

from typing import Any

from tuneopt.ledger.record import CurvePoint, TrialRecord
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec

CORPUS = CorpusId("embedded", "f" * 16, 1024)


def make_spec(
    seed: int = 0, scale: str = "nano-65k", ratio: float = 1, optimizer: str = "adamw", **config: Any
) -> TrialSpec:
    frozen = TrialSpec.freeze({"learning_rate": 0.004, "train_batch_size": 16, "nesterov": False, **config})
    return TrialSpec(optimizer, frozen, Regime(SCALES[scale], ratio, CORPUS), seed=seed)


def make_record(
    spec: TrialSpec | None = None, loss: float | None = 3.5, points: int = 3, **changes: Any
) -> TrialRecord:
    spec = spec or make_spec()
    steps, end = spec.steps, 3.8 if loss is None else loss
    per_step = spec.batch * spec.regime.scale.seq_len
    falling = [end + 0.1 * (points - 1 - k) for k in range(points)]
    curve = tuple(
        CurvePoint(step, step * per_step, 0.004, at + 0.1, at, at + 0.1, 10.0 * k)
        for k, (step, at) in enumerate((round(steps * (j + 1) / points), falling[j]) for j in range(points))
    )
    fields: dict[str, Any] = {
        "trial": spec.id,
        "status": "diverged" if loss is None else "completed",
        "spec": spec,
        "select_loss": loss,
        "report_loss": None if loss is None else loss + 0.01,
        "initial_loss": 6.9,
        "curve": curve,
        "tokens": steps * per_step,
        "steps": steps,
        "epochs": 1.25,
        "flops": 1.0e12,
        "seconds": {"train": 20.0, "eval": 2.0, "startup": 1.0, "checkpoint": 0.5},
        "peak_bytes": None,
        "checkpoint_bytes": 1234,
        "optimizer_state_bytes": 5678,
        "proof": {"passed": True, "checks": [{"name": f"{spec.optimizer}.vector", "passed": True, "measured": 1.0}]},
        "routing": ({"parameter": "norm.weight", "rule": spec.optimizer},),
        "environment": {"torch": "2.13.0", "threads": 1},
        "started": "2026-01-31T12:00:00+00:00",
        "ended": "2026-01-31T12:00:23+00:00",
        "resumes": 0,
        "tokens_per_second": 50000.0,
    }
    return TrialRecord(**{**fields, **changes})
