"""Plan, run, simulate and look at studies."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.devices import peak_bytes, placements, state_bytes
from tuneopt.api.speed import Speed
from tuneopt.api.study_ledger import put_runs, put_sweeps
from tuneopt.spec import CorpusId, InputError

if TYPE_CHECKING:
    from tuneopt.cluster.progress import PoolProgress, PoolResult
    from tuneopt.ledger import Ledger
    from tuneopt.observe.observer import Observer
    from tuneopt.search.queue import SchedulerQueue
    from tuneopt.search.study.planner import StudyPlan
    from tuneopt.search.study.study import Study

MOST_RANKS = 64
"""Ranks of one trial that a plan considers where one device is too small."""


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
    device_bytes: int | None = None,
    most_ranks: int = MOST_RANKS,
) -> dict[str, Any]:
    """What the study will cost, phase by phase; ``fits`` and ``why`` say whether it can run.

    ``slots`` are the devices, this machine's cores by default; ``device_bytes`` what each has, by default an equal
    share of this machine's memory where the slots are its own. Where a trial needs more, ``scales`` and ``why`` name
    the ranks (``most_ranks`` at most) and the stage of ZeRO that would do.
    """
    from tuneopt.api.speed import rate
    from tuneopt.search.study.cost import expected, needs, plan_document

    opened = _opened(ledger)
    plan = _plan(study, required=False)
    pool = _pool(plan, opened)
    own = slots is None
    count = slots or os.cpu_count() or 1
    most = device_bytes or (_memory() // count if own else None)
    expectations = expected(plan, pool.standings)
    tokens, origin = rate(plan, opened, speed or Speed())
    document = plan_document(
        plan,
        expectations,
        tokens,
        needs(
            study,
            ((each.optimizer, each.regime) for each in expectations),
            peak_bytes,
            state_bytes,
            device_bytes=most,
            most_ranks=most_ranks,
        ),
        slots=count,
        device_bytes=most,
        free_disk=shutil.disk_usage(_existing(Path(opened.uri))).free if opened.is_local else None,
    )
    return {**document, "throughput_from": origin, "in_ledger": len(pool.outcomes)}


def study_status(study: Study, ledger: Ledger | str) -> dict[str, Any]:
    """Where a study stands, as its ledger alone tells it."""
    from tuneopt.api.heartbeat import read_moment
    from tuneopt.search.study.status import status_document

    opened = _opened(ledger)
    plan = _plan(study)
    moment = read_moment(opened, study_id(plan))
    return {
        **status_document(plan, _pool(plan, opened), moment),
        "under_way": moment is not None,
        "slots": moment.slots if moment else None,
    }


def run_study(
    study: Study,
    ledger: Ledger | str,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    device_bytes: int | None = None,
    keep_weights: bool = False,
    listener: Callable[[PoolProgress, StudyPlan], None] = lambda progress, plan: None,
    observers: Sequence[Observer] = (),
) -> tuple[PoolResult, dict[str, Any]]:
    """Run what is missing of a study on Ray Tune, all its sweeps over one pool of slots; its result and its status.

    It stops cleanly at the study's limits and at Ctrl-C; running it again goes on from there. ``keep_weights`` keeps
    the final weights of every trial, for `export_model`. Raises `InputError` when it cannot fit: on this machine, or on
    devices of ``device_bytes`` each.
    """
    from tuneopt.api.heartbeat import Heartbeat
    from tuneopt.cluster.driver import run_pool
    from tuneopt.search.study.status import status_document

    opened = _opened(ledger)
    plan = _plan(study)
    here = address is None and gpus_per_trial == 0
    if here or device_bytes:
        checked = study_plan(
            study, opened, Speed(tokens_per_second=1.0), slots=None if here else 1, device_bytes=device_bytes
        )
        if not checked["fits"]:
            raise InputError(f"the study does not fit: {checked['why']}")
    pool = _pool(plan, opened, ahead=True)
    name = study_id(plan)
    known: set[str] = set()

    with Heartbeat(opened, name, study.name, pool.device_seconds) as heart:

        def connected() -> None:
            put_sweeps(opened, pool, study, known)
            heart.start()

        def tell(progress: PoolProgress) -> None:
            pool.slots = progress.slots
            put_sweeps(opened, pool, study, known)
            heart.show(progress)
            listener(progress, plan)

        result = run_pool(
            pool,
            opened,
            study.corpus,
            name=name,
            address=address,
            max_concurrent=max_concurrent,
            gpus_per_trial=gpus_per_trial,
            placements=placements(study),
            keep_weights=keep_weights,
            connected=connected,
            listener=tell,
            observers=observers,
        )
    put_sweeps(opened, pool, study, known)
    if result.run or result.failed:
        put_runs(opened, name, pool, result)
    return result, status_document(plan, pool)


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


def _pool(plan: StudyPlan, ledger: Ledger, ahead: bool = False) -> SchedulerQueue:
    from tuneopt.search.queue import SchedulerQueue
    from tuneopt.search.records import recorded

    pool = SchedulerQueue(plan, known=recorded(ledger), limits=plan.study.limits, ahead=ahead)
    pool.expected = lambda spec: _pace(pool) * spec.regime.flops
    return pool


def _pace(pool: SchedulerQueue) -> float:
    """Device seconds per FLOP of the trials that ended, 0 before there are any."""
    return pool.device_seconds / pool.flops if pool.flops else 0.0


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
