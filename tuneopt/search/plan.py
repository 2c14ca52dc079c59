"""A plan: which trial to run next, and when it is over.

A plan is a pure function of what it was told: a new one that is told the same ends, in any order, asks for the same
trials. So nothing of it needs keeping, and a run that was killed goes on when the same plan is made again. It never
knows where trials run: `tuneopt.run` drives every plan on every backend (in this process, simulated, on Ray).

The plans: `tuneopt.search.queue.SchedulerQueue` (one sweep, or all of a study), `OneTrial`, and
`tuneopt.search.sampled_plan.SampledPlan` (an Optuna sampler).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneopt.spec import InputError, TrialSpec, nearest

STATUSES = ("completed", "diverged", "unproven")
"""How a trial can end; unproven means that the proof of its optimizer failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended; losses are nats per token, on the select and report splits. Only a completed trial can win.

    Raises `InputError` for a status that is none of `STATUSES`.
    """

    status: str
    select_loss: float | None = None
    report_loss: float | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InputError(f"unknown trial status {self.status!r}; {nearest(self.status, STATUSES)}")

    @property
    def loss(self) -> float | None:
        """The select loss of a completed trial, else None."""
        return _finite(self.select_loss) if self.status == "completed" else None

    @property
    def reported(self) -> float | None:
        """The report loss of a completed trial, else None."""
        return _finite(self.report_loss) if self.status == "completed" else None


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended, and what it cost in device seconds."""

    outcome: Outcome
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PlanProgress:
    """Figures of a plan under way, for people.

    ``done`` of about ``done + remaining`` trials have ended, those of earlier runs among them. ``best_loss`` is the
    lowest select loss yet, in nats per token. ``phases`` counts sweeps by phase: (finished, all so far). Where a plan
    can say so, ``fewest`` to ``most`` trials are usually still to come.
    """

    waves: int = 0
    done: int = 0
    remaining: int = 0
    diverged: int = 0
    best_loss: float | None = None
    certificates: int = 0
    phases: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    fewest: int | None = None
    most: int | None = None


class Plan(ABC):
    """What every plan answers. A run calls `next` for each free slot and `tell` for each end, in the order they happen.

    Attributes that a run reads: ``outcomes`` (trial id -> outcome, earlier runs included), ``reused`` (ids that an
    earlier run had recorded), ``gave_up`` (ids that failed in this run), ``running`` (handed out and not ended),
    ``cut`` (stopped by a scheduler: how far each came) and ``stopped`` (the limit that was reached, if one was).
    """

    id: str = ""
    kind: str = ""
    """What the ledger's lease calls it, such as ``sweep``; empty: nobody else is kept from running it too."""
    slots: int | None = None
    """How many slots the run fills; None until it has begun."""
    stopped: str = ""
    marks: Mapping[str, str] = {}
    """What the environment of every new record says of who proposed it."""
    judges: bool = False
    """Whether `goes_on` is to be asked at every curve point."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.gave_up: set[str] = set()
        self.reused: set[str] = set()
        self.running: dict[str, TrialSpec] = {}
        self.cut: dict[str, dict[str, Any]] = {}

    @abstractmethod
    def next(self) -> TrialSpec | None:
        """The trial to start on a free slot, counted as running from now on; None while others must end first."""

    @abstractmethod
    def tell(self, spec: TrialSpec, ended: Ended | None) -> None:
        """Take in how a trial ended; None gives it up for this run: the plan goes on without it."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether nothing is left to start, now or later."""

    @abstractmethod
    def progress(self) -> PlanProgress:
        """How far the plan is."""

    @property
    def remaining(self) -> int:
        """About how many trials are still to come, running ones included; 0 once finished."""
        return 0 if self.finished else self.progress().remaining

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing may be started: finished, or stopped at a limit."""
        return not self.running and self.finished

    @property
    def diverged(self) -> int:
        """Trials that diverged, earlier runs included."""
        return sum(outcome.status == "diverged" for outcome in self.outcomes.values())

    @property
    def device_seconds(self) -> float:
        """Device seconds of every trial that ended, earlier runs included; 0 where nobody counts."""
        return 0.0

    @abstractmethod
    def coming(self, count: int) -> list[TrialSpec]:
        """The trials that `next` would hand out first, none of them started; a backend may prepare for them."""

    @property
    @abstractmethod
    def scales(self) -> set[str]:
        """Names of the scales that it trains at."""

    def goes_on(self, spec: TrialSpec, fraction: float, loss: float | None, seconds: float) -> bool:
        """Whether a trial that reached a curve point goes on; False cuts it, and counts as its end.

        ``fraction`` of its steps are done, ``loss`` is its select loss there, ``seconds`` what it has taken.
        """
        return True

    def documents(self, known: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
        """What a ledger keeps of the plan among its sweeps, by id; what is final and in ``known`` is left out."""
        return iter(())


class OneTrial(Plan):
    """The plan that is a single trial."""

    def __init__(self, spec: TrialSpec) -> None:
        super().__init__()
        self.spec = spec
        self.id = spec.id

    def next(self) -> TrialSpec | None:
        """The trial, once."""
        if self.finished or self.running:
            return None
        self.running[self.spec.id] = self.spec
        return self.spec

    def tell(self, spec: TrialSpec, ended: Ended | None) -> None:
        """Either way the plan is finished."""
        self.running.pop(spec.id, None)
        if ended is None:
            self.gave_up.add(spec.id)
        else:
            self.outcomes[spec.id] = ended.outcome

    @property
    def finished(self) -> bool:
        """Whether the trial has ended."""
        return bool(self.outcomes or self.gave_up)

    def progress(self) -> PlanProgress:
        """One trial in one wave."""
        losses = [outcome.loss for outcome in self.outcomes.values()]
        return PlanProgress(1, len(losses), 0 if self.finished else 1, self.diverged, next(iter(losses), None))

    def coming(self, count: int) -> list[TrialSpec]:
        """The trial, until it is started."""
        return [] if self.finished or self.running else [self.spec][:count]

    @property
    def scales(self) -> set[str]:
        """The trial's scale."""
        return {self.spec.regime.scale.name}
