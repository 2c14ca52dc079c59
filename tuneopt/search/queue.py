"""The scheduler queue: the trials of one sweep, or of all sweeps of a study, handed out over one set of slots.

An agenda names the sweeps that there are; which ones follow from how the earlier ones stand. The queue hands their
trials out one by one, the most urgent first, so that slots which one sweep's last trials leave idle are filled with
another's. It is the plan of `tuneopt tune` and of `tuneopt study run`, on every backend.

A trial is never taken off its slot. So a long one that is begun to fill a slot can make a chain of trials wait that the
end of everything depends on, though the slot is wanted much sooner. Batch systems answer that with reservations and
backfilling (`Reserve`): what starts meanwhile is what has ended by then.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tuneopt.search.evidence import ALONE, Evidence
from tuneopt.search.plan import Ended, Plan, PlanProgress
from tuneopt.search.standing import Standing, Task, lookahead, stand
from tuneopt.search.state import SweepProgress
from tuneopt.search.sweep import Sweep
from tuneopt.spec import TrialSpec

SHARE = 0.25
"""Share of the slots that may be kept; a small machine is never short of work, so one of three slots keeps none."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Trials to come: after about ``wait`` seconds ``slots`` of them, ``seconds`` long each."""

    wait: float
    slots: int
    seconds: float


def may_start(seconds: float, running: Collection[float], reserves: Sequence[Reserve], slots: int) -> bool:
    """Whether a trial of ``seconds`` may have one of ``slots`` slots while trials as long as ``running`` says run.

    It may not when it is shorter than trials to come, would still run when they are ready, and would leave too few
    slots that are free by then. Where nothing runs, anything may start: waiting would last for ever.
    """
    for reserve in reserves:
        if not running or not reserve.wait < seconds < reserve.seconds:
            continue
        kept = sum(each.slots for each in reserves if each.wait < seconds)
        long = sum(each > reserve.wait for each in running)
        if long + min(kept, int(SHARE * slots)) >= slots:
            return False
    return True


class Agenda(Protocol):
    """Which sweeps there are, given how those already begun stand."""

    def tasks(self, standings: Mapping[str, Standing]) -> Sequence[Task]:
        """Every task so far, by pure function of the standings (by sweep id); it only ever grows as trials end."""

    def urgency(self, standing: Standing) -> float:
        """Seconds of work, one trial after another, that wait on the pending trials of a task; most go first."""

    def duration(self, spec: TrialSpec) -> float:
        """About how long a trial takes, on the scale of `urgency`."""

    def reserves(self, standings: Mapping[str, Standing]) -> Sequence[Reserve]:
        """Long trials that will soon be ready, for which slots are kept; on the scale of `urgency`."""


@dataclass(frozen=True)
class OneSweep:
    """The agenda that is a single sweep: its own launch order decides, and nothing follows on it."""

    sweep: Sweep
    evidence: Evidence = ALONE

    def tasks(self, standings: Mapping[str, Standing]) -> Sequence[Task]:
        """The sweep."""
        return (Task(self.sweep, evidence=self.evidence),)

    def urgency(self, standing: Standing) -> float:
        """All the same."""
        return 0.0

    def duration(self, spec: TrialSpec) -> float:
        """All the same."""
        return 0.0

    def reserves(self, standings: Mapping[str, Standing]) -> Sequence[Reserve]:
        """None."""
        return ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be spent, of all sweeps together; None: no limit.

    Trials that ended or run; device seconds; and ``hours`` of all slots, which is about what a clock shows while slots
    are kept busy: trials of earlier runs count, and a kill sets no clock back.
    """

    max_trials: int | None = None
    max_device_seconds: float | None = None
    hours: float | None = None


@dataclass(slots=True)
class _Entry:
    """A task in the queue: its standing, and the trials of the wave that it waits for."""

    standing: Standing
    waits: set[str] = field(default_factory=set)
    fresh: bool = True
    """Whether the standing has taken in every outcome told."""


class SchedulerQueue(Plan):
    """The trials of an agenda's sweeps, the most urgent first.

    ``known`` looks up a trial that ended in an earlier run; each is asked for once. ``expected`` is the device seconds
    that a trial will take, only used against the limits. ``ahead`` launches trials that will probably be needed next
    when nothing else is left for a free slot; ``guesses`` tells for which sweep. ``study`` is the name and id of the
    study whose sweeps these are. No slot is kept for what the agenda `reserves` before ``slots`` is set.
    """

    def __init__(
        self,
        agenda: Agenda,
        *,
        known: Callable[[TrialSpec], Ended | None] = lambda spec: None,
        limits: Limits | None = None,
        expected: Callable[[TrialSpec], float] = lambda spec: 0.0,
        ahead: bool = False,
        study: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.agenda, self.known, self.expected, self.ahead, self.study = agenda, known, expected, ahead, study
        self.kind = "study" if study else "sweep"
        self.limits = limits or Limits()
        self.seconds: dict[str, float] = {}
        self.guesses: dict[str, str] = {}
        self.flops = 0.0
        self._entries: dict[str, _Entry] = {}
        self._wanted: dict[str, list[str]] = {}
        self._asked: set[str] = set()
        # A heap of (less urgent, place in its wave, how late it was pushed, trial). Trials that have started or ended
        # since are passed over when they come to the top: cheaper than to search for them at each end.
        self._ready: list[tuple[float, int, int, TrialSpec]] = []
        self._due: list[str] = []
        self._pushed = 0
        self._spent = 0.0
        self._diverged = 0
        self._guesses: Iterator[tuple[str, TrialSpec]] | None = None
        self._reserves: Sequence[Reserve] | None = None
        self._unfold()
        self._settle()
        self.id = study[1] if study else next(iter(self._entries), "")

    @property
    def standings(self) -> Mapping[str, Standing]:
        """How every task stands now, by sweep id, in the order of the agenda."""
        for name, entry in self._entries.items():
            if not entry.fresh:
                self._renew(name, entry)
        return {name: entry.standing for name, entry in self._entries.items()}

    @property
    def device_seconds(self) -> float:
        """Device seconds of every trial that ended, earlier runs included."""
        return self._spent

    @property
    def diverged(self) -> int:
        """Trials that diverged, earlier runs included; counted as they end, since displays ask at every event."""
        return self._diverged

    @property
    def finished(self) -> bool:
        """Whether every sweep has ended, with or without a certificate."""
        return all(entry.standing.finished for entry in self._entries.values())

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing may be started: finished, or stopped at a limit."""
        if self.running:
            return False
        spec = self._peek()
        return self.finished or spec is None or bool(self._limit(spec))

    @property
    def scales(self) -> set[str]:
        """Names of the scales of all sweeps so far."""
        return {entry.standing.task.sweep.regime.scale.name for entry in self._entries.values()}

    def progress(self) -> PlanProgress:
        """Figures over all sweeps so far; a trial that two of them need counts in both."""
        standings = self.standings.values()
        parts = [standing.state.progress for standing in standings]
        phases: dict[str, tuple[int, int]] = {}
        for standing in standings:
            finished, count = phases.get(standing.task.phase, (0, 0))
            phases[standing.task.phase] = (finished + standing.finished, count + 1)
        return PlanProgress(
            waves=max((part.waves for part in parts), default=0),
            done=sum(part.done for part in parts),
            # A sweep whose quota is spent has ended, whatever its star would still ask for.
            remaining=sum(standing.state.progress.remaining for standing in standings if not standing.finished),
            diverged=sum(part.diverged for part in parts),
            best_loss=min((part.best_loss for part in parts if part.best_loss is not None), default=None),
            certificates=sum(standing.certified for standing in standings),
            phases=phases,
            **self._span(parts),
        )

    def _span(self, parts: Sequence[SweepProgress]) -> dict[str, int]:
        """Between which numbers of trials the rest lies; nothing comes beyond a limit on trials."""
        fewest, most = sum(part.fewest for part in parts), sum(part.most for part in parts)
        if self.limits.max_trials is not None:
            room = max(0, self.limits.max_trials - len(self.outcomes) - len(self.gave_up))
            fewest, most = min(fewest, room), min(most, room)
        return {"fewest": fewest, "most": most}

    def documents(self, known: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each sweep with its phase and what it knew of noise, so that a report finds it; a document never changes."""
        for name, entry in self._entries.items():
            if name not in known:
                task = entry.standing.task
                more: dict[str, Any] = {"evidence": task.evidence.to_dict()}
                if task.evidence.peers:
                    more["peers"] = [spec.id for spec in task.evidence.peers]
                if task.evidence.optimizers:
                    more["optimizers"] = list(task.evidence.optimizers)
                if task.quota is not None:  # a report must not wait for trials that were never to run
                    more |= {"quota": task.quota, "counted": sorted(task.counted)}
                if self.study:
                    more |= {"study": self.study[0], "study_id": self.study[1], "phase": task.phase}
                yield name, {**task.sweep.to_dict(), **more}

    def coming(self, count: int) -> list[TrialSpec]:
        """The trials that `next` would hand out first, none of them started."""
        ready = (entry[-1] for entry in heapq.nsmallest(count + len(self.running), self._ready))
        return [spec for spec in ready if spec.id not in self.running and spec.id not in self.outcomes][:count]

    def next(self) -> TrialSpec | None:
        """The trial to start on a free slot, counted as running from now on; None while others must end first.

        That may be so with trials left: the slot is then kept for longer ones to come. None too when a limit is
        reached; ``stopped`` then says which.
        """
        passed: list[tuple[float, int, int, TrialSpec]] = []
        chosen = None
        while chosen is None and (spec := self._peek()) is not None:
            passed.append(heapq.heappop(self._ready))
            chosen = spec if self._may_start(spec) else None
        chosen = chosen or self._guess()
        if chosen is not None and self._limit(chosen):
            chosen = None
        for entry in passed:
            if chosen is None or entry[-1] is not chosen:
                heapq.heappush(self._ready, entry)
        if chosen is not None:
            self.running[chosen.id] = chosen
        return chosen

    def tell(self, spec: TrialSpec, ended: Ended | None) -> None:
        """Take in how a trial ended; None gives it up: its sweeps go on without it."""
        self.running.pop(spec.id, None)
        self._take_in(spec, ended)
        self._settle()

    def _take_in(self, spec: TrialSpec, ended: Ended | None) -> None:
        if ended is None:
            self.gave_up.add(spec.id)
        else:
            new = spec.id not in self.outcomes
            self._spent += ended.seconds - self.seconds.get(spec.id, 0.0)
            self.flops += spec.regime.flops if new else 0.0
            self._diverged += new and ended.outcome.status == "diverged"
            self.outcomes[spec.id] = ended.outcome
            self.seconds[spec.id] = ended.seconds
        self._guesses = None
        for name in self._wanted.pop(spec.id, ()):
            entry = self._entries[name]
            entry.fresh = False
            entry.waits.discard(spec.id)
            # To work out where a sweep stands costs milliseconds, and only the end of its wave changes what it asks
            # for: until then it is done only for those who look at `standings`.
            if not entry.waits:
                self._due.append(name)

    def _settle(self) -> None:
        """Renew the tasks whose wave is complete, and see which tasks the agenda then has, until nothing changes."""
        while self._due:
            while self._due:
                name = self._due.pop()
                self._renew(name, self._entries[name])
            self._unfold()

    def _renew(self, name: str, entry: _Entry) -> None:
        """Take the outcomes into a task's standing; what it asks for newly is looked up, or queued."""
        while True:
            standing = stand(entry.standing.task, self.outcomes, self.gave_up)
            took = {trial: self.seconds[trial] for trial in standing.trials if trial in self.seconds}
            entry.standing = replace(standing, seconds=took)
            entry.fresh, self._reserves = True, None
            fresh = [spec for spec in entry.standing.pending if spec.id not in entry.waits]
            known = [self._look_up(spec) for spec in fresh]
            if not any(known):
                break
        entry.waits = {spec.id for spec in entry.standing.pending}
        urgency = -self.agenda.urgency(entry.standing) if fresh else 0.0
        for place, spec in enumerate(fresh):
            wanting = self._wanted.setdefault(spec.id, [])
            if name not in wanting:
                wanting.append(name)
            self._pushed += 1
            heapq.heappush(self._ready, (urgency, place, self._pushed, spec))

    def _look_up(self, spec: TrialSpec) -> bool:
        """Take in a trial of an earlier run; False when there is none, or it was asked for before."""
        if spec.id in self._asked or spec.id in self.running:
            return False
        self._asked.add(spec.id)
        ended = self.known(spec)
        if ended is not None:
            self.reused.add(spec.id)
            self._take_in(spec, ended)
        return ended is not None

    def _unfold(self) -> None:
        """Take up the tasks that the agenda has now and had not before."""
        for task in self.agenda.tasks({name: entry.standing for name, entry in self._entries.items()}):
            if task.id not in self._entries:
                standing = stand(task, self.outcomes, self.gave_up)
                self._entries[task.id] = _Entry(replace(standing, pending=()))  # `_renew` finds all of them new
                self._due.append(task.id)

    def _peek(self) -> TrialSpec | None:
        """The most urgent trial that is neither running nor ended."""
        while self._ready:
            spec = self._ready[0][-1]
            if spec.id not in self.running and spec.id not in self.outcomes and spec.id not in self.gave_up:
                return spec
            heapq.heappop(self._ready)
        return None

    def _guess(self) -> TrialSpec | None:
        """A trial that will probably be needed, for a slot that would idle; none where guesses would use up a limit."""
        if not self.ahead or self.finished or (self.limits.max_trials, self.limits.max_device_seconds) != (None, None):
            return None
        while True:
            if self._guesses is None:
                self._guesses = (
                    (sweep, spec)
                    for sweep, standing in list(self.standings.items())
                    if not standing.finished and standing.task.quota is None
                    for spec in lookahead(standing.task.sweep, self.outcomes, self.gave_up, standing.task.evidence)
                )
            sweep, spec = next(self._guesses, ("", None))
            if spec is None:
                return None
            if spec.id in self.running or spec.id in self.outcomes or spec.id in self.gave_up:
                continue
            # A guess that the ledger holds makes a better guess possible: `_look_up` then dropped these.
            if not self._look_up(spec) and self._may_start(spec):
                self.guesses[spec.id] = sweep
                return spec

    def _may_start(self, spec: TrialSpec) -> bool:
        """Whether a slot that is free now need not be kept for longer trials that will soon be ready."""
        if self.slots is None:
            return True
        if self._reserves is None:
            self._reserves = self.agenda.reserves({name: entry.standing for name, entry in self._entries.items()})
        if not self._reserves:
            return True
        running = [self.agenda.duration(each) for each in self.running.values()]
        return may_start(self.agenda.duration(spec), running, self._reserves, self.slots)

    def _limit(self, spec: TrialSpec) -> str:
        """The limit that starting ``spec`` would break, in words for people; empty when there is none."""
        limits = self.limits
        if limits.max_trials is not None and len({*self.outcomes, *self.gave_up, *self.running}) >= limits.max_trials:
            self.stopped = f"max_trials {limits.max_trials}"
            return self.stopped
        by_clock = None if limits.hours is None or self.slots is None else 3600 * limits.hours * self.slots
        for seconds, words in (
            (limits.max_device_seconds, f"max_device_hours {(limits.max_device_seconds or 0) / 3600:g}"),
            (by_clock, f"hours {limits.hours or 0:g}"),
        ):
            coming = self._spent + sum(map(self.expected, self.running.values()))
            # A trial that would end beyond the limit is not begun: what is spent then stays within what was allowed.
            if seconds is not None and (coming >= seconds or coming + self.expected(spec) > seconds):
                self.stopped = words
        return self.stopped

    def at_pace(self, spec: TrialSpec) -> float:
        """Device seconds that a trial takes at the FLOPs per second of those that ended; 0 before any has."""
        return self.device_seconds / self.flops * spec.regime.flops if self.flops else 0.0
