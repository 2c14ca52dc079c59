"""Ledgers for the report's tests: real sweeps, run on a smooth loss instead of a model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.search.axis import Axis
from tuneopt.search.records import outcome_of
from tuneopt.search.space import LadderSpace, load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec, Value

CORPUS = CorpusId("embedded", "0123456789abcdef", 1024)
EPOCH = 4.0e6

OPTIMA: dict[str, dict[str, Any]] = {
    "soap": {"learning_rate": 0.032, "beta1": 0.95, "warmup": 0.2, "precondition_frequency": 1, "train_batch_size": 8},
    "muon": {"learning_rate": 0.016, "momentum": 0.95, "train_batch_size": 8},
    "adamw": {"learning_rate": 0.008, "beta2": 0.98, "train_batch_size": 8},
}
LEVELS = {"soap": -0.045, "muon": -0.032, "adamw": 0.0}
SIZES = {
    "learning_rate": 0.03,
    "train_batch_size": 0.02,
    "beta1": 0.4,
    "precondition_frequency": 0.004,
    "warmup": 0.008,
}

Loss = Callable[[TrialSpec], float | None]


LR = {"low": 1e-6, "high": 10.0, "extend": "geometric"}
BETA = {"low": 0.0, "high": 0.9999, "extend": "complement", "off": 0}
COMMON = (
    Axis.of("learning_rate", (0.008, 0.016, 0.032), 0.016, **LR),
    Axis.of("weight_decay", (0, 0.1, 0.2), 0.1, low=0, high=10, extend="geometric", off=0),
    Axis.of("beta1", (0.8, 0.9, 0.95), 0.9, **BETA),
    Axis.of("beta2", (0.9, 0.95, 0.98), 0.95, **BETA),
    Axis.of("train_batch_size", (8, 16, 32), 16, low=4, high=512, extend="geometric", whole=True),
    Axis.of("warmup", (0.05, 0.1, 0.2), 0.1, low=0, high=0.5, extend="geometric", off=0),
    Axis.of("epsilon", (1e-15,), 1e-15, low=1e-25, high=1e-5),
)
OWN = {
    "soap": (Axis.of("precondition_frequency", (1, 5, 10), 10, low=1, high=1000, extend="geometric", whole=True),),
    "muon": (Axis.of("momentum", (0.9, 0.95), 0.95, **BETA),),
}
FIXED = TrialSpec.freeze({"lr_schedule": "cosine", "max_grad_norm": 1, "min_lr_ratio": 0})


def space_of(optimizer: str) -> LadderSpace:
    """A space as the nano ladder's are, but kept here, so that better grids there change nothing that tests expect."""
    return LadderSpace(optimizer, "nano", (*COMMON, *OWN.get(optimizer, ())), FIXED)


def noise(spec: TrialSpec, size: float = 0.0018) -> float:
    """The same small number for the same trial, about normal."""
    what = f"{spec.optimizer} {spec.hyperparameters} {spec.regime.label} {spec.seed}"
    digest = hashlib.sha256(what.encode()).digest()
    return size * (sum(digest[:12]) / 255 - 6)


def smooth_loss(spec: TrialSpec) -> float | None:
    """A bowl in the logarithms of the numbers on a law of the budget; a far too large learning rate diverges."""
    config = spec.config
    loss = 2.9 + 40.0 * spec.regime.tokens**-0.3 + LEVELS.get(spec.optimizer, -0.02)
    for name, best in OPTIMA.get(spec.optimizer, {"learning_rate": 0.01}).items():
        if name in config:
            loss += SIZES.get(name, 0.01) * _distance(name, config[name], best) ** 2
    loss += 0.02 * float(config.get("weight_decay", 0.1)) ** 2
    if float(config["learning_rate"]) >= 0.128:
        return None
    return loss + noise(spec)


def _distance(name: str, value: Value, best: float) -> float:
    number = float(value)
    if name.startswith(("beta", "momentum")):
        return math.log2((1 - number) / (1 - best)) / 4
    return math.log2(max(number, 1e-6) / best)


def make_record(spec: TrialSpec, loss: float | None, points: int = 20, **changes: Any) -> TrialRecord:
    """A plausible record of a trial that ended at ``loss``, or diverged half-way."""
    steps = spec.steps if loss is not None else spec.steps // 2
    places = [max(1, round(steps * (index + 1) / points)) for index in range(points)]
    end = 6.5 if loss is None else loss
    curve = tuple(
        CurvePoint(
            step=step,
            tokens=step * spec.batch * spec.regime.scale.seq_len,
            learning_rate=float(spec.config["learning_rate"]),
            train_loss=end + 0.02 + 3.4 * math.exp(-5.0 * step / spec.steps) * (1 - step / spec.steps),
            select_loss=end + 3.4 * math.exp(-6.0 * step / spec.steps) * (1 - step / spec.steps) ** 1.5
            if loss is not None
            else 4.4 + 2.2 * step / steps,
            report_loss=end + 0.01,
            seconds=20.0 * step / spec.steps,
        )
        for step in places
    )
    tokens = steps * spec.batch * spec.regime.scale.seq_len
    fields: dict[str, Any] = {
        "trial": spec.id,
        "status": "diverged" if loss is None else "completed",
        "spec": spec,
        "select_loss": loss,
        "report_loss": None if loss is None else loss + 0.011 + 0.3 * noise(spec),
        "initial_loss": 6.93,
        "curve": curve,
        "tokens": tokens,
        "steps": steps,
        "epochs": tokens / EPOCH,
        "flops": float(tokens * spec.regime.scale.flops_per_token(spec.regime.corpus.vocab_size)),
        "seconds": {"train": 17.0, "eval": 2.2, "startup": 0.6, "checkpoint": 0.2},
        "peak_bytes": 410 * 2**20,
        "checkpoint_bytes": 3_300_000,
        "optimizer_state_bytes": 2_100_000,
        "proof": {
            "passed": True,
            "checks": [
                {"name": "orthogonal basis", "passed": True, "measured": 3.1e-6, "expected": "below 1e-4",
                 "detail": "largest entry of Q'Q - I over 8 blocks"},
            ],
        },
        "routing": tuple(_routes()),
        "environment": {"torch": "2.13.0", "python": "3.11.9", "cpu": "2 x Test CPU", "devices": "1"},
        "started": "2026-01-31T12:00:00+00:00",
        "ended": "2026-01-31T12:00:20+00:00",
        "resumes": 0,
        "tokens_per_second": tokens / 20.0,
    }  # fmt: skip
    return TrialRecord(**{**fields, **changes})


def _routes() -> list[Mapping[str, Any]]:
    matrices = [f"layers.{layer}.self_attn.{part}_proj.weight" for layer in range(4) for part in "qkvo"]
    return [
        *({"parameter": name, "shape": [32, 32], "rule": "soap", "decay": True, "reason": "a matrix inside the body"}
          for name in matrices),
        {"parameter": "norm.weight", "shape": [32], "rule": "adamw", "decay": False, "reason": "a vector"},
        {"parameter": "embed_tokens.weight", "shape": [1024, 32], "rule": "adamw", "decay": False,
         "reason": "an embedding"},
    ]  # fmt: skip


def make_sweep(
    optimizer: str = "soap",
    scale: str = "nano-65k",
    ratio: float = 1.0,
    corpus: CorpusId = CORPUS,
    grids: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Sweep:
    """A sweep over `space_of` an optimizer; ``grids`` takes the declared space of the nano ladder instead."""
    space = space_of(optimizer) if grids is None else load_space(optimizer).on("nano", grids=grids)
    return Sweep(space, Regime(SCALES[scale], ratio, corpus), **settings)


def run_sweep(ledger: Ledger, sweep: Sweep, loss: Loss = smooth_loss, waves: int = 100, **changes: Any) -> Sweep:
    """Run a sweep into a ledger as the cluster would, at most ``waves`` waves."""
    ledger.put_sweep(sweep.id, {**sweep.to_dict(), "corpus_source": sweep.regime.corpus.name})
    outcomes: dict[str, Any] = {}
    ran = []
    for _ in range(waves):
        pending = sweep.state(outcomes).pending
        if not pending:
            break
        for spec in pending:
            record = ledger.get(spec.id)
            if record is None:
                record = make_record(spec, loss(spec), **changes)
                ledger.put(record)
                ran.append(spec.id)
            outcomes[spec.id] = outcome_of(record)
    if ran:
        wall, busy = 11.0 * len(ran), 19.2 * len(ran)
        account = {"sweep": sweep.id, "run": ran, "reused": [], "failed": {}, "slots": 2}
        ledger.put_run({**account, "wall_seconds": wall, "busy_seconds": busy, "interrupted": False})
    return sweep
