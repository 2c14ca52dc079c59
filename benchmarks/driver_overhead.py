"""What the driver costs per trial: trials that do nothing through Ray Tune, and asking coordinate descent.

    python benchmarks/driver_overhead.py --trials 100 1000 10000 [--json FILE]

The trials take the path of real ones: a queue of sweeps, Tune's searcher and callback, warm workers; only the worker
trains nothing and writes its record at once. Wall time per trial holds the two messages that every trial takes to its
worker and back; CPU time is that of the driver alone. Memory is the driver's resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil

from tuneopt.cluster import trainable
from tuneopt.cluster.backend import RayBackend
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.observe.observer import Observer
from tuneopt.observe.state import RunState
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import run
from tuneopt.scale_files import find_scale
from tuneopt.search.plan import Outcome
from tuneopt.search.queue import Limits, Reserve, SchedulerQueue
from tuneopt.search.records import recorded
from tuneopt.search.space import load_space
from tuneopt.search.standing import Standing, Task
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec

WARM = 20
"""Trials at the start that are not counted: workers start, modules are imported."""


def sweep(seed: int) -> Sweep:
    regime = Regime(find_scale("nano-65k"), 0.2, CorpusId("none", "0000", 1024))
    return Sweep(load_space("adamw").on("nano"), regime, seed=seed, replicates=1)


def finished(spec: TrialSpec, loss: float = 4.0) -> TrialRecord:
    """The record of a trial that did nothing."""
    end = CurvePoint(spec.steps, spec.regime.tokens, 0.0, loss, loss, loss, 1.0)
    return TrialRecord(
        trial=spec.id, status="completed", spec=spec, select_loss=loss, report_loss=loss, initial_loss=7.0,
        curve=(end,), tokens=spec.regime.tokens, steps=spec.steps, epochs=0.1, flops=1.0,
        seconds={"train": 0.0, "eval": 0.0, "startup": 0.0, "checkpoint": 0.0}, peak_bytes=None,
        checkpoint_bytes=None, optimizer_state_bytes=None, proof={"passed": True, "checks": []}, routing=(),
        environment={}, started="2026-01-01T00:00:00+00:00", ended="2026-01-01T00:00:01+00:00", resumes=0,
        tokens_per_second=1.0,
    )  # fmt: skip


class Nothing(trainable.TrialTrainable):
    """A worker whose trials do nothing but write their record."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.spec = TrialSpec.from_dict(json.loads(new_config["spec"]))
        self.ledger = Ledger(new_config["ledger"])
        return True

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def step(self) -> dict[str, Any]:
        record = finished(self.spec)
        self.ledger.put(record)
        return {**trainable.outcome(record), "busy_seconds": 0.0, "reused": False, "done": True}


@dataclass(frozen=True)
class ManySweeps:
    """As many sweeps as the trials take, one seed each."""

    count: int

    def tasks(self, standings: Mapping[str, Standing]) -> Sequence[Task]:
        return [Task(sweep(seed)) for seed in range(self.count)] if not standings else []

    def urgency(self, standing: Standing) -> float:
        return 0.0

    def duration(self, spec: TrialSpec) -> float:
        return 0.0

    def reserves(self, standings: Mapping[str, Standing]) -> Sequence[Reserve]:
        return ()


class Meter(Observer):
    """Looks after every event: wall and CPU seconds, and resident bytes, at every finished trial."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float, int]] = []

    def changed(self, state: RunState) -> None:
        if len(state.done) > len(self.points):
            self.points.append((time.perf_counter(), time.process_time(), psutil.Process().memory_info().rss))


def drive(trials: int, slots: int) -> dict[str, Any]:
    """Run ``trials`` trials that do nothing."""
    meter = Meter()
    wave = len(sweep(0).state({}).pending)
    with tempfile.TemporaryDirectory(prefix="tuneopt-overhead-") as folder:
        ledger = Ledger(folder)
        pool = SchedulerQueue(ManySweeps(-(-trials // wave)), known=recorded(ledger), limits=Limits(max_trials=trials))
        began = time.perf_counter()
        result = run(pool, RayBackend(Nothing), RunOptions(ledger, "none", max_concurrent=slots), [meter])
        ended = time.perf_counter()
        records = len(ledger.ids())
    assert records == len(result.run) == trials, (records, len(result.run), result.failed)
    points = meter.points[min(WARM, trials // 2) :]
    tenth = max(2, len(points) // 10)
    parts = [points[at : at + tenth] for at in range(0, len(points) - tenth + 1, tenth)]
    return {
        "trials": trials,
        "wall_ms": 1e3 * (points[-1][0] - points[0][0]) / (len(points) - 1),
        "cpu_ms": 1e3 * (points[-1][1] - points[0][1]) / (len(points) - 1),
        "wall_ms_by_tenth": [1e3 * (part[-1][0] - part[0][0]) / (len(part) - 1) for part in parts],
        "cpu_ms_by_tenth": [1e3 * (part[-1][1] - part[0][1]) / (len(part) - 1) for part in parts],
        "growth_mb": (points[-1][2] - points[0][2]) / 2**20,
        "start_seconds": meter.points[0][0] - began,
        "end_seconds": ended - points[-1][0],
    }


def ask(records: int) -> dict[str, Any]:
    """Ask coordinate descent what is next, with ``records`` outcomes known, its own among them."""
    own = sweep(0)
    outcomes: dict[str, Outcome] = {}
    for trial in own.state({}).pending[:-1]:
        outcomes[trial.id] = Outcome("completed", 4.0, 4.0)
    outcomes |= {f"{number:016x}": Outcome("completed", 4.0, 4.0) for number in range(records - len(outcomes))}
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        assert len(own.state(outcomes).pending) == 1
        taken.append(time.perf_counter() - began)
    return {"records": records, "ask_ms": 1e3 * statistics.median(taken)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    asked = ask(given.records)
    print(f"asking coordinate descent with {asked['records']} outcomes: {asked['ask_ms']:.2f} ms (goal: under 5)")
    runs = []
    for trials in given.trials:
        taken = drive(trials, given.slots)
        runs.append(taken)
        tenths = taken["cpu_ms_by_tenth"]
        print(
            f"{trials} trials on {given.slots} slots: {taken['cpu_ms']:.1f} ms of the driver's CPU and "
            f"{taken['wall_ms']:.1f} ms of wall time per trial (goal: under 20), CPU by tenths of the run "
            f"{min(tenths):.1f} to {max(tenths):.1f} ms, memory {taken['growth_mb']:+.0f} MB, "
            f"start {taken['start_seconds']:.1f} s, end {taken['end_seconds']:.1f} s",
            flush=True,
        )
    if given.json:
        given.json.write_text(json.dumps({"ask": asked, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
