"""Compare optimizers within a budget: plan, say what the plan can tell apart, run, and state what was found.

A comparison is a study with rules of its own (`tuneopt.search.study.comparison`). Its plan rests on measured step
times, which differ from minute to minute. So the plan is made once and kept beside the ledger as a study file; the same
question finds it again, and a run that was killed goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.comparison_results import ComparisonPlan, ComparisonResult, TunedCare
from tuneopt.api.optimizers import space_of
from tuneopt.api.own_models import model_of
from tuneopt.api.questions import plan_text, question_id, question_of
from tuneopt.api.step_times import ERRORS, trial_times
from tuneopt.api.studies import planned_study, run_study, study_id, study_queue
from tuneopt.api.study_results import StudyResult
from tuneopt.api.sweeps import with_ledger
from tuneopt.data import load_corpus
from tuneopt.ledger.damage import PLANS
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import RunResult, run
from tuneopt.search.records import spread_of
from tuneopt.search.study.budget import STARTING_SECONDS, Question, TrialTime, draft, study_document
from tuneopt.search.study.comparison import rules_of
from tuneopt.search.study.file import parse_study
from tuneopt.search.study.power import Power, power, slope
from tuneopt.spec import CorpusId, Scale, Value

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.observe.observer import Observer
    from tuneopt.search.noise import SpreadModel
    from tuneopt.search.queue import SchedulerQueue
    from tuneopt.search.standing import Standing
    from tuneopt.search.study.study import Study

BASELINE = "adamw"
"""Whom rivals are compared with, unless said otherwise."""

CLOCKS = 2
"""Simulated runs of a plan from which the range of its end is taken; what trials take varies far more than their
number."""


def comparison_plan(
    optimizers: Sequence[str],
    *,
    baseline: str = BASELINE,
    spaces: Mapping[str, str] | None = None,
    scale: str | Scale = "nano-65k",
    corpus: str = "embedded",
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
    ledger: Ledger | Path | str = "ledger",
    measure: bool = False,
    tokens_per_second: float | None = None,
    keep: bool = False,
) -> ComparisonPlan:
    """Plan a comparison of ``optimizers`` with a ``baseline``; nothing is trained but, with ``measure``, a few steps.

    Optimizers are names or ``PATH.py:Class``; ``spaces`` names the search space of those that bring none.
    The budget is ``hours`` by the clock on ``slots`` slots (this machine's cores by default), or what the
    ``resolution`` in nats takes. ``ratio`` is where the rivals meet, chosen by the budget unless given, as such or as
    ``tokens`` or ``steps`` (of the baseline's start). ``coordinates`` are those that may be tuned, all unless named;
    of these the budget decides how many. ``overrides``
    pins hyperparameters of all optimizers that have them. Step times come from the ledger or the few steps, unless
    ``tokens_per_second`` of one slot gives them. ``keep`` stores the plan beside the ledger. Raises
    `InputError` for anything that cannot be run, and for a budget that is too small.
    """
    opened, _ = with_ledger(ledger, None)
    question = question_of(
        optimizers, baseline, spaces or {}, overrides or {}, scale=scale, corpus=corpus, hours=hours,
        ratio=ratio, tokens=tokens, steps=steps, coordinates=coordinates, resolution=resolution, seed=seed,
        precision=precision, compile=compile, slots=slots,
    )  # fmt: skip
    loaded = load_corpus(corpus, vocab_size=question.vocabulary)  # a text that is not there is answered first
    name = question_id(question)
    noise = spread_of(opened)
    text = opened.plan(name)
    stored = text is not None
    times, origin = trial_times(
        question, opened, loaded, measure=measure and not stored, tokens_per_second=tokens_per_second
    )
    if text is None:
        part = draft(question, times, noise)
        text = plan_text(study_document(question, part, times, noise), part, times, origin)
        if keep and not opened.put_plan(name, text):  # another run was faster: its plan is the plan
            text, stored = opened.plan(name) or text, True
    study = parse_study(text, f"{PLANS}/{name}.yaml", space_of, model_of)
    return ComparisonPlan(
        question=question,
        study=study,
        text=text,
        stored=stored,
        times=times,
        times_from=origin,
        slots=question.slots,
        planned_hours=rules_of(study).hours,
        ends=_ends(study, question, times, origin),
        powers=_powers(study, question, opened, noise),
    )


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
    if options.max_concurrent is None:
        options = replace(options, max_concurrent=plan.slots)
    result = run_study(plan.study, opened, options, backend=backend, observers=observers, progress=False)
    agenda = planned_study(plan.study)
    queue = study_queue(agenda, opened)
    return _concluded(plan, queue, result, _spent_hours(opened, study_id(agenda), queue, plan.slots))


def simulate_comparison(plan: ComparisonPlan, *, noise: float | None = None, seed: int = 0) -> ComparisonResult:
    """Run a comparison on the simulator's surfaces and a fake clock; nothing is trained and nothing kept.

    ``noise`` (nats between seeds) is what the noise law says unless given; ``seed`` makes another world of the same
    surfaces.
    """
    from tuneopt.search.study.status import status_document

    study = replace(plan.study, seed=plan.study.seed + seed)
    queue, clock, result = _simulated(study, plan.question, plan.times, noise)
    status = status_document(queue.agenda, queue)  # type: ignore[arg-type]
    ended = StudyResult(**vars(result), status=status)
    return _concluded(plan, queue, ended, (STARTING_SECONDS + clock) / 3600)


def true_speedup(plan: ComparisonPlan, rival: str) -> float:
    """What a simulated comparison of ``rival`` (a word of the question) ought to find at the optima of its surfaces."""
    from tuneopt.search.study.surfaces import Surfaces

    surfaces, question, rules = Surfaces(plan.study), plan.question, rules_of(plan.study)
    names = {word: space.optimizer for word, space in question.spaces.items()}
    loss = surfaces.of(names[rival], question.regime(rules.ratios[0])).lowest
    low, high = rules.ratios[0] / 16, rules.ratios[0] * 16
    for _ in range(60):  # the baseline's lowest loss falls with its ratio
        middle = math.sqrt(low * high)
        above = surfaces.of(names[question.baseline], question.regime(middle)).lowest > loss
        low, high = (middle, high) if above else (low, middle)
    return math.sqrt(low * high) / rules.ratios[0]


def _concluded(plan: ComparisonPlan, queue: SchedulerQueue, result: StudyResult, hours: float) -> ComparisonResult:
    """The result of a comparison whose trials are in ``queue``."""
    from tuneopt.analysis.comparison import comparison_statement, runs_of
    from tuneopt.analysis.document import summary
    from tuneopt.analysis.inputs import Inputs

    rules = rules_of(plan.study)
    standings = queue.standings
    runs = runs_of(standings, queue.outcomes)
    document = summary(Inputs(runs, "comparison"), baseline=rules.baseline)
    names = [name for name in plan.study.optimizers if name != rules.baseline]
    size = plan.question.scale.parameters
    where = f"at {_count(size)} parameters and {_count(plan.question.regime(rules.ratios[0]).tokens)} tokens"
    statement = comparison_statement(document, rules.baseline, names, plan.question.scale.name, rules.ratios[0], where)
    # Of several sweeps of one configuration the last has all seeds: the others add nothing to a report.
    last: dict[tuple[object, ...], str] = {}
    for standing in standings.values():
        task, sweep = standing.task, standing.task.sweep
        last[task.phase, task.optimizer, sweep.regime, bool(sweep.space.varied)] = task.id
    return ComparisonResult(
        **vars(result), plan=plan, analysis=document, statement=statement, spent_hours=hours,
        shown=tuple(last.values()),
        care=_care(plan.study, standings),
    )  # fmt: skip


def _care(study: Study, standings: Mapping[str, Standing]) -> tuple[TunedCare, ...]:
    """What each optimizer was given where the rivals meet."""
    home = rules_of(study).ratios[0]
    here = [standing for standing in standings.values() if standing.task.sweep.regime.ratio == home]
    found = []
    for name, space in study.spaces.items():
        mine = [standing for standing in here if standing.task.optimizer == name]
        tuned = [standing for standing in mine if standing.task.sweep.space.varied]
        trials = {trial for standing in mine for trial in standing.trials}
        resolution = tuned[0].state.certificate.resolution if tuned else None
        found.append(TunedCare(name, tuple(axis.name for axis in space.varied), len(trials), resolution))
    return tuple(found)


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


def _ends(study: Study, question: Question, times: Mapping[str, TrialTime], origin: str) -> tuple[float, float]:
    """The hours by the clock in which the plan ends: those of simulated runs, and what step times may be off."""
    factors = ERRORS[origin]
    worlds = [replace(study, seed=study.seed + 1000 * number) for number in range(CLOCKS)]
    hours = [(STARTING_SECONDS + _simulated(world, question, times, None)[1]) / 3600 for world in worlds]
    return factors[0] * min(hours), factors[1] * max(hours)


def _spent_hours(ledger: Ledger, study: str, queue: SchedulerQueue, slots: int) -> float:
    """Hours by the clock of all runs: those that left an account, and the trials of runs that were killed."""
    runs = [run for run in ledger.runs().values() if run.get("study") == study]
    wall = sum(float(run.get("wall_seconds", 0.0)) for run in runs)
    accounted = {trial for run in runs for trial in run.get("run", ())}
    # A run that was killed leaves no account, only its records: as if its slots had always been busy.
    lost = sum(seconds for trial, seconds in queue.seconds.items() if trial not in accounted)
    return (wall + lost / slots) / 3600


def _powers(study: Study, question: Question, ledger: Ledger, noise: SpreadModel) -> tuple[Power, ...]:
    """What the plan will tell apart, for each rival."""
    rules = rules_of(study)
    regime = question.regime(rules.ratios[0])
    names = {word: space.optimizer for word, space in question.spaces.items()}
    steep = slope(regime, _baseline_losses(ledger, names[question.baseline], question))
    cells = len(names) + len(rules.ratios) - 1
    return tuple(
        power(noise, regime, names[question.baseline], names[word], rules.seeds, steep, cells)
        for word in question.rivals
    )


def _baseline_losses(ledger: Ledger, baseline: str, question: Question) -> dict[float, float]:
    """The lowest select loss of the baseline by ratio, at the question's scale on its corpus."""
    lowest: dict[float, float] = {}
    for record in ledger.records():
        regime = record.spec.regime
        here = (record.spec.optimizer, regime.scale, regime.corpus.name) == (baseline, question.scale, question.corpus)
        if here and record.comparable and record.select_loss is not None:
            lowest[regime.ratio] = min(record.select_loss, lowest.get(regime.ratio, record.select_loss))
    return lowest


def _count(value: float) -> str:
    """A count in short, such as 65k, 1.3M, 2.6B."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}" if value < 10 * size else f"{value / size:.0f}{letter}"
    return f"{value:g}"
