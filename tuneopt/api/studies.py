"""Plan, run, simulate and look at studies.

A study is an agenda of sweeps (`tuneopt.search.study.planner`) in a scheduler queue. To look at one is to make the
queue from the ledger and ask it; to run it is to hand the same queue to a backend. So status, plan and run never
disagree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.claims import Conclusion, comparison_powers, conclusion
from tuneopt.api.corpora import Texts, corpus_named
from tuneopt.api.devices import compiles_at, peak_bytes, placements, state_bytes
from tuneopt.api.optimizers import check_outside, space_of
from tuneopt.api.own_models import check_on_model, model_of
from tuneopt.api.step_times import Note, Speed, study_times
from tuneopt.api.study_results import StudyResult
from tuneopt.api.sweeps import backend_named, with_ledger
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import RunResult, run
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.records import kept_evidence, recorded
from tuneopt.spec import CorpusId, InputError, TrialSpec, nearest

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.observe.observer import Observer
    from tuneopt.search.study.planner import StudyPlan
    from tuneopt.search.study.power import Power
    from tuneopt.search.study.study import Study

MOST_RANKS = 64
"""Ranks of one trial that a plan considers where one device is too small; they are doubled, so six are tried."""


def load_study(path: str | Path, match_budget: bool = False, corpus: Texts | None = None) -> Study:
    """The study that a YAML file declares; raises `InputError` with file and line of what is wrong.

    ``corpus`` takes the place of the one that the file names.
    """
    from tuneopt.search.study.file import read_study

    # `space_of` also knows files of users and installed packages, `model_of` builds models of their own.
    study = read_study(path, space_of, model_of)
    for space in study.spaces.values():
        check_outside(space)
        for scale in study.scales.values():
            check_on_model(space, scale)
    study = replace(study, match_budget=True) if match_budget else study
    return study if corpus is None else replace(study, corpus=corpus_named(corpus))


def study_plan(
    study: Study,
    ledger: Ledger | Path | str,
    speed: Speed | None = None,
    *,
    slots: int | None = None,
    device_bytes: int | None = None,
    most_ranks: int = MOST_RANKS,
    measure: bool = False,
    note: Note = lambda text: None,
) -> dict[str, Any]:
    """What the study will cost, phase by phase; ``fits`` and ``why`` say whether it can run.

    ``power`` says what winners will tell apart in each regime, with the study's seeds. Nothing is trained, unless
    ``measure`` asks for a few steps where the ledger knows no speed (``note`` is told).

    ``slots`` are the devices, this machine's cores by default; ``device_bytes`` what each has, by default an equal
    share of this machine's memory where the slots are its own. Where a trial needs more, ``scales`` and ``why`` name
    the ranks (``most_ranks`` at most) and the stage of ZeRO that would do.
    """
    from tuneopt.search.study.cost import needs, plan_document
    from tuneopt.search.study.expected import forecasts

    opened, _ = with_ledger(ledger, None)
    plan = planned_study(study, required=False)  # a plan is asked for before the corpus is copied to where it runs
    queue = study_queue(plan, opened)
    count = slots or os.cpu_count() or 1  # trials at once: on a CPU a trial takes one core
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    most = device_bytes or (memory // count if slots is None else None)  # None: nothing is known of other devices
    seconds, origin = study_times(plan, opened, speed or Speed(), measure, count, note)
    folder = Path(opened.uri)  # its nearest parent that exists says how much disk is free
    coming = forecasts(plan, queue.standings)
    document = plan_document(
        plan,
        coming,
        seconds,
        needs(
            study,
            ((each.optimizer, each.regime) for each in coming[0]),  # all of them have the same places
            peak_bytes,
            state_bytes,
            device_bytes=most,
            most_ranks=most_ranks,
        ),
        off=(origin.low, origin.high),
        slots=count,
        device_bytes=most,
        free_disk=shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
        if opened.is_local
        else None,
    )
    return {
        **document,
        "throughput_from": origin.words,
        "in_ledger": len(queue.outcomes),
        "power": [each.to_dict() for each in _powers(plan, opened)],
    }


def _powers(plan: StudyPlan, ledger: Ledger) -> tuple[Power, ...]:
    """What a study will tell apart: in each of its regimes, or for each rival of a comparison."""
    from tuneopt.search.records import spread_of
    from tuneopt.search.study.power import study_power

    noise = spread_of(ledger)
    if plan.study.comparison is not None:
        return comparison_powers(plan.study, plan.corpus, ledger, noise)
    return study_power(plan, noise)


def study_status(study: Study, ledger: Ledger | Path | str) -> dict[str, Any]:
    """Where a study stands, as its ledger alone tells it."""
    from tuneopt.run.heartbeat import read_moment
    from tuneopt.search.study.status import status_document

    opened, _ = with_ledger(ledger, None)
    plan = planned_study(study)
    # What runs now is known to the running driver alone; a heartbeat that has stopped is no sign of life.
    moment = read_moment(opened, study_id(plan))
    queue = study_queue(plan, opened)
    found = concluded(plan, queue) if queue.outcomes else None
    powers = _powers(plan, opened)
    return {
        **status_document(plan, queue, moment),
        **({} if found is None else found.to_dict()),
        "power": [each.to_dict() for each in powers],
        "under_way": moment is not None,
        "slots": moment.slots if moment else None,
    }


def run_study(
    study: Study | Path | str,
    ledger: Ledger | Path | str = "ledger",
    options: RunOptions | None = None,
    *,
    backend: str = "ray",
    device_bytes: int | None = None,
    observers: Sequence[Observer] = (),
    progress: bool | None = None,
    corpus: Texts | None = None,
) -> StudyResult:
    """Run what is missing of a study (or of the one that a YAML file declares), all its sweeps over one set of slots.

    ``corpus`` takes the place of the one that the study names.

    ``progress`` shows how far it is; None shows it in a notebook and on a terminal (`tuneopt.notebook`).

    It stops cleanly at the study's limits and at Ctrl-C; running it again goes on from there. Corpus and placement are
    the study's own, whatever the options say. Raises `InputError` when it cannot fit: on this machine, or on devices of
    ``device_bytes`` each.
    """
    from tuneopt.notebook import progress as shown
    from tuneopt.run.heartbeat import Heartbeat
    from tuneopt.search.study.status import status_document

    if isinstance(study, str | Path):
        study = load_study(study)
    if corpus is not None:
        study = replace(study, corpus=corpus_named(corpus))
    opened, options = with_ledger(ledger, options)
    plan = planned_study(study)
    # Whether it fits is known here alone: on this machine's memory, or by what the user says of the devices.
    here = options.address is None and options.gpus_per_trial == 0
    if here or device_bytes:
        # Time is not asked for, and any speed saves measuring one.
        checked = study_plan(
            study, opened, Speed(tokens_per_second=1.0), slots=None if here else 1, device_bytes=device_bytes
        )
        if not checked["fits"]:
            raise InputError(f"the study does not fit: {checked['why']}")
    queue = study_queue(plan, opened, ahead=True)
    options = replace(options, corpus=study.corpus, parallel=placements(study))
    with (
        Heartbeat(opened, queue.id, study.name, queue.device_seconds) as heart,
        shown("study", study.name, progress, observers) as watching,
    ):
        result = run(queue, backend_named(backend, options), options, [heart, *watching])
    _put_accounts(opened, queue, result)
    return StudyResult(**vars(result), status=status_document(plan, queue), conclusion=concluded(plan, queue))


def concluded(plan: StudyPlan, queue: SchedulerQueue) -> Conclusion | None:
    """What the trials of a comparison say; None for other studies."""
    if plan.study.comparison is None:
        return None
    return conclusion(plan.study, queue.standings, queue.outcomes, finished=queue.finished)


def _put_accounts(ledger: Ledger, queue: SchedulerQueue, result: RunResult) -> None:
    """Keep an account of this run for each sweep that it worked on, and one for what they share."""
    from tuneopt.search.study.spent import RunTimes, accounts

    if not (result.run or result.failed):  # a run that found everything done leaves no trace
        return
    for account in accounts(
        queue.id,
        queue.standings,
        RunTimes(result.slots, result.wall_seconds, result.busy, result.busy_seconds),
        run=result.run,
        reused=queue.reused,
        failed=result.failed,
        guesses=queue.guesses,
        interrupted=result.interrupted,
    ):
        ledger.put_run(account)


def report_baseline(study: Study, wanted: str | None = None) -> str | None:
    """Whom a study's report compares with: ``wanted``, else the baseline that the study brackets or compares with.

    None leaves it to the report (AdamW). Raises `InputError` for one that the study does not run.
    """
    from tuneopt.analysis.cells import folded

    if wanted is None:
        return study.comparison.baseline if study.comparison is not None else study.bracket
    names = {folded(name): name for name in study.optimizers}
    if folded(wanted) not in names:
        raise InputError(f"the study runs no {wanted!r} to compare with; {nearest(wanted, list(study.optimizers))}")
    return names[folded(wanted)]


def study_id(plan: StudyPlan) -> str:
    """Sixteen hexadecimal digits that identify a study on its corpus: its heartbeat and its accounts go by them."""
    text = f"{plan.study.text}{plan.corpus.fingerprint}{plan.compile}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def planned_study(study: Study, required: bool = True) -> StudyPlan:
    """The study on its corpus; without ``required``, on a stand-in of its size where the corpus is not here."""
    from tuneopt.data import load_corpus
    from tuneopt.search.study.planner import StudyPlan

    try:
        corpus = load_corpus(study.corpus, vocab_size=study.vocabulary).id
    except (InputError, ModuleNotFoundError):  # a light installation has no tokenizer, and can plan all the same
        if required:
            raise
        corpus = CorpusId(study.corpus, "", study.vocabulary)
    return StudyPlan(study, corpus, compiles_at(study.compile, study.scales.values()))


def study_queue(
    plan: StudyPlan,
    ledger: Ledger | None,
    *,
    ahead: bool = False,
    expected: Callable[[TrialSpec], float] | None = None,
) -> SchedulerQueue:
    """The study's trials; unless told, it expects a trial to take its FLOPs at the pace of those that ended."""
    if ledger is not None:
        plan.evidence = kept_evidence(ledger, plan.corpus, study_id(plan))
    queue = SchedulerQueue(
        plan,
        known=recorded(ledger) if ledger else lambda spec: None,
        limits=plan.study.limits,
        ahead=ahead,
        study=(plan.study.name, study_id(plan)),
    )
    queue.expected = expected or queue.at_pace  # set late: the pace is that of this very queue's trials
    return queue
