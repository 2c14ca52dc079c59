"""The three phases of a study, as the agenda of the scheduler queue.

Each optimizer goes through the phases on its own: its Phase II begins when its Phase I has finished, whatever the
others do, so that no slot waits for the slowest. A sweep whose start and whole star diverge is begun again with lower
learning rates, and at last at the winners of other regimes.
Everything follows from the study and from how its sweeps stand; an instance only remembers what it has worked out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from tuneopt.search.descent import Descent
from tuneopt.search.evidence import ALONE, Evidence
from tuneopt.search.prediction import Forecast, forecast, star_regime
from tuneopt.search.queue import Reserve
from tuneopt.search.space import LadderSpace
from tuneopt.search.standing import Standing, Task
from tuneopt.search.study.brackets import BRACKET, SweepAt, brackets
from tuneopt.search.study.comparison import after, comparing
from tuneopt.search.study.matching import matching
from tuneopt.search.study.sensitive import PhaseFindings, Verdict, verdicts
from tuneopt.search.study.study import PHASES, Study, closeness
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec, Value

T = TypeVar("T")

Standings = Mapping[str, Standing]
"""How the tasks of a study stand, by sweep id."""

LOWER_RATES = 3
"""Learning rates below its start from which a sweep is begun again when everything around the start has diverged."""

TYPICAL_WAVES = 4
"""Waves that a sweep usually takes to its certificate; only the order of launches and the time left rest on it."""

LAST_WAVES = 2
"""Waves still expected of a sweep that has had as many: what takes long already may well take longer."""


class StudyPlan:
    """Which sweeps a study has, on a corpus; see `tuneopt.search.queue.Agenda`.

    ``compile`` goes into every trial. ``seconds`` estimates a trial of a regime, on any scale: only ratios count.
    ``evidence`` says what was known of noise when the study began (`tuneopt.search.records.kept_evidence`).
    """

    def __init__(
        self,
        study: Study,
        corpus: CorpusId,
        compile: bool = False,
        seconds: Callable[[Regime], float] = lambda regime: float(regime.flops),
        evidence: Callable[[Sweep], Evidence] = lambda sweep: ALONE,
    ) -> None:
        self.study, self.corpus, self.compile, self.seconds, self.evidence = study, corpus, compile, seconds, evidence
        self._remembered: dict[tuple[str, str], tuple[tuple[object, ...], object]] = {}

    @cached_property
    def first(self) -> dict[str, tuple[Task, ...]]:
        """The sweeps of Phase I by optimizer; raises `InputError` where a start cannot run."""
        regimes = self.regimes("I")
        return {
            name: tuple(Task(self.study.sweep(space, regime, self.compile), "I") for regime in regimes)
            for name, space in self.study.spaces.items()
        }

    def regimes(self, phase: str) -> tuple[Regime, ...]:
        """The regimes of a phase."""
        return self.study.regimes(phase, self.corpus)

    def tasks(self, standings: Standings) -> Sequence[Task]:
        """Every sweep whose place in the study is settled, phase by phase, and what evens out the budgets."""
        if self.study.comparison is not None:
            tasks = comparing(self.study, self.corpus, self.compile, standings, self.remember)
            return [self._knowing(task) for task in tasks]
        # Phase by phase, so that a trial which several sweeps share counts for the earliest phase that needs it.
        names = self.study.optimizers
        found = [task for name in names for task in self._attempts(name, "I", standings)]
        found += [task for name in names for task in self._attempts(name, "II", standings)]
        regimes = (*self.regimes("I"), *self.regimes("II"))
        bracketing = list(brackets(self.study, found, regimes, standings, self._bracket(standings)))
        found += [task for name in names for task in self._third(name, standings)]
        if self.study.match_budget:
            found += matching(self.study, found, standings, self.remember)
        return [self._knowing(task) for task in (*found, *bracketing)]

    def _knowing(self, task: Task) -> Task:
        """The task with what it knows of noise, the starts of Phase I among it.

        In Phase I those of its own regime, so that one tolerance holds for all optimizers there; later all of them,
        which have long ended. The tunings of a comparison have one seed each: nobody could learn from another.
        """

        def work() -> Task:
            sweep, known = task.sweep, self.evidence(task.sweep)
            if known.whole:
                return replace(task, evidence=known)
            starts = (
                spec
                for other in (each.sweep for tasks in self.first.values() for each in tasks)
                if self.study.comparison is None
                if task.phase != "I" or other.regime == sweep.regime
                for spec in (other.spec(other.space.start, seed) for seed in other.seeds)
            )
            # Without its own start: a sweep's runs count by themselves, and must not count twice.
            own = {sweep.trial_id(sweep.space.start, seed) for seed in sweep.seeds}
            peers = tuple(spec for spec in starts if spec.id not in own)
            # One bar for all: the largest of theirs. Where not all begin together, it differs by what each one's own
            # seeds have shown in that regime alone.
            judged = self.study.optimizers if len(self.study.optimizers) > 1 else ()
            return replace(task, evidence=Evidence(known.replicates, peers, judged))

        return self.remember("knowing", task.id, (task,), work)

    def urgency(self, standing: Standing) -> float:
        """The seconds of the waves that this task probably still needs, and of those of the phases that wait on it."""
        return self.chain(standing, self.seconds)

    def duration(self, spec: TrialSpec) -> float:
        """About how long a trial takes, on the scale of ``seconds``."""
        return self.seconds(spec.regime)

    def chain(self, standing: Standing, seconds: Callable[[Regime], float]) -> float:
        """The critical path from a task to the study's end: seconds of trials that wait for one another.

        ``seconds`` is how long a trial of a regime takes.
        """
        own = seconds(standing.task.sweep.regime)
        if self.study.comparison is not None:
            scale = standing.task.sweep.regime.scale
            return own + after(self.study, standing, lambda ratio: seconds(Regime(scale, ratio, self.corpus)))
        # Tasks that even out budgets hold nothing up: only their own trials are on the path.
        if standing.task.phase not in PHASES:
            return own
        path = _waves_left(standing) * own
        for phase in PHASES[PHASES.index(standing.task.phase) + 1 :]:
            # A later sweep begins near its optimum, so that it is expected to need a wave less than the first ones.
            waves = TYPICAL_WAVES - 1 if phase == "II" or self.study.star else 1
            path += waves * max(map(seconds, self.regimes(phase)), default=0.0)
        return path

    def reserves(self, standings: Standings) -> Sequence[Reserve]:
        """The first trials of an optimizer's Phase III, from when its last sweeps before it are all begun.

        They are the longest of the study and end it. Only the longest regime's count: the others can follow meanwhile.
        """
        regimes, before = self.regimes("III"), "II" if self.study.phase_2 else "I"
        if not regimes:
            return ()
        # A trial is never taken off its slot. Without reserves the longest trial of all, the last prediction, waits
        # behind shorter ones that nothing waits for: utilisation of the paper's study fell from 0.99 to 0.89.
        waits: dict[str, float] = {}
        arrived: set[str] = set()
        for standing in standings.values():
            task = standing.task
            if task.phase == "III":
                arrived.add(task.optimizer)
            elif task.phase == before and not standing.finished:
                left = _waves_left(standing) * self.seconds(task.sweep.regime)
                waits[task.optimizer] = max(left, waits.get(task.optimizer, 0.0))
        longest = max(map(self.seconds, regimes))
        return tuple(
            Reserve(wait, self.study.replicates, longest) for name, wait in waits.items() if name not in arrived
        )

    def finding(self, optimizer: str, standings: Standings) -> PhaseFindings:
        """What is known of an optimizer: its verdicts once Phase I has finished, its predictions after Phase II."""
        judged = self._verdicts(optimizer, standings)
        return PhaseFindings(judged, self._forecasts(optimizer, standings) if judged else None)

    def remember(self, what: str, name: str, rests_on: tuple[object, ...], work: Callable[[], T]) -> T:
        """The result of ``work``, done again only when one of the things it rests on has been replaced.

        The queue asks for all tasks each time a wave ends, and a forecast is 200 fits for each coordinate. This is the
        one thing that an instance keeps, and forgetting it changes nothing.
        """
        # Compared by value: standings are made anew each time, and equal ones lead to equal work.
        known = self._remembered.get((what, name))
        if known is None or known[0] != rests_on:
            known = self._remembered[what, name] = (rests_on, work())
        return known[1]  # type: ignore[return-value]

    def _ended(self, optimizer: str, phase: str, standings: Standings) -> tuple[Standing, ...]:
        """The sweep that stands for each regime of Phase I or II, once all of them have finished; none before.

        The search alone is not enough: where noise is large, the seeds of the finish decide. In a study of eight
        optimizers at nano-65k it moved seven incumbents, and the search none (docs/nano-study.md).
        """
        tasks = self._attempts(optimizer, phase, standings)
        return _finished({task.sweep.regime: task for task in tasks}.values(), standings)

    def _attempts(self, optimizer: str, phase: str, standings: Standings) -> tuple[Task, ...]:
        """The sweeps of an optimizer in a phase; a regime's further attempts come after its first."""
        # A sweep without any finite loss has nothing to say to later phases. They wait for its further attempts.
        first = self.first[optimizer] if phase == "I" else self._second(optimizer, standings)
        stuck = [each for task in first if (each := standings.get(task.id)) and each.finished and not _won(each)]
        if not stuck:
            return first
        winners = _finished(first, standings) if phase == "I" else self._ended(optimizer, "I", standings)
        sources = [each for each in winners if _won(each)]
        return (*first, *(task for each in stuck for task in self._again(each, sources, standings)))

    def _again(self, stuck: Standing, sources: Sequence[Standing], standings: Standings) -> Iterator[Task]:
        """The further attempts at a sweep that found nothing finite, one after another."""

        def restarts() -> tuple[Task, ...]:
            sweep = stuck.task.sweep
            # Two starts may be lowered to the same one, and one to the very sweep that is stuck: each is tried once.
            planes = (sweep.space.restart(values) for values in _other_starts(stuck, sources))
            tasks = [self._runnable(plane, sweep.regime, stuck.task.phase) for plane in planes]
            return tuple({task.id: task for task in tasks if task.id != stuck.task.id}.values())

        for task in self.remember("again", stuck.task.id, _descents([stuck, *sources]), restarts):
            yield task
            standing = standings.get(task.id)
            if standing is None or not standing.finished or _won(standing):
                return

    def _second(self, optimizer: str, standings: Standings) -> tuple[Task, ...]:
        """The first sweeps of Phase II: the shared values pinned, begun at the nearest winner of Phase I."""
        ended = self._ended(optimizer, "I", standings) if self.study.phase_2 else ()
        if not ended:
            return ()
        judged = self._verdicts(optimizer, standings)

        def tasks() -> tuple[Task, ...]:
            plane = self.study.spaces[optimizer].pin(PhaseFindings(judged).shared)
            # Where the nearest regime ended, a sweep may well end with the star that it begins with.
            winners = [each for each in ended if _won(each)] or list(ended)
            found = []
            for regime in self.regimes("II"):
                nearest = min(winners, key=lambda each: closeness(each.task.sweep.regime, regime))
                found.append(self._runnable(plane.restart(dict(nearest.state.descent.incumbent)), regime, "II"))
            return tuple(found)

        return self.remember("second", optimizer, _descents(ended), tasks)

    def _bracket(self, standings: Standings) -> SweepAt:
        """The baseline's sweep in a regime that no phase has, as in Phase II; see `tuneopt.search.study.brackets`."""

        def at(line: Sequence[Standing], regime: Regime) -> Task:
            name = line[0].task.optimizer
            winners = [each for each in line if _won(each)] or list(line)
            nearest = min(winners, key=lambda each: closeness(each.task.sweep.regime, regime))
            judged = self._verdicts(name, standings)

            def task() -> Task:
                plane = self.study.spaces[name].pin(PhaseFindings(judged).shared)
                return self._runnable(plane.restart(dict(nearest.state.descent.incumbent)), regime, BRACKET)

            rests_on = (judged, nearest.state.descent)
            return self.remember(f"{BRACKET} {regime.scale.name} {regime.ratio}", name, rests_on, task)

        return at

    def _third(self, optimizer: str, standings: Standings) -> tuple[Task, ...]:
        """The runs of Phase III, once Phase II has finished; with the study's ``star``, sweeps from there on."""
        forecasts = self._forecasts(optimizer, standings)
        if not forecasts:
            return ()

        def tasks() -> tuple[Task, ...]:
            space, found = self.study.spaces[optimizer], []
            for regime, predicted in forecasts.items():
                config = dict(predicted.config)
                # Without a star the prediction is run as it is: all coordinates pinned, and only seeds vary.
                varied = {axis.name: config[axis.name] for axis in space.varied}
                plane = space.restart(varied) if self.study.star else space.pin(varied)
                found.append(self._runnable(plane, regime, "III"))
            return tuple(found)

        return self.remember("third", optimizer, (forecasts,), tasks)

    def _runnable(self, plane: LadderSpace, regime: Regime, phase: str) -> Task:
        # ``lower``: a start from another regime may have a batch or a warmup that does not fit into this one's steps.
        return Task(self.study.sweep(plane, regime, self.compile, lower=True), phase)

    def _verdicts(self, optimizer: str, standings: Standings) -> tuple[Verdict, ...]:
        ended = self._ended(optimizer, "I", standings)
        if not ended:
            return ()
        space, states = self.study.spaces[optimizer], [standing.state for standing in ended]
        near = self.study.near_optimal
        return self.remember("verdicts", optimizer, _descents(ended), lambda: verdicts(space, states, near))

    def _forecasts(self, optimizer: str, standings: Standings) -> Mapping[Regime, Forecast] | None:
        """The predictions of Phase III by regime; None before everything that they rest on has finished."""
        if not self.study.phase_3:
            return None
        first, second = (self._ended(optimizer, phase, standings) for phase in ("I", "II"))
        if not first or (self.study.phase_2 and not second):
            return None
        finding = PhaseFindings(self._verdicts(optimizer, standings))

        def work() -> Mapping[Regime, Forecast]:
            space = self.study.spaces[optimizer].pin(finding.shared)
            tuned = [
                star_regime(float(regime.scale.parameters), regime.ratio, standing.state.descent)
                for standing in (*first, *second)
                if _won(standing)
                for regime in (standing.task.sweep.regime,)
            ]
            return {
                regime: forecast(space, tuned, float(regime.scale.parameters), regime.ratio, only=finding.sensitive)
                for regime in (self.regimes("III") if tuned else ())
            }

        return self.remember("forecasts", optimizer, _descents((*first, *second)), work)


def _other_starts(stuck: Standing, sources: Sequence[Standing]) -> Iterator[dict[str, Value]]:
    """Where to begin again: with ever lower learning rates, then at the other regimes' winners, nearest first."""
    sweep = stuck.task.sweep
    axis, values = sweep.space.by_name["learning_rate"], dict(sweep.space.start)
    if not axis.pinned:
        # Lower rates first: nearly everything that diverges does so at too high a rate.
        lower = (value for value in (*axis.below, *axis.values) if float(value) < float(axis.start))
        for value in sorted(lower, key=float, reverse=True)[:LOWER_RATES]:
            yield {**values, "learning_rate": value}
    for source in sorted(sources, key=lambda each: closeness(each.task.sweep.regime, sweep.regime)):
        yield dict(source.state.descent.incumbent)


def _won(standing: Standing) -> bool:
    """Whether a sweep has an incumbent with a loss; without one its start and whole star diverged."""
    return standing.state.searched.incumbent_loss is not None


def _finished(tasks: Iterable[Task], standings: Standings) -> tuple[Standing, ...]:
    """How the tasks stand, once all of them have finished; nothing before that."""
    found = [standings.get(task.id) for task in tasks]
    return tuple(each for each in found if each) if all(each and each.finished for each in found) else ()


def _descents(standings: Iterable[Standing]) -> tuple[Descent, ...]:
    """What later phases rest on: where each sweep ended."""
    return tuple(standing.state.descent for standing in standings)


def _waves_left(standing: Standing) -> int:
    return max(LAST_WAVES, TYPICAL_WAVES - standing.state.searched.waves)
