"""Plan, run, simulate and look at studies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.spec import CorpusId, InputError, Regime

if TYPE_CHECKING:
    from tuneopt.cluster.progress import PoolProgress, PoolResult
    from tuneopt.ledger import Ledger
    from tuneopt.search.pool import Pool
    from tuneopt.search.study.planner import StudyPlan
    from tuneopt.search.study.study import Study

HEARTBEAT_SECONDS = 5.0
"""How often a running study writes down what is under way."""

STALE_SECONDS = 60.0
"""Age at which what a study last wrote down counts as left by a run that is gone."""


ADAMW_STATE_BYTES = 8.0
"""State bytes per parameter of an optimizer that says nothing of its own."""


@dataclass(frozen=True)
class Speed:
    """How fast a trial trains: tokens per second at the study's smallest scale, or a share of peak FLOPs.

    Other scales follow by their FLOPs per token. Nothing given: measured, from the ledger or a few steps.
    """

    tokens_per_second: float | None = None
    mfu: float | None = None
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        if (self.mfu is None) != (self.peak_flops is None):
            raise InputError("--mfu and --peak-flops belong together, such as --mfu 0.4 --peak-flops 312e12")
        if self.mfu is not None and self.tokens_per_second is not None:
            raise InputError("give --tokens-per-second, or --mfu with --peak-flops, not both")
        for name in ("tokens_per_second", "mfu", "peak_flops"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} must be a positive number, not {value:g}")


def load_study(path: str | Path, match_budget: bool = False) -> Study:
    """The study that a YAML file declares; raises `InputError` with file and line of what is wrong."""
    from tuneopt.api.optimizers import check_outside, space_of
    from tuneopt.search.study.file import read_study

    study = read_study(path, space_of)
    for space in study.spaces.values():
        check_outside(space)
    return replace(study, match_budget=True) if match_budget else study


def study_plan(
    study: Study,
    ledger: Ledger | str,
    speed: Speed | None = None,
    *,
    slots: int | None = None,
    memory_per_slot: int | None = None,
) -> dict[str, Any]:
    """What the study will cost, phase by phase; ``fits`` and ``why`` say whether it can run.

    ``slots`` are the trials at once, this machine's cores by default; ``memory_per_slot`` the bytes that each has,
    by default an equal share of this machine's memory where the slots are its own.
    """
    from tuneopt.optim import info
    from tuneopt.search.study.cost import plan_document
    from tuneopt.search.study.expect import expected

    opened = _opened(ledger)
    plan = _plan(study, required=False)
    pool = _pool(plan, opened)
    own = slots is None
    count = slots or os.cpu_count() or 1
    state = {entry.name: entry.state_bytes_per_parameter for entry in info()}
    free = shutil.disk_usage(_existing(Path(opened.uri))).free if opened.is_local else None
    rate, origin = _rate(plan, opened, speed or Speed())
    document = plan_document(
        plan,
        expected(plan, pool.standings),
        rate,
        lambda name: state.get(name) or ADAMW_STATE_BYTES,
        slots=count,
        memory_per_slot=memory_per_slot or (_memory() // count if own else None),
        free_disk=free,
    )
    return {**document, "throughput_from": origin, "in_ledger": len(pool.outcomes)}


def study_status(study: Study, ledger: Ledger | str) -> dict[str, Any]:
    """Where a study stands, as its ledger alone tells it."""
    from tuneopt.search.study.status import status_document

    opened = _opened(ledger)
    plan = _plan(study)
    beat = _heartbeat(opened, study_id(plan))
    running = [trial for trial in beat.get("running", ()) if not opened.has(trial)]
    return {
        **status_document(plan, _pool(plan, opened), running, beat.get("slots")),
        "under_way": bool(beat),
        "slots": beat.get("slots"),
    }


def run_study(
    study: Study,
    ledger: Ledger | str,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    listener: Callable[[PoolProgress, StudyPlan], None] = lambda progress, plan: None,
) -> tuple[PoolResult, dict[str, Any]]:
    """Run what is missing of a study on Ray Tune, all its sweeps over one pool of slots; its result and its status.

    It stops cleanly at the study's limits and at Ctrl-C; running it again goes on from there. Raises `InputError` when
    it cannot fit on this machine.
    """
    from tuneopt.cluster.driver import run_pool
    from tuneopt.search.study.status import status_document

    opened = _opened(ledger)
    plan = _plan(study)
    if address is None and gpus_per_trial == 0:
        checked = study_plan(study, opened, Speed(tokens_per_second=1.0), slots=None)
        if not checked["fits"]:
            raise InputError(f"the study does not fit: {checked['why']}")
    pool = _pool(plan, opened, ahead=True)
    name = study_id(plan)
    known: set[str] = set()
    last = [0.0]

    def tell(progress: PoolProgress) -> None:
        _put_sweeps(opened, pool, study, known)
        if time.monotonic() - last[0] >= HEARTBEAT_SECONDS:
            last[0] = time.monotonic()
            _beat(opened, name, study.name, list(progress.running), progress.slots)
        listener(progress, plan)

    result = run_pool(
        pool,
        opened,
        study.corpus,
        name=name,
        address=address,
        max_concurrent=max_concurrent,
        gpus_per_trial=gpus_per_trial,
        connected=lambda: _put_sweeps(opened, pool, study, known),
        listener=tell,
    )
    _put_sweeps(opened, pool, study, known)
    _beat(opened, name, study.name, [], result.slots)
    if result.run or result.failed:
        _put_runs(opened, name, pool, result)
    return result, status_document(plan, pool, (), result.slots or None)


def study_id(plan: StudyPlan) -> str:
    """Sixteen hexadecimal digits that identify a study on its corpus."""
    text = f"{plan.study.text}{plan.corpus.fingerprint}{plan.compile}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _opened(ledger: Ledger | str) -> Ledger:
    from tuneopt.ledger import open_ledger

    return open_ledger(ledger) if isinstance(ledger, str) else ledger


def _plan(study: Study, required: bool = True) -> StudyPlan:
    """The study on its corpus; without ``required``, on a stand-in of its size where the corpus is not here."""
    from tuneopt.api.sweeps import _compile
    from tuneopt.data import load_corpus
    from tuneopt.search.study.planner import StudyPlan

    try:
        corpus = load_corpus(study.corpus, vocab_size=study.vocabulary).id
    except InputError:
        if required:
            raise
        corpus = CorpusId(study.corpus, "", study.vocabulary)
    return StudyPlan(study, corpus, _compile(study.compile))


def _pool(plan: StudyPlan, ledger: Ledger, ahead: bool = False) -> Pool:
    from tuneopt.search.known import recorded
    from tuneopt.search.pool import Pool

    pool = Pool(plan, known=recorded(ledger), limits=plan.study.limits, ahead=ahead)
    pool.expected = lambda spec: _pace(pool) * spec.regime.flops
    return pool


def _pace(pool: Pool) -> float:
    """Device seconds per FLOP of the trials that ended, 0 before there are any."""
    return pool.device_seconds / pool.flops if pool.flops else 0.0


def _rate(plan: StudyPlan, ledger: Ledger, speed: Speed) -> tuple[Callable[[Regime], float | None], str]:
    """Tokens per second of a trial by regime, and where that is from."""
    if speed.mfu is not None and speed.peak_flops is not None:
        flops = speed.mfu * speed.peak_flops
        return (lambda regime: flops / _flops_per_token(regime)), f"{speed.mfu:.0%} of {speed.peak_flops:.3g} FLOP/s"
    smallest = min(plan.regimes("I"), key=lambda regime: regime.scale.parameters)
    rate, origin = speed.tokens_per_second, "as given, at the smallest scale"
    if rate is None:
        rate, origin = _measured(plan, ledger)
    if rate is None:
        return (lambda regime: None), origin
    flops = rate * _flops_per_token(smallest)
    return (lambda regime: flops / _flops_per_token(regime)), origin


def _flops_per_token(regime: Regime) -> int:
    return regime.scale.flops_per_token(regime.corpus.vocab_size)


def _measured(plan: StudyPlan, ledger: Ledger) -> tuple[float | None, str]:
    from tuneopt.data import load_corpus
    from tuneopt.train.measure import recorded_throughput, trained_throughput

    tasks = [task for held in plan.first.values() for task in held]
    sweep = min(tasks, key=lambda task: task.sweep.regime.scale.parameters).sweep
    spec = sweep.spec(sweep.space.start)
    rate = recorded_throughput(ledger, spec)
    if rate is not None:
        return rate, "from trials in the ledger"
    if plan.study.ladder != "nano":
        return None, "unknown here; give --tokens-per-second, or --mfu with --peak-flops"
    corpus = load_corpus(plan.study.corpus, vocab_size=plan.study.vocabulary)
    return trained_throughput(spec, corpus), "measured now on a few steps, uncompiled"


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _put_sweeps(ledger: Ledger, pool: Pool, study: Study, known: set[str]) -> None:
    """Describe the sweeps that are new in the ledger, so that reports find them."""
    from tuneopt.optim.external import account

    for name, task in pool.tasks.items():
        if name not in known:
            known.add(name)
            plain = {**task.sweep.to_dict(), "corpus_source": study.corpus, "study": study.name, "phase": task.phase}
            ledger.put_sweep(name, {**plain, **account(task.sweep.space.optimizer)})


def _put_runs(ledger: Ledger, name: str, pool: Pool, result: PoolResult) -> None:
    """An account of this run for each sweep that it worked on; shared by trials, wall time stays the study's."""
    ran, failed = set(result.run), set(result.failed)
    for sweep, standing in pool.standings.items():
        mine = [trial for trial in standing.trials if trial in ran]
        if mine or failed & set(standing.trials):
            ledger.put_run(
                {
                    "sweep": sweep,
                    "study": name,
                    "run": mine,
                    "reused": [trial for trial in standing.trials if trial in pool.reused],
                    "failed": {trial: why for trial, why in result.failed.items() if trial in standing.trials},
                    "slots": result.slots,
                    "wall_seconds": result.wall_seconds,
                    "busy_seconds": result.busy_seconds,
                    "interrupted": result.interrupted,
                }
            )


def _beat(ledger: Ledger, name: str, title: str, running: list[str], slots: int) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    plain = {"study": title, "running": running, "slots": slots, "at": now}
    ledger.files.replace(f"studies/{name}.json", json.dumps(plain).encode() + b"\n")


def _heartbeat(ledger: Ledger, name: str) -> dict[str, Any]:
    """What a run of the study that is under way wrote down last; nothing when there is none."""
    try:
        plain = json.loads(ledger.files.read(f"studies/{name}.json"))
        age = (datetime.now(UTC) - datetime.fromisoformat(plain["at"])).total_seconds()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}
    return dict(plain) if age < STALE_SECONDS and plain.get("running") else {}
