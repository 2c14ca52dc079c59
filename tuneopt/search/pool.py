"""One pool of slots for many sweeps: what runs next, over all of them.

A plan names the sweeps that there are; which ones follow from how the earlier ones stand. The pool hands their trials
out one by one, the most urgent first, so that slots which one sweep's last trials leave idle are filled with another's.
It is the one scheduler of every backend: Ray and the simulator drive it alike. Nothing in it needs keeping: told the
same outcomes, in any order, a new pool stands where the old one stood.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tuneopt.search.lookahead import lookahead
from tuneopt.search.outcome import Outcome
from tuneopt.search.reserve import Reserve, may_start
from tuneopt.search.standing import Standing, Task, stand
from tuneopt.search.sweep import Sweep
from tuneopt.spec import TrialSpec


class Plan(Protocol):
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
    """The plan that is a single sweep."""

    sweep: Sweep

    def tasks(self, standings: Mapping[str, Standing]) -> Sequence[Task]:
        """The sweep."""
        return (Task(self.sweep),)

    def urgency(self, standing: Standing) -> float:
        """All the same: the sweep's own launch order decides."""
        return 0.0

    def duration(self, spec: TrialSpec) -> float:
        """All the same."""
        return 0.0

    def reserves(self, standings: Mapping[str, Standing]) -> Sequence[Reserve]:
        """None: nothing follows on the sweep."""
        return ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be spent: trials that ended or run, and device seconds, each of all sweeps together; None: no limit."""

    max_trials: int | None = None
    max_device_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended, and what it cost in device seconds."""

    outcome: Outcome
    seconds: float = 0.0


@dataclass(slots=True)
class _Entry:
    """A task in the pool: its standing, and the trials of the wave that it waits for."""

    standing: Standing
    waits: set[str] = field(default_factory=set)
    fresh: bool = True
    """Whether the standing has taken in every outcome told."""


class Pool:
    """The trials of a plan's sweeps, handed out over one set of slots.

    ``known`` looks up a trial that ended in an earlier run; each is asked for once. ``expected`` is the device seconds
    that a trial will take, only used against the limits. ``ahead`` launches trials that will probably be needed next
    when nothing else is left for a free slot. Whoever drives the pool sets ``slots``, how many it fills; until then
    none is kept for what the plan `reserves`. ``guesses`` tells for which sweep a trial was launched ahead.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        known: Callable[[TrialSpec], Ended | None] = lambda spec: None,
        limits: Limits | None = None,
        expected: Callable[[TrialSpec], float] = lambda spec: 0.0,
        ahead: bool = False,
    ) -> None:
        self.plan, self.known, self.expected, self.ahead = plan, known, expected, ahead
        self.limits = limits or Limits()
        self.outcomes: dict[str, Outcome] = {}
        self.seconds: dict[str, float] = {}
        self.gave_up: set[str] = set()
        self.reused: set[str] = set()
        self.running: dict[str, TrialSpec] = {}
        self.guesses: dict[str, str] = {}
        self.slots: int | None = None
        self.diverged = 0
        self.stopped = ""
        self._entries: dict[str, _Entry] = {}
        self._wanted: dict[str, list[str]] = {}
        self._asked: set[str] = set()
        self._ready: list[tuple[float, int, int, TrialSpec]] = []
        self._due: list[str] = []
        self._pushed = 0
        self._spent = 0.0
        self.flops = 0.0
        self._guesses: Iterator[tuple[str, TrialSpec]] | None = None
        self._reserves: Sequence[Reserve] | None = None
        self._unfold()
        self._settle()

    @property
    def standings(self) -> Mapping[str, Standing]:
        """How every task stands now, by sweep id, in the order of the plan."""
        for name, entry in self._entries.items():
            if not entry.fresh:
                self._renew(name, entry)
        return {name: entry.standing for name, entry in self._entries.items()}

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Every task so far, by sweep id."""
        return {name: entry.standing.task for name, entry in self._entries.items()}

    @property
    def device_seconds(self) -> float:
        """Device seconds of every trial that ended, earlier runs included."""
        return self._spent

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run: every sweep has ended, with or without a certificate."""
        return all(entry.standing.finished for entry in self._entries.values())

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing may be started: finished, or stopped at a limit."""
        if self.running:
            return False
        spec = self._peek()
        return self.finished or spec is None or bool(self._limit(spec))

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
        found = None
        while found is None and (spec := self._peek()) is not None:
            passed.append(heapq.heappop(self._ready))
            found = spec if self._may_start(spec) else None
        found = found or self._guess()
        if found is not None and self._limit(found):
            found = None
        for entry in passed:
            if found is None or entry[-1] is not found:
                heapq.heappush(self._ready, entry)
        if found is not None:
            self.running[found.id] = found
        return found

    def tell(self, spec: TrialSpec, ended: Ended | None) -> None:
        """Take in how a trial ended; None gives it up: its sweeps go on without it."""
        self.running.pop(spec.id, None)
        self._take_in(spec, ended)
        self._settle()

    def _take_in(self, spec: TrialSpec, ended: Ended | None) -> None:
        if ended is None:
            self.gave_up.add(spec.id)
        else:
            self._spent += ended.seconds - self.seconds.get(spec.id, 0.0)
            self.flops += 0.0 if spec.id in self.outcomes else spec.regime.flops
            self.diverged += ended.outcome.status == "diverged" and spec.id not in self.outcomes
            self.outcomes[spec.id] = ended.outcome
            self.seconds[spec.id] = ended.seconds
        self._guesses = None
        for name in self._wanted.pop(spec.id, ()):
            entry = self._entries[name]
            entry.fresh = False
            entry.waits.discard(spec.id)
            if not entry.waits:
                self._due.append(name)

    def _settle(self) -> None:
        """Renew the tasks whose wave is complete, and see which tasks the plan then has, until nothing changes."""
        while self._due:
            while self._due:
                name = self._due.pop()
                self._renew(name, self._entries[name])
            self._unfold()

    def _renew(self, name: str, entry: _Entry) -> None:
        """Take the outcomes into a task's standing; what it asks for newly is looked up, or queued."""
        while True:
            entry.standing = stand(entry.standing.task, self.outcomes, self.gave_up)
            entry.fresh, self._reserves = True, None
            fresh = [spec for spec in entry.standing.pending if spec.id not in entry.waits]
            found = [self._look_up(spec) for spec in fresh]
            if not any(found):
                break
        entry.waits = {spec.id for spec in entry.standing.pending}
        urgency = -self.plan.urgency(entry.standing) if fresh else 0.0
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
        tasks = self.plan.tasks({name: entry.standing for name, entry in self._entries.items()})
        for task in tasks:
            if task.id not in self._entries:
                standing = stand(task, self.outcomes, self.gave_up)
                self._entries[task.id] = _Entry(replace(standing, pending=()))
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
        if not self.ahead or self.finished:
            return None
        while True:
            if self._guesses is None:
                self._guesses = self._ahead()
            sweep, spec = next(self._guesses, ("", None))
            if spec is None:
                return None
            if spec.id in self.running or spec.id in self.outcomes or spec.id in self.gave_up:
                continue
            # A guess found in the ledger makes a better guess possible.
            if not self._look_up(spec) and self._may_start(spec):
                self.guesses[spec.id] = sweep
                return spec

    def _ahead(self) -> Iterator[tuple[str, TrialSpec]]:
        for sweep, standing in list(self.standings.items()):
            if not standing.finished and standing.task.quota is None:
                for spec in lookahead(standing.task.sweep, self.outcomes, self.gave_up):
                    yield sweep, spec

    def _may_start(self, spec: TrialSpec) -> bool:
        """Whether a slot that is free now need not be kept for longer trials that will soon be ready."""
        if self.slots is None:
            return True
        if self._reserves is None:
            self._reserves = self.plan.reserves({name: entry.standing for name, entry in self._entries.items()})
        if not self._reserves:
            return True
        running = [self.plan.duration(each) for each in self.running.values()]
        return may_start(self.plan.duration(spec), running, self._reserves, self.slots)

    def _limit(self, spec: TrialSpec) -> str:
        trials, seconds = self.limits.max_trials, self.limits.max_device_seconds
        if trials is not None and len(self.outcomes) + len(self.gave_up) + len(self.running) >= trials:
            self.stopped = f"max_trials {trials}"
        elif seconds is not None:
            coming = self._spent + sum(map(self.expected, self.running.values()))
            # A trial that would end beyond the limit is not begun: what is spent then stays within what was allowed.
            if coming >= seconds or coming + self.expected(spec) > seconds:
                self.stopped = f"max_device_hours {seconds / 3600:g}"
        return self.stopped
