"""A whole study on loss surfaces and a fake clock."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.spec import CorpusId, InputError

if TYPE_CHECKING:
    from tuneopt.search.study.study import Study

PEAK_FLOPS, MFU = 1e15, 0.4
"""FLOPs per second of a simulated slot, and the share of them that training reaches; only ratios of times count."""

DIVERGED_SHARE = 0.25
"""Share of a trial's time after which a divergence is seen: five of twenty curve points."""

SEED_NOISE = 0.0012
"""Nats between seeds at the paper's scales, for simulations."""


def simulate_study(
    study: Study,
    *,
    slots: int = 64,
    stars: Path | str | None = None,
    noise: float = SEED_NOISE,
) -> dict[str, Any]:
    """Run a study on surfaces instead of training, on a fake clock; its status, utilisation and seconds.

    ``stars`` is a JSON table of stars that the surfaces are built from; without it, and for what it lacks, they are
    modelled around the published tuned points. A trial takes its FLOPs at `MFU` of `PEAK_FLOPS`, a diverging one
    `DIVERGED_SHARE` of that.
    """
    from tuneopt.run.simulated import drive
    from tuneopt.search.queue import SchedulerQueue
    from tuneopt.search.study.planner import StudyPlan
    from tuneopt.search.study.status import status_document
    from tuneopt.search.study.surfaces import Surfaces
    from tuneopt.spec import TrialSpec

    surfaces = Surfaces(study, _stars(stars), noise)
    plan = StudyPlan(study, CorpusId(study.corpus, "", study.vocabulary))

    def seconds(spec: TrialSpec) -> float:
        diverges = surfaces.of(spec.optimizer, spec.regime).true_loss(spec.config) is None
        return (DIVERGED_SHARE if diverges else 1.0) * spec.regime.flops / (MFU * PEAK_FLOPS)

    began = time.process_time()
    pool = SchedulerQueue(plan, limits=study.limits, expected=lambda spec: spec.regime.flops / (MFU * PEAK_FLOPS))
    clock = drive(pool, surfaces.evaluate, slots=slots, duration=seconds)
    places = dict.fromkeys(
        (standing.task.optimizer, standing.task.sweep.regime) for standing in pool.standings.values()
    )
    origins: dict[str, dict[str, int]] = {}
    for optimizer, regime in places:
        counts = origins.setdefault(optimizer, {})
        origin = surfaces.origin(optimizer, regime)
        counts[origin] = counts.get(origin, 0) + 1
    return {
        **status_document(plan, pool),
        "stopped": pool.stopped,
        "simulation": {
            "slots": slots,
            "seconds": clock.seconds,
            "utilisation": clock.utilisation,
            "cpu_seconds": time.process_time() - began,
            "surfaces": origins,
        },
    }


def _stars(path: Path | str | None) -> list[Mapping[str, Any]]:
    if path is None:
        return []
    try:
        rows = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no table of stars ({error}); give a JSON list") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is no table of stars; give a JSON list of objects")
    return rows
