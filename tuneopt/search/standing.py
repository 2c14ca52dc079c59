"""A sweep among others: its part in a study, how it stands, and what it will probably need next.

How a sweep stands is a pure function of the outcomes of its trials. What it will need next is a guess, for slots that
would idle while the last trials of a wave run: every pending change of a star wins nothing, and a pending combination
gains what its parts gained. A wrong guess costs a trial; it never changes the path, which follows from finished trials
alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tuneopt.search.descent import CERTIFIED, Descent
from tuneopt.search.evidence import ALONE, Evidence
from tuneopt.search.plan import Outcome
from tuneopt.search.state import SweepState
from tuneopt.search.sweep import Sweep
from tuneopt.spec import TrialSpec

REPEATED = "repeated"
"""What stands in place of a certificate's state where a sweep varies nothing: a prediction, or what a comparison gives
more seeds. It has no star, and a certificate over no changes would claim what nobody looked at."""

DEPTH = 2
"""Waves to look ahead: a combination, then the star around it."""


@dataclass(frozen=True)
class Task:
    """A sweep with its phase, and what it knows of noise besides its own runs.

    ``quota`` is the number of trials it may take, those in ``counted`` not counted.
    """

    sweep: Sweep
    phase: str = "sweep"
    quota: int | None = None
    counted: frozenset[str] = frozenset()
    evidence: Evidence = ALONE

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

    ``pending`` holds what it waits for, in launch order; ``trials`` the ids of all that it has needed so far, and
    ``seconds`` the device seconds of those that ended, where they are known.
    ``finished``: nothing is left to run, with or without a certificate, or the quota is spent.
    """

    task: Task
    state: SweepState
    pending: tuple[TrialSpec, ...]
    trials: tuple[str, ...]
    finished: bool
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def certified(self) -> bool:
        """Whether the sweep holds its certificate, at the resolution that was asked for."""
        return self.claim == CERTIFIED

    @property
    def claim(self) -> str:
        """The state of its certificate, or `REPEATED` where nothing is varied."""
        return self.state.certificate.state if self.task.sweep.space.varied else REPEATED


def stand(task: Task, outcomes: Mapping[str, Outcome], gave_up: Collection[str] = frozenset()) -> Standing:
    """How a task stands, given the outcomes of all trials by id; pure."""
    if task.quota is not None:
        return _rationed(task, task.quota, outcomes, gave_up)
    state = task.sweep.state(outcomes, gave_up, task.evidence)
    return Standing(task, state, state.pending, tuple(spec.id for spec in state.needed), state.finished)


def _rationed(task: Task, quota: int, outcomes: Mapping[str, Outcome], gave_up: Collection[str]) -> Standing:
    """As `stand`, for a task that may take ``quota`` trials, in the order in which it asks for them.

    It sees the outcomes of no others but its peers', so that whatever else the ledger holds changes nothing. When they
    have ended, those beyond them count as given up: what a part of a wave has shown is decided on.
    """
    sweep = task.sweep
    peers = tuple(spec.id for spec in task.evidence.peers)
    allowed: dict[str, None] = {}
    spent = 0
    while True:
        seen = {trial: outcomes[trial] for trial in (*allowed, *peers) if trial in outcomes}
        state = sweep.state(seen, gave_up, task.evidence)
        asked = [sweep.trial_id(config) for config in state.searched.asked]
        # What was allowed stays so: what a later wave asks for, in an order of its own, never takes its place.
        fresh = [trial for trial in (*asked, *(spec.id for spec in state.needed)) if trial not in allowed]
        free = [trial for trial in dict.fromkeys(fresh) if trial in task.counted]
        paid = [trial for trial in dict.fromkeys(fresh) if trial not in task.counted]
        added = {*free, *paid[: quota - spent]}  # the search first, seeds after it: so it asks for them
        if not added:
            break
        allowed.update((trial, None) for trial in fresh if trial in added)
        spent += len(paid[: quota - spent])
    pending = tuple(spec for spec in state.pending if spec.id in {*allowed, *peers})
    over = spent >= quota and not pending
    if over and not state.finished:
        state = _decided(task, {trial: outcomes[trial] for trial in (*allowed, *peers) if trial in outcomes}, gave_up)
    return Standing(task, state, pending, tuple(allowed), state.finished or over)


def _decided(task: Task, outcomes: Mapping[str, Outcome], gave_up: Collection[str]) -> SweepState:
    """Where a sweep ends that gets no further trial."""
    # Each wave that it asks for is given up, until it asks for nothing: it then judges by what it has seen.
    beyond = set(gave_up)
    while not (state := task.sweep.state(outcomes, beyond, task.evidence)).finished:
        beyond |= {spec.id for spec in state.pending}
    return state


def lookahead(
    sweep: Sweep,
    outcomes: Mapping[str, Outcome],
    gave_up: Collection[str] = frozenset(),
    evidence: Evidence = ALONE,
) -> Iterator[TrialSpec]:
    """The trials of the coming waves in launch order, if what is pending ends as guessed; the current wave left out.

    Nothing comes before the start has finished: until then there is no ground for a guess. Nor in the finish: where a
    seed decides follows from losses, and a guessed loss says nothing of them.
    """
    imagined = dict(outcomes)
    # Peers that are still out are left out: their noise changes no guess.
    lost = {*gave_up, *(spec.id for spec in evidence.peers if spec.id not in outcomes)}
    state = sweep.state(imagined, lost, evidence)
    for _ in range(DEPTH):
        if state.finished or state.finishing or state.descent.incumbent_loss is None:
            return
        for spec in state.pending:
            imagined[spec.id] = Outcome("completed", _guess(state, spec), None)
        state = sweep.state(imagined, lost, evidence)
        if not state.finishing:
            yield from (spec for spec in state.pending if spec.id not in imagined)


def _guess(state: SweepState, spec: TrialSpec) -> float:
    """The incumbent's loss, less what each changed value gained on its own where that is known."""
    descent, config = state.descent, spec.config
    assert descent.incumbent_loss is not None, "a guess starts from a finished incumbent"
    changed = {name: config[name] for name, value in descent.incumbent if config[name] != value}
    return descent.incumbent_loss - (sum(_gain(descent, *item) for item in changed.items()) if len(changed) > 1 else 0)


def _gain(descent: Descent, name: str, value: object) -> float:
    assert descent.incumbent_loss is not None, "a gain is measured against a finished incumbent"
    for change in descent.star:
        if (change.coordinate, change.value) == (name, value) and change.loss is not None:
            return descent.incumbent_loss - change.loss
    return 0.0
