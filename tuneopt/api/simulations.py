"""Studies on surfaces and a fake clock: how a plan behaves, in seconds. They are no evidence about optimizers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.studies import concluded, study_queue
from tuneopt.api.study_results import SimulatedStudy
from tuneopt.errors import of_system
from tuneopt.paths import expanded, read_plain
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import run
from tuneopt.spec import CorpusId, InputError, TrialSpec

if TYPE_CHECKING:
    from tuneopt.search.queue import SchedulerQueue
    from tuneopt.search.study.study import Study

PEAK_FLOPS, MFU = 1e15, 0.4
"""FLOPs per second of a simulated slot, and the share of them that training reaches; only ratios of times count."""

DIVERGED_SHARE = 0.25
"""Share of a trial's time after which a divergence is seen: five of twenty curve points."""

LARGEST_STARS = 64 << 20
"""Bytes of a table of stars; that of the published study has a thousandth of it."""

SEED_NOISE = 0.0012
"""Nats between seeds at the paper's scales, for simulations."""


def simulate_study(
    study: Study,
    *,
    slots: int = 64,
    stars: Path | str | None = None,
    noise: float = SEED_NOISE,
    report: Path | str | None = None,
    command: Sequence[str] = (),
    baseline: str | None = None,
) -> SimulatedStudy:
    """Run a study on surfaces instead of training, on a fake clock.

    ``stars`` is a JSON table of stars that the surfaces are built from; without it, and for what it lacks, they are
    modelled around the published tuned points. A trial takes its FLOPs at `MFU` of `PEAK_FLOPS`, a diverging one
    `DIVERGED_SHARE` of that. ``report`` is a file to write a report to, which says that nothing was trained and that
    ``command``, the words after ``tuneopt``, makes it again. Its speedups are over ``baseline``, AdamW unless said
    otherwise.
    """
    from tuneopt.run.simulated import SimulatedBackend
    from tuneopt.search.study.planner import StudyPlan
    from tuneopt.search.study.status import status_document
    from tuneopt.search.study.surfaces import Surfaces

    # The corpus is not read, so that a simulation needs the study's file alone.
    surfaces = Surfaces(study, _stars(stars), noise)
    plan = StudyPlan(study, CorpusId(study.corpus, "", study.vocabulary))

    def whole(spec: TrialSpec) -> float:
        return spec.regime.flops / (MFU * PEAK_FLOPS)

    # What the queue expects is the whole: it cannot know before which trial will diverge, and the clock does.
    def seconds(spec: TrialSpec) -> float:
        diverges = surfaces.of(spec.optimizer, spec.regime).true_loss(spec.config) is None
        return (DIVERGED_SHARE if diverges else 1.0) * whole(spec)

    began = time.process_time()
    queue = study_queue(plan, None, expected=whole)
    backend = SimulatedBackend(surfaces.evaluate, slots=slots, duration=seconds)
    result = run(queue, backend, RunOptions())
    # How many surfaces were measured and how many modelled, by optimizer: what a simulation may claim rests on that.
    origins: dict[str, dict[str, int]] = {}
    for optimizer, regime in dict.fromkeys(
        (standing.task.optimizer, standing.task.sweep.regime) for standing in queue.standings.values()
    ):
        counts = origins.setdefault(optimizer, {})
        origin = surfaces.origin(optimizer, regime)
        counts[origin] = counts.get(origin, 0) + 1
    written = "" if report is None else _report_simulated(study, queue, Path(report), command, baseline)
    return SimulatedStudy(
        **{**vars(result), "slots": slots, "report": written},
        status=status_document(plan, queue),
        conclusion=concluded(plan, queue),
        seconds=backend.clock.seconds,
        share=backend.clock.utilisation,
        cpu_seconds=time.process_time() - began,
        surfaces=origins,
    )


def _report_simulated(
    study: Study, queue: SchedulerQueue, path: Path, command: Sequence[str], baseline: str | None
) -> str:
    """Write the report of a simulated study, in which every sweep stands by its incumbent; the path as text."""
    from tuneopt.analysis.comparison import runs_of
    from tuneopt.analysis.inputs import Inputs
    from tuneopt.analysis.runs import Role
    from tuneopt.reporting.write import write_simulated

    runs = runs_of(queue.standings, queue.outcomes)
    best = {standing.task.sweep.trial_id(standing.state.descent.incumbent) for standing in queue.standings.values()}
    settings = {run.setting for run in runs if run.trial in best}
    # Incumbents with all their seeds are candidates for the winner; what a descent only passed through decides nothing.
    judged = tuple(replace(run, role=Role.CANDIDATE if run.setting in settings else Role.EXPLORED) for run in runs)
    notes = ("the study was simulated on surfaces and a fake clock: nothing was trained, and no loss was measured",)
    write_simulated(Inputs(judged, f"a simulation of the study {study.name}", notes), path, command, baseline)
    return str(path)


def _stars(path: Path | str | None) -> list[Mapping[str, Any]]:
    if path is None:
        return []
    try:
        rows = json.loads(read_plain(expanded(path), LARGEST_STARS))
    except InputError:
        raise
    except OSError as error:
        raise of_system(error, path) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no table of stars ({error}); give a JSON list") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is no table of stars; give a JSON list of objects")
    return rows
