"""Compare optimizers within a budget: plan, say what the plan can tell apart, run, and state what was found.

A comparison is a study with rules of its own (`tuneopt.search.study.comparison`). Its plan rests on measured step
times, which differ from minute to minute. So the plan is made once and kept beside the ledger as a study file; the same
question finds it again, and a run that was killed goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.claims import comparison_powers, conclusion
from tuneopt.api.comparison_results import ComparisonPlan, ComparisonResult
from tuneopt.api.corpora import Texts, corpus_named, encoded_corpus
from tuneopt.api.devices import slots_here
from tuneopt.api.optimizers import space_of
from tuneopt.api.own_models import model_of
from tuneopt.api.questions import comparison_page, plan_text, question_id, question_of, starts_of
from tuneopt.api.step_times import KNOWN_FLOPS, Note, TimeSource, times_of
from tuneopt.api.studies import planned_study, run_study, study_id, study_queue
from tuneopt.api.sweeps import with_ledger
from tuneopt.constants import BASELINE
from tuneopt.data import load_corpus
from tuneopt.ledger.damage import PLANS
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import RunResult, run
from tuneopt.search.records import spread_of
from tuneopt.search.study.budget import STARTING_SECONDS, Question, TrialTime, draft, study_document
from tuneopt.search.study.comparison import rules_of
from tuneopt.search.study.file import parse_study
from tuneopt.spec import CorpusId, InputError, Scale, Value

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.observe.observer import Observer
    from tuneopt.search.noise import SpreadModel
    from tuneopt.search.queue import SchedulerQueue
    from tuneopt.search.study.study import Study

HOPELESS = 4.0
"""Times the speed of a known core, which other cores differ from by a factor of two, that none will have."""

CLOCKS = 2
"""Simulated runs of a plan from which the range of its end is taken; what trials take varies far more than their
number."""


def comparison_plan(
    optimizers: Sequence[str],
    *,
    baseline: str = BASELINE,
    spaces: Mapping[str, str] | None = None,
    scale: str | Scale = "nano-65k",
    corpus: Texts = "embedded",
    tokenizer: str | Path | None = None,
    hours: float | None = None,
    resolution: float | None = None,
    ratio: float | None = None,
    tokens: int | None = None,
    steps: int | None = None,
    coordinates: Sequence[str] = (),
    overrides: Mapping[str, Value] | None = None,
    seed: int = 0,
    precision: str | None = None,
    compile: bool | None = None,
    slots: int | None = None,
    gpus_per_trial: float = 0.0,
    ledger: Ledger | Path | str = "ledger",
    measure: bool = False,
    tokens_per_second: float | None = None,
    keep: bool = False,
    note: Note = lambda text: None,
) -> ComparisonPlan:
    """Plan a comparison of ``optimizers`` with a ``baseline``; nothing is trained but, with ``measure``, a few steps.

    Optimizers are names or ``PATH.py:Class``; ``spaces`` names the search space of those that bring none.
    The budget is ``hours`` by the clock on ``slots`` slots (this machine's cores by default, or with ``gpus_per_trial``
    what its GPUs hold), or what the ``resolution`` in nats takes. ``ratio`` is where the rivals meet, chosen by the
    budget unless given, as such or as ``tokens`` or ``steps`` (of the baseline's start). ``coordinates`` are those that
    may be tuned, all unless named; of these the budget decides how many. ``overrides``
    pins hyperparameters of all optimizers that have them. ``tokenizer`` is a file of one's own for a ``corpus`` of
    text (`encoded_corpus`). Step times come from the ledger or the few steps, unless
    ``tokens_per_second`` of one slot gives them. ``keep`` stores the plan beside the ledger, and ``note`` is told what
    takes a while. Raises `InputError` for anything that cannot be run, and for a budget that is too small.
    """
    opened, _ = with_ledger(ledger, None)
    corpus = corpus_named(corpus)  # text is encoded once the question is known to be one
    if gpus_per_trial and slots is None:
        slots, _ = slots_here(RunOptions(gpus_per_trial=gpus_per_trial), str(scale))
    question = question_of(
        optimizers, baseline, spaces or {}, overrides or {}, scale=scale, corpus=corpus, hours=hours,
        ratio=ratio, tokens=tokens, steps=steps, coordinates=coordinates, resolution=resolution, seed=seed,
        precision=precision, compile=compile, slots=slots,
    )  # fmt: skip
    corpus = encoded_corpus(corpus, tokenizer)
    loaded = load_corpus(corpus, vocab_size=question.vocabulary)  # a text that is not there is answered first
    # A tokenizer of one's own has as many words as it has.
    question = replace(question, corpus=corpus, vocabulary=loaded.id.vocab_size)
    name = question_id(question)
    noise = spread_of(opened)
    text = opened.plan(name)
    stored = text is not None
    if measure and not stored and tokens_per_second is None:
        _refuse_hopeless(question, opened, noise)
    known = times_of(
        starts_of(question), opened, loaded,
        measure=measure and not stored, tokens_per_second=tokens_per_second,
        core=not gpus_per_trial, slots=question.slots, note=note,
    )  # fmt: skip
    times, origin = known.by_name, known.origin
    if not times:
        raise InputError(
            f"nothing is known of how fast {question.scale.name} trains here; give --tokens-per-second of one slot, or "
            "--measure on a machine like those that will train"
        )
    if text is None:
        part = draft(question, times, noise)
        text = plan_text(study_document(question, part, times, noise), part, times, origin.words)
        if keep and not opened.put_plan(name, text):  # another run was faster: its plan is the plan
            text, stored = opened.plan(name) or text, True
    study = parse_study(text, f"{PLANS}/{name}.yaml", space_of, model_of)
    ends = _ends(study, question, times, origin)
    done, left, share = _left(study, question, times, opened) if stored else (0, None, 1.0)
    return ComparisonPlan(
        question=question,
        study=study,
        text=text,
        stored=stored,
        times=times,
        times_from=origin.words,
        slots=question.slots,
        planned_hours=rules_of(study).hours,
        ends=(share * ends[0], share * ends[1]),
        in_ledger=done,
        left=left,
        page=comparison_page(question, loaded.id),
        powers=comparison_powers(study, loaded.id, opened, noise),
    )


def _refuse_hopeless(question: Question, ledger: Ledger, noise: SpreadModel) -> None:
    """Raise `InputError` for a budget that no core here can meet, before minutes go into timing steps."""
    import torch

    if question.seconds is None or torch.cuda.is_available():
        return
    core = KNOWN_FLOPS / question.scale.flops_per_token(question.vocabulary)
    starts = starts_of(question)
    rough = times_of(starts, ledger).by_name or times_of(starts, ledger, tokens_per_second=core).by_name
    fastest = {name: TrialTime(time.fixed / HOPELESS, HOPELESS * time.rate) for name, time in rough.items()}
    try:
        draft(question, fastest, noise)
    except InputError:
        draft(question, rough, noise)


def compare(
    optimizers: Sequence[str],
    ledger: Ledger | Path | str = "ledger",
    options: RunOptions | None = None,
    *,
    backend: str = "ray",
    observers: Sequence[Observer] = (),
    progress: bool | None = None,
    **question: Any,
) -> ComparisonResult:
    """Plan and run a comparison; ``question`` is what `comparison_plan` takes, such as ``hours=2``.

    ``progress`` shows how far it is; None shows it in a notebook and on a terminal (`tuneopt.notebook`).
    """
    from tuneopt.notebook import progress as shown

    if backend == "inline":
        question.setdefault("slots", 1)
    if options is not None:
        question.setdefault("gpus_per_trial", options.gpus_per_trial)
    plan = comparison_plan(optimizers, ledger=ledger, measure=True, keep=True, **question)
    with shown("comparing", plan.study.name, progress, observers) as watching:
        return run_comparison(plan, ledger, options, backend=backend, observers=watching)


def run_comparison(
    plan: ComparisonPlan,
    ledger: Ledger | Path | str,
    options: RunOptions | None = None,
    *,
    backend: str = "ray",
    observers: Sequence[Observer] = (),
) -> ComparisonResult:
    """Run what is missing of a comparison, to its statement.

    It stops cleanly at its limit and at Ctrl-C (``interrupted``); the same question asked again goes on from there.
    Raises `InputError` when the backend cannot run a single trial.
    """
    opened, options = with_ledger(ledger, options)
    if options.max_concurrent is None and backend == "ray":
        options = replace(options, max_concurrent=plan.slots)
    result = run_study(plan.study, opened, options, backend=backend, observers=observers, progress=False)
    agenda = planned_study(plan.study)
    queue = study_queue(agenda, opened)
    return ComparisonResult(
        **vars(result), plan=plan, spent_hours=_spent_hours(opened, study_id(agenda), queue, plan.slots)
    )


def simulate_comparison(plan: ComparisonPlan, *, noise: float | None = None, seed: int = 0) -> ComparisonResult:
    """Run a comparison on the simulator's surfaces and a fake clock; nothing is trained and nothing kept.

    ``noise`` (nats between seeds) is what the noise law says unless given; ``seed`` makes another world of the same
    surfaces.
    """
    from tuneopt.search.study.status import status_document

    study = replace(plan.study, seed=plan.study.seed + seed)
    queue, clock, result = _simulated(study, plan.question, plan.times, noise)
    return ComparisonResult(
        **vars(result),
        status=status_document(queue.agenda, queue),  # type: ignore[arg-type]
        conclusion=conclusion(study, queue.standings, queue.outcomes, finished=queue.finished),
        plan=plan,
        spent_hours=(STARTING_SECONDS + clock) / 3600,
        simulated=True,
    )


def _simulated(
    study: Study, question: Question, times: Mapping[str, TrialTime], noise: float | None
) -> tuple[SchedulerQueue, float, RunResult]:
    """The queue of a simulated run, its fake seconds, and its result."""
    from tuneopt.run.simulated import SimulatedBackend
    from tuneopt.search.noise import SigmaLaw
    from tuneopt.search.study.planner import StudyPlan
    from tuneopt.search.study.surfaces import Surfaces

    surfaces = Surfaces(study, noise=SigmaLaw().at(question.scale.parameters) if noise is None else noise)
    by_name = {space.optimizer: times[word] for word, space in question.spaces.items()}
    queue = study_queue(StudyPlan(study, CorpusId(study.corpus, "", study.vocabulary)), None)
    backend = SimulatedBackend(
        surfaces.evaluate,
        slots=question.slots,
        duration=lambda spec: by_name[spec.optimizer].seconds(spec.regime.tokens),
    )
    result = run(queue, backend, RunOptions())
    return queue, backend.clock.seconds, result


def _ends(study: Study, question: Question, times: Mapping[str, TrialTime], origin: TimeSource) -> tuple[float, float]:
    """The hours by the clock in which the plan ends: those of simulated runs, and what step times may be off."""
    worlds = [replace(study, seed=study.seed + 1000 * number) for number in range(CLOCKS)]
    hours = [(STARTING_SECONDS + _simulated(world, question, times, None)[1]) / 3600 for world in worlds]
    return origin.low * min(hours), origin.high * max(hours)


def _left(study: Study, question: Question, times: Mapping[str, TrialTime], ledger: Ledger) -> tuple[int, int, float]:
    """Of a comparison that has begun: trials that ended, trials about to come, and the latter's share of the time."""
    from tuneopt.search.study.expected import expected

    agenda = planned_study(study)
    queue = study_queue(agenda, ledger)
    parts = expected(agenda, queue.standings)
    by_name = {space.optimizer: times[word] for word, space in question.spaces.items()}
    done, left = (
        sum(getattr(part, count) * by_name[part.optimizer].seconds(part.regime.tokens) for part in parts)
        for count in ("done", "remaining")
    )
    return len(queue.outcomes), sum(part.remaining for part in parts), left / (done + left)


def _spent_hours(ledger: Ledger, study: str, queue: SchedulerQueue, slots: int) -> float:
    """Hours by the clock of all runs: those that left an account, and the trials of runs that were killed."""
    runs = [run for run in ledger.sound_runs().values() if run.get("study") == study]
    wall = sum(float(run.get("wall_seconds", 0.0)) for run in runs)
    accounted = {trial for run in runs for trial in run.get("run", ())}
    # A run that was killed leaves no account, only its records: as if its slots had always been busy.
    lost = sum(seconds for trial, seconds in queue.seconds.items() if trial not in accounted)
    return (wall + lost / slots) / 3600
