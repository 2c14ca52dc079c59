"""The three phases of a study, as a pool's plan.

Each optimizer goes through the phases on its own: its Phase II begins when its Phase I has descended, whatever the
others do, so that no slot waits for the slowest. Reruns of winners hold nothing up. A sweep whose start and whole star
diverge is begun again with lower learning rates, and at last at the winners of other regimes.
Everything follows from the study and from how its sweeps stand; an instance only remembers what it has worked out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from tuneopt.search.queue import Reserve
from tuneopt.search.standing import Standing, Task
from tuneopt.search.study import chains
from tuneopt.search.study.begin import closeness, hold, regimes_of, runnable, start, sweep_in
from tuneopt.search.study.matching import matching
from tuneopt.search.study.sensitive import Verdict, verdicts
from tuneopt.search.study.study import Study
from tuneopt.spec import CorpusId, Regime, TrialSpec, Value

if TYPE_CHECKING:
    from tuneopt.search.descent import Descent
    from tuneopt.search.prediction import Forecast

T = TypeVar("T")

LOWER_RATES = 3
"""Learning rates below its start from which a sweep is begun again when everything around the start has diverged."""

Standings = Mapping[str, Standing]


@dataclass(frozen=True)
class Finding:
    """What the phases have found out about one optimizer so far: the verdicts of Phase I, the predictions."""

    verdicts: tuple[Verdict, ...] = ()
    forecasts: Mapping[Regime, Forecast] | None = None

    @property
    def sensitive(self) -> tuple[str, ...]:
        """The scaling-sensitive coordinates, in the order of the space."""
        return tuple(verdict.coordinate for verdict in self.verdicts if verdict.sensitive)

    @property
    def shared(self) -> dict[str, Value]:
        """The value that every regime takes of each other coordinate."""
        return {verdict.coordinate: verdict.shared for verdict in self.verdicts if not verdict.sensitive}


class StudyPlan:
    """Which sweeps a study has, on a corpus; see `tuneopt.search.queue.Plan`.

    ``compile`` goes into every trial. ``seconds`` estimates a trial of a regime, on any scale: only ratios count.
    """

    def __init__(
        self,
        study: Study,
        corpus: CorpusId,
        compile: bool = False,
        seconds: Callable[[Regime], float] = lambda regime: float(regime.flops),
    ) -> None:
        self.study, self.corpus, self.compile, self.seconds = study, corpus, compile, seconds
        self._remembered: dict[tuple[str, str], tuple[tuple[object, ...], object]] = {}

    @cached_property
    def first(self) -> dict[str, tuple[Task, ...]]:
        """The sweeps of Phase I by optimizer; raises `InputError` where a start cannot run."""
        return {
            name: tuple(Task(sweep_in(self.study, space, regime, self.compile), "I") for regime in self.regimes("I"))
            for name, space in self.study.spaces.items()
        }

    def regimes(self, phase: str) -> tuple[Regime, ...]:
        """The regimes of a phase."""
        return regimes_of(self.study, self.corpus, phase)

    def tasks(self, standings: Standings) -> Sequence[Task]:
        """Every sweep whose place in the study is settled, phase by phase, and what evens out the budgets."""
        names = self.study.optimizers
        found = [task for name in names for task in self._attempts(name, "I", standings)]
        found += [task for name in names for task in self._attempts(name, "II", standings)]
        found += [task for name in names for task in self.third(name, standings)]
        return [*found, *matching(self, found, standings)] if self.study.match_budget else found

    def urgency(self, standing: Standing) -> float:
        """The seconds of the waves that this task probably still needs, and of those of the phases that wait on it."""
        return chains.urgency(self.study, self.regimes, self.seconds, standing)

    def duration(self, spec: TrialSpec) -> float:
        """About how long a trial takes, on the scale of ``seconds``."""
        return self.seconds(spec.regime)

    def reserves(self, standings: Standings) -> Sequence[Reserve]:
        """The trials of Phase III that will soon be ready: they are the longest, and end the study."""
        return chains.reserves(self.study, self.regimes, self.seconds, standings.values())

    def finding(self, optimizer: str, standings: Standings) -> Finding:
        """What is known of an optimizer: its verdicts once Phase I has descended, its predictions after Phase II."""
        judged = self._verdicts(optimizer, standings)
        return Finding(judged, self._forecasts(optimizer, standings) if judged else None)

    def ended(self, optimizer: str, phase: str, standings: Standings) -> tuple[Standing, ...]:
        """The sweep that stands for each regime of Phase I or II, once all of them have descended; none before."""
        last: dict[Regime, Standing | None] = {}
        for task in self._attempts(optimizer, phase, standings):
            last[task.sweep.regime] = standings.get(task.id)
        found = tuple(each for each in last.values() if each and each.descended)
        return found if len(found) == len(last) else ()

    def third(self, optimizer: str, standings: Standings) -> tuple[Task, ...]:
        """The runs of Phase III, once Phase II has descended; with the study's ``star``, sweeps from there on."""
        forecasts = self._forecasts(optimizer, standings)
        if not forecasts:
            return ()
        return self.remember("third", optimizer, (forecasts,), lambda: self._third(optimizer, forecasts))

    def _attempts(self, optimizer: str, phase: str, standings: Standings) -> tuple[Task, ...]:
        """The sweeps of an optimizer in a phase; a regime's further attempts come after its first."""
        first = self.first[optimizer] if phase == "I" else self._second(optimizer, standings)
        stuck = [
            each
            for task in first
            if (each := standings.get(task.id)) and each.descended and each.state.descent.incumbent_loss is None
        ]
        if not stuck:
            return first
        winners = _descended(first, standings) if phase == "I" else self.ended(optimizer, "I", standings)
        sources = [each for each in winners if each.state.descent.incumbent_loss is not None]
        return (*first, *(task for each in stuck for task in self._again(each, sources, standings)))

    def _again(self, stuck: Standing, sources: Sequence[Standing], standings: Standings) -> Iterator[Task]:
        """The further attempts at a sweep that found nothing finite, one after another."""
        told = (stuck.state.descent, *_descents(sources))
        for task in self.remember("again", stuck.task.id, told, lambda: self._restarts(stuck, sources)):
            yield task
            standing = standings.get(task.id)
            if standing is None or not standing.descended or standing.state.descent.incumbent_loss is not None:
                return

    def _restarts(self, stuck: Standing, sources: Sequence[Standing]) -> tuple[Task, ...]:
        sweep = stuck.task.sweep
        planes = (start(sweep.space, values) for values in _other_starts(stuck, sources))
        tasks = [Task(runnable(self.study, plane, sweep.regime, self.compile), stuck.task.phase) for plane in planes]
        return tuple({task.id: task for task in tasks if task.id != stuck.task.id}.values())

    def _second(self, optimizer: str, standings: Standings) -> tuple[Task, ...]:
        """The first sweeps of Phase II: the shared values held, begun at the nearest winner of Phase I."""
        ended = self.ended(optimizer, "I", standings) if self.study.phase_2 else ()
        judged = self._verdicts(optimizer, standings)
        if not ended:
            return ()
        return self.remember("second", optimizer, _descents(ended), lambda: self._held(optimizer, ended, judged))

    def _held(self, optimizer: str, ended: tuple[Standing, ...], judged: tuple[Verdict, ...]) -> tuple[Task, ...]:
        plane = hold(self.study.spaces[optimizer], Finding(judged).shared)
        tasks = []
        winners = [each for each in ended if each.state.descent.incumbent_loss is not None] or list(ended)
        for regime in self.regimes("II"):
            nearest = min(winners, key=lambda each: closeness(each.task.sweep.regime, regime))
            begun = start(plane, dict(nearest.state.descent.incumbent))
            tasks.append(Task(runnable(self.study, begun, regime, self.compile), "II"))
        return tuple(tasks)

    def _verdicts(self, optimizer: str, standings: Standings) -> tuple[Verdict, ...]:
        ended = self.ended(optimizer, "I", standings)
        if not ended:
            return ()
        space, states = self.study.spaces[optimizer], [standing.state for standing in ended]
        return self.remember(
            "verdicts", optimizer, _descents(ended), lambda: verdicts(space, states, self.study.near_optimal)
        )

    def _forecasts(self, optimizer: str, standings: Standings) -> Mapping[Regime, Forecast] | None:
        """The predictions of Phase III by regime; None before everything that they rest on has descended."""
        if not self.study.phase_3:
            return None
        ended = self.ended(optimizer, "I", standings)
        more = self.ended(optimizer, "II", standings)
        if not ended or (self.study.phase_2 and not more):
            return None
        judged = self._verdicts(optimizer, standings)
        told = (*ended, *more)
        return self.remember("forecasts", optimizer, _descents(told), lambda: self._forecast(optimizer, judged, told))

    def _forecast(
        self, optimizer: str, judged: tuple[Verdict, ...], ended: tuple[Standing, ...]
    ) -> Mapping[Regime, Forecast]:
        from tuneopt.search.prediction import forecast, star_regime

        tuned = [
            star_regime(float(regime.scale.parameters), regime.ratio, standing.state.descent)
            for standing in ended
            if standing.state.descent.incumbent_loss is not None
            for regime in (standing.task.sweep.regime,)
        ]
        finding = Finding(judged)
        space = hold(self.study.spaces[optimizer], finding.shared)
        if not tuned:
            return {}
        return {
            regime: forecast(space, tuned, float(regime.scale.parameters), regime.ratio, only=finding.sensitive)
            for regime in self.regimes("III")
        }

    def _third(self, optimizer: str, forecasts: Mapping[Regime, Forecast]) -> tuple[Task, ...]:
        tasks = []
        for regime, forecast in forecasts.items():
            predicted = dict(forecast.config)
            space = self.study.spaces[optimizer]
            varied = {axis.name: predicted[axis.name] for axis in space.axes if not axis.held}
            plane = start(space, varied) if self.study.star else hold(space, varied)
            tasks.append(Task(runnable(self.study, plane, regime, self.compile), "III"))
        return tuple(tasks)

    def remember(self, what: str, optimizer: str, told: tuple[object, ...], work: Callable[[], T]) -> T:
        """The result of ``work``, done again only when one of the things it rests on has been replaced."""
        known = self._remembered.get((what, optimizer))
        if known is None or known[0] != told:
            known = self._remembered[what, optimizer] = (told, work())
        return known[1]  # type: ignore[return-value]


def _other_starts(stuck: Standing, sources: Sequence[Standing]) -> Iterator[dict[str, Value]]:
    """Where to begin again: with ever lower learning rates, then at the other regimes' winners, nearest first."""
    sweep = stuck.task.sweep
    axis, values = sweep.space.by_name["learning_rate"], dict(sweep.space.start)
    if not axis.held:
        lower = (value for value in (*axis.below, *axis.values) if float(value) < float(axis.start))
        for value in sorted(lower, key=float, reverse=True)[:LOWER_RATES]:
            yield {**values, "learning_rate": value}
    for source in sorted(sources, key=lambda each: closeness(each.task.sweep.regime, sweep.regime)):
        yield dict(source.state.descent.incumbent)


def _descended(tasks: Sequence[Task], standings: Standings) -> tuple[Standing, ...]:
    """How the tasks stand, once all of them have descended; nothing before that."""
    found = tuple(each for task in tasks if (each := standings.get(task.id)) and each.descended)
    return found if len(found) == len(tasks) else ()


def _descents(ended: Sequence[Standing]) -> tuple[Descent, ...]:
    return tuple(standing.state.descent for standing in ended)
