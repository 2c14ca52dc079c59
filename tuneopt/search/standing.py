"""A sweep among others: its part in a study, and how it stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from tuneopt.search.outcome import Outcome
from tuneopt.search.state import SweepState
from tuneopt.search.sweep import Sweep
from tuneopt.spec import TrialSpec


@dataclass(frozen=True)
class Task:
    """A sweep with its phase; ``quota`` is the number of trials it may take, those in ``counted`` not counted."""

    sweep: Sweep
    phase: str = "sweep"
    quota: int | None = None
    counted: frozenset[str] = frozenset()

    @cached_property
    def id(self) -> str:
        """The sweep's id."""
        return self.sweep.id

    @property
    def optimizer(self) -> str:
        """The optimizer's name."""
        return self.sweep.space.optimizer

    @property
    def label(self) -> str:
        """Short text for people, such as ``adamw nano-65k/1x``."""
        return f"{self.optimizer} {self.sweep.regime.label}"


@dataclass(frozen=True)
class Standing:
    """A task at one moment.

    ``pending`` holds what it waits for, in launch order; ``trials`` the ids of all that it has needed so far.
    ``descended``: the search has ended and only reruns of the winner can be pending. ``finished``: nothing is left to
    run, with or without a certificate, or the quota is spent.
    """

    task: Task
    state: SweepState
    pending: tuple[TrialSpec, ...]
    trials: tuple[str, ...]
    descended: bool
    finished: bool

    @property
    def certified(self) -> bool:
        """Whether the sweep holds a complete certificate."""
        return self.state.descent.certificate.complete


def stand(task: Task, outcomes: Mapping[str, Outcome], gave_up: Collection[str] = frozenset()) -> Standing:
    """How a task stands, given the outcomes of all trials by id; pure."""
    if task.quota is not None:
        return _rationed(task, task.quota, outcomes, gave_up)
    sweep = task.sweep
    state = sweep.state(outcomes, gave_up)
    noise = (sweep.trial_id(sweep.space.start, seed) for seed in sweep.seeds)
    descended = state.finished or (
        not state.descent.pending and all(trial in outcomes or trial in gave_up for trial in noise)
    )
    return Standing(task, state, state.pending, tuple(spec.id for spec in state.needed), descended, state.finished)


def _rationed(task: Task, quota: int, outcomes: Mapping[str, Outcome], gave_up: Collection[str]) -> Standing:
    """As `stand`, for a task that may take ``quota`` trials, in the order in which it asks for them.

    It sees the outcomes of no others, so that what stands in the ledger beside them changes nothing.
    """
    sweep = task.sweep
    allowed: tuple[str, ...] = ()
    while True:
        state = sweep.state({trial: outcomes[trial] for trial in allowed if trial in outcomes}, gave_up)
        asked = [sweep.trial_id(config) for config in state.descent.asked]
        beyond = [spec.id for spec in state.needed if spec.id not in set(asked)]
        fresh = [trial for trial in (*asked, *beyond) if trial not in task.counted]
        taken = set(fresh[:quota])
        now = tuple(trial for trial in (*asked, *beyond) if trial in task.counted or trial in taken)
        if now == allowed:
            break
        allowed = now
    pending = tuple(spec for spec in state.pending if spec.id in set(allowed))
    spent = len(fresh) >= quota and not pending
    return Standing(task, state, pending, allowed, state.finished or spent, state.finished or spent)
