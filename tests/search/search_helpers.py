"""Small spaces, surfaces and drivers that the search tests share."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tuneopt.run import simulated
from tuneopt.run.options import RunOptions
from tuneopt.run.simulated import Clock, Evaluate, SimulatedBackend
from tuneopt.search.axis import Axis
from tuneopt.search.descent import Descent, descend
from tuneopt.search.plan import Plan
from tuneopt.search.space import Config, LadderSpace
from tuneopt.search.sweep import Sweep
from tuneopt.spec import SCALES, CorpusId, Regime, TrialSpec

PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper"
NANO = Regime(SCALES["nano-65k"], 1, CorpusId("embedded", "00000000", 512))
FIXED = {"lr_schedule": "cosine", "min_lr_ratio": 0, "train_batch_size": 16, "warmup": 0}

Loss = Callable[[Config], float | None]


def space(*axes: Axis) -> LadderSpace:
    """A nano space over the given axes."""
    names = {axis.name for axis in axes}
    fixed = {name: value for name, value in FIXED.items() if name not in names}
    return LadderSpace("adamw", "nano", axes, TrialSpec.freeze(fixed))


def axis(name: str, *grid: float, start: float, **rest: Any) -> Axis:
    """An axis whose grid is not extended unless asked."""
    return Axis.of(name, grid, start, **rest)


def at(plane: LadderSpace, **values: float) -> Config:
    """The start with some values replaced."""
    config = plane.start
    for name, value in values.items():
        config = plane.change(config, name, value)
    return config


def run(plane: LadderSpace, loss: Loss, tolerance: float = 0.25, policy: str = "joint", **rest: Any) -> Descent:
    """Descend to the end, evaluating what is asked for and nothing else."""
    outcomes: dict[Config, float | None] = {}
    while (found := descend(plane, outcomes, tolerance, policy, **rest)).pending:
        assert not set(found.pending) & set(outcomes), "nothing finished is asked for again"
        outcomes |= {config: loss(config) for config in found.pending}
    return found


def bowl(**bests: float) -> Loss:
    """A separable loss, quadratic in the logarithm of each value, lowest (zero) at ``bests``."""
    return lambda config: math.fsum(math.log2(float(dict(config)[name]) / best) ** 2 for name, best in bests.items())


def rough(seed: int, diverged: float = 0.0) -> Loss:
    """A loss without any structure: every configuration draws its own from 3 to 4, or diverges."""

    def loss(config: Config) -> float | None:
        draw = random.Random(f"{seed}{config}")
        return None if draw.random() < diverged else 3 + draw.random()

    return loss


def small_sweep(**settings: Any) -> Sweep:
    """A sweep over a learning rate and a momentum at the smallest scale; four seeds of the start by default."""
    plane = space(
        axis("learning_rate", 0.01, 0.02, 0.04, start=0.02, extend="geometric", high=0.16),
        axis("momentum", 0.9, 0.95, 0.98, start=0.95, extend="complement", high=0.999),
    )
    return Sweep(plane, NANO, **{"replicates": 4, **settings})


def drive(plan: Plan, evaluate: Evaluate, **options: Any) -> Clock:
    """Run a plan on the simulated backend; the options are those of `SimulatedBackend`."""
    backend = SimulatedBackend(evaluate, **options)
    simulated.run(plan, backend, RunOptions())
    return backend.clock


def published(name: str) -> Any:
    """One of the published tables that lie beside the clone."""
    path = PAPER / name
    if not path.is_file():
        pytest.skip(f"the published table {name} does not lie beside this clone")
    return json.loads(path.read_text())


def without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A mapping less some keys."""
    return {key: value for key, value in mapping.items() if key not in names}
