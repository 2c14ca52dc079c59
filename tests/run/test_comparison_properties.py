"""Properties of comparisons over random questions, on the simulator: what they cost, what they state, what kills do."""

from __future__ import annotations

from comparison_worlds import MINUTE, trials_at_home
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tuneopt.analysis.names import optimizer_name
from tuneopt.api.claims import conclusion
from tuneopt.api.comparing import _simulated, comparison_plan, simulate_comparison
from tuneopt.observe.observer import Observer
from tuneopt.run.options import RunOptions
from tuneopt.run.simulated import SimulatedBackend, as_outcome
from tuneopt.run.spine import run
from tuneopt.search.plan import Ended, Outcome
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.space import space_names
from tuneopt.search.study.comparison import rules_of
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.surfaces import Surfaces
from tuneopt.spec import CorpusId, InputError

RIVALS = st.lists(st.sampled_from(sorted(set(space_names()) - {"adamw"})), min_size=1, max_size=3, unique=True)
QUICK = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def planned(rivals, minutes, slots, scale="nano-65k", **about):
    """A plan with the step times of a known core; a question whose budget is too small is not one."""
    try:
        return comparison_plan(rivals, hours=minutes * MINUTE, slots=slots, ledger="nowhere", scale=scale, **about)
    except InputError as error:
        assert "too few" in str(error)
        assume(False)


def clauses_about(statement: str, rival: str) -> list[str]:
    """What a statement says of a rival against the baseline; a tie of two rivals is said besides."""
    name, every = optimizer_name(rival), statement.split("; ")
    return [one for one in every if one.startswith(f"{name} ") and not one.endswith("cannot be told apart")]


@QUICK
@given(
    RIVALS,
    st.floats(3, 60),
    st.integers(1, 8),
    st.sampled_from(["nano-65k", "nano-147k"]),
    st.integers(0, 10_000),
    st.floats(0.002, 0.06),
)
def test_every_comparison_ends_within_its_plan_and_says_one_thing_of_every_rival(
    rivals, minutes, slots, scale, seed, noise
):
    plan = planned(rivals, minutes, slots, scale)
    result = simulate_comparison(plan, seed=seed, noise=noise)
    assert plan.planned_hours * 0.85 <= result.spent_hours <= plan.planned_hours * 1.15
    assert plan.planned_hours <= minutes * MINUTE * 1.001
    assert result.status["finished"] and not result.stopped
    for rival in rivals:
        assert len(clauses_about(result.statement, rival)) == 1, result.statement
    assert len(result.speedups) == len(rivals) and result.certified
    queue, _, _ = _simulated(plan.study, plan.question, plan.times, noise)
    assert len(set(trials_at_home(plan, queue).values())) == 1, "equal budgets where they meet"


class KillAt(Observer):
    """A driver that is stopped after so many events, by Ctrl-C or worse: nothing but the records stays."""

    def __init__(self, events: int) -> None:
        self.left = events

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def asked(self, spec) -> None:
        self._count()

    def started(self, spec) -> None:
        self._count()

    def ended(self, spec, end) -> None:
        self._count()


@QUICK
@given(RIVALS, st.floats(5, 20), st.integers(1, 4), st.lists(st.integers(0, 40), max_size=6), st.integers(0, 1000))
def test_a_comparison_that_is_killed_between_any_two_events_ends_with_the_same_answer(
    rivals, minutes, slots, kills, seed
):
    plan = planned(rivals, minutes, slots, seed=seed)
    study = plan.study
    surfaces = Surfaces(study, noise=0.02)

    def driven(records: dict[str, Outcome], events: int) -> SchedulerQueue:
        """One run over what earlier ones left; a worker keeps its record whether or not the driver lives on."""

        def train(spec):
            return records.setdefault(spec.id, as_outcome(surfaces.evaluate(spec)))

        queue = SchedulerQueue(
            StudyPlan(study, CorpusId(study.corpus, "", study.vocabulary)),
            known=lambda spec: Ended(records[spec.id], 1.0) if spec.id in records else None,
            study=("comparison", "id"),
        )
        backend = SimulatedBackend(train, slots=slots, duration=lambda spec: float(spec.steps))
        run(queue, backend, RunOptions(), [KillAt(events)])
        return queue

    whole = driven({}, 10**9)
    records: dict[str, Outcome] = {}
    for events in kills:
        driven(records, events)
    ended = driven(records, 10**9)
    assert ended.finished and ended.outcomes == whole.outcomes
    assert records.keys() == whole.outcomes.keys(), "nothing was run that an undisturbed comparison does not run"
    statements = {
        conclusion(study, queue.standings, queue.outcomes, finished=True).statement for queue in (whole, ended)
    }
    assert len(statements) == 1
    assert rules_of(study).baseline == "adamw"
