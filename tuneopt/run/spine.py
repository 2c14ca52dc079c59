"""The spine: every run is a plan on a backend, told to observers.

    plan.next() -> TrialSpec -> the backend trains it -> its worker writes the record -> plan.tell() -> ... -> finished

`run` is all of `tuneopt tune`, `train`, `study run`, `--search tpe` and `--simulate`; they differ in their arguments
alone. A backend asks the `RunController` for trials and tells it how they go; the controller tells the plan, the run's
state, the observers, and keeps in the ledger what the plan says of itself.

Two rules make a run safe to kill. The worker that finishes a trial writes its record, so the driver never is the only
one that holds a result. And plans keep no state of their own: what comes next follows from the plan and the records, so
to run the same command again is to resume.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

from tuneopt.ledger import CurvePoint, Ledger
from tuneopt.ledger.lease import hold
from tuneopt.observe.logs import Narrator
from tuneopt.observe.observer import EventStream, Observer
from tuneopt.observe.state import RunState, TrialEnd, Worker
from tuneopt.observe.waiting import Wait
from tuneopt.run.options import RunOptions
from tuneopt.search.plan import Ended, Outcome, Plan
from tuneopt.search.records import recorded
from tuneopt.spec import InputError, TrialSpec

DEAD = "its worker died"
"""What is said of a trial that left no record and no error."""


class Backend(Protocol):
    """Where trials run: `tuneopt.run.inline`, `tuneopt.run.simulated`, `tuneopt.cluster.backend`."""

    remote: bool
    """Whether trials are trained by other processes, which may die without a word in the trial's log."""

    def connect(self, plan: Plan, options: RunOptions) -> AbstractContextManager[int]:
        """Make sure that the plan's trials can run; the value is how many at once. Raises `InputError` where not."""

    def drive(self, controller: RunController) -> None:
        """Train what the controller hands out, until it is over and nothing runs any more."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended, and what it cost."""

    outcomes: dict[str, Outcome]
    """Trial id -> outcome, of every finished trial of the plan, earlier runs included."""
    run: list[str] = field(default_factory=list)
    """Ids of the trials that ended in this run."""
    reused: list[str] = field(default_factory=list)
    """Ids of the trials that were recorded before."""
    failed: dict[str, str] = field(default_factory=dict)
    """Trial id -> last line of its error."""
    cut: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Trial id -> how far a trial came that the scheduler stopped: it has no record and no final loss."""
    slots: int = 0
    wall_seconds: float = 0.0
    busy_seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)
    """Trial id -> its seconds inside training and evaluation in this run."""
    interrupted: bool = False
    stopped: str = ""
    """The limit that ended the run, if one did."""
    ledger: Ledger | None = field(default=None, repr=False, compare=False)
    """Where the records are; None after a simulation."""

    @property
    def diverged(self) -> list[str]:
        """Ids of the diverged trials."""
        return sorted(trial for trial, outcome in self.outcomes.items() if outcome.status == "diverged")

    @property
    def utilisation(self) -> float | None:
        """Seconds inside training and evaluation over wall seconds times slots; None when nothing ran."""
        return self.busy_seconds / (self.wall_seconds * self.slots) if self.run else None


class RunController:
    """Stands between a plan and a backend, which calls it whenever something happens to a trial.

    ``halt`` says why nothing more can run: a worker found out, such as a full disk, or the ledger is gone.
    """

    def __init__(self, plan: Plan, options: RunOptions, stream: EventStream) -> None:
        self.plan, self.options, self.stream, self.state = plan, options, stream, stream.state
        self.halt = ""
        self._recorded = recorded(options.ledger) if options.ledger else lambda spec: None
        self._documents: dict[str, Mapping[str, Any]] = {}
        self._stamp: object = None

    def ask(self) -> TrialSpec | None:
        """The trial for a free slot; None when none may start now, or ever (`over`)."""
        if self.halts_without_ledger() or self.halt or self.plan.finished:
            return None
        spec = self.plan.next()
        if spec is not None:
            self.keep_documents()  # a search that is killed now asks for this trial again
            self.stream.tell("asked", spec)
        return spec

    def halts_without_ledger(self) -> bool:
        """Halt the run where the ledger was deleted or moved since this was first asked; whether it was.

        Writing would make it anew, with what came later alone: the trials that were in it would be lost in silence.
        """
        ledger = self.options.ledger
        if ledger is None:
            return False
        now = ledger.stamp()
        self._stamp = self._stamp or now
        if now == self._stamp:
            return False
        self.halt = (
            f"the ledger {ledger.uri} was deleted or moved while this ran; put it back and give the same command again"
        )
        return True

    @property
    def over(self) -> bool:
        """Whether nothing will be handed out any more; trials may still run, if only ones launched ahead."""
        return bool(self.halt) or self.plan.finished or self.plan.idle

    def started(self, spec: TrialSpec) -> None:
        """A trial got its slot."""
        self.state.started(spec)
        self.stream.tell("started", spec)

    def points(
        self, spec: TrialSpec, points: Sequence[CurvePoint], seconds: float, worker: Worker | None = None
    ) -> None:
        """A trial reached curve points, after ``seconds`` inside training and evaluation in this run."""
        self.state.took(spec.id, seconds)
        if points:
            self.state.points(spec, points, worker)
            self.stream.tell("points", spec, points, worker)

    def goes_on(self, spec: TrialSpec, fraction: float, loss: float | None, seconds: float) -> bool:
        """Whether a trial goes on from a curve point; after a False the backend stops it and calls `cut`."""
        return not self.plan.judges or self.plan.goes_on(spec, fraction, loss, seconds)

    def ended(self, spec: TrialSpec, end: TrialEnd, ended: Ended | None = None) -> None:
        """A trial ended in this run; its record is in the ledger, unless ``ended`` says how it ended."""
        self.state.took(spec.id, end.seconds)
        if self.stream.wants_points and self.options.ledger:
            # Its last points, and those that a killed process took with it.
            record = self.options.ledger.get(spec.id)
            if record is not None:
                self.stream.tell("points", spec, record.curve)
        self.state.done.add(spec.id)
        self._take_in(spec, ended)
        self.stream.tell("ended", spec, end)

    def cut(self, spec: TrialSpec, seconds: float) -> None:
        """A trial that did not `goes_on` gave its slot back."""
        self.state.took(spec.id, seconds)
        self.state.left(spec.id)
        self.keep_documents()  # that it was cut is known to the next run even if this one is killed
        self.stream.tell("ended", spec, TrialEnd("cut", seconds=seconds))

    def reused(self, spec: TrialSpec, ended: Ended | None = None) -> None:
        """A trial that was handed out turned out to be recorded already."""
        self._take_in(spec, ended)
        self.stream.tell("reused", spec)

    def restarted(self, spec: TrialSpec, error: str) -> None:
        """A trial lost its worker and waits for another one."""
        self.state.left(spec.id)
        self.stream.tell("restarted", spec, error)

    def failed(self, spec: TrialSpec, error: str) -> None:
        """A trial failed for the last time; the plan goes on without it, unless its worker had recorded it."""
        self._take_in(spec, None, error)
        self.stream.tell("ended", spec, TrialEnd("failed", seconds=self.state.busy.get(spec.id, 0.0), error=error))

    def waiting(self, reason: Wait) -> None:
        """Nothing has happened for long."""
        self.stream.tell("waiting", reason)

    def _take_in(self, spec: TrialSpec, ended: Ended | None, error: str = DEAD) -> None:
        self.state.left(spec.id)
        # The ledger is asked and not the worker: what was recorded is what any later run will see.
        ended = ended or self._recorded(spec)
        if ended is None:
            self.state.failed[spec.id] = error
        self.plan.tell(spec, ended)

    def keep_documents(self) -> None:
        """Put what the plan now says of itself into the ledger, so that reports find it; only what is new."""
        if self.options.ledger is None:
            return
        from tuneopt.optim.external import account
        from tuneopt.outside import source_of

        for name, plain in self.plan.documents(self._documents):
            if self._documents.get(name) != plain:
                self._documents[name] = plain
                more = {"corpus_source": self.options.corpus, **account(plain["space"]["optimizer"])}
                if model := source_of(plain["regime"]["scale"].get("model", "")):
                    more["model_source"] = model
                self.options.ledger.put_sweep(name, {**plain, **more})


def run(plan: Plan, backend: Backend, options: RunOptions, observers: Sequence[Observer] = ()) -> RunResult:
    """Run what is missing of ``plan`` on ``backend``; ``observers`` hear of it, and whoever made them closes them.

    A plan that has nothing to run starts nothing. It ends when the plan is finished, has reached a limit, or at Ctrl-C
    (``interrupted``); what runs at a limit runs to its end. Raises `InputError` when the backend cannot run a single
    trial, when another driver works on the plan, and when a disk is full.
    """
    state = RunState(plan)
    narrator = [Narrator(options.ledger, writes=backend.remote)] if options.ledger else []
    controller = RunController(plan, options, EventStream([*narrator, *observers], state))
    interrupted = False
    if plan.idle:  # everything is recorded: no worker is started only to find that out
        controller.keep_documents()
        return _result(controller, interrupted)
    controller.stream.connecting()
    with ExitStack() as stack:
        slots = stack.enter_context(backend.connect(plan, options))
        state.slots = plan.slots = min(slots, options.max_concurrent or slots)
        # Two drivers of one plan would train the same trials twice; two plans in one ledger get along.
        if options.ledger and plan.kind:
            stack.enter_context(hold(options.ledger, plan.id, plan.kind))
        # Not before it is sure that trials can run: what is refused leaves no trace.
        controller.keep_documents()
        if options.ledger:
            options.ledger.tidy()
        controller.stream.tell("begun", state)
        try:
            backend.drive(controller)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            for each in narrator:
                each.close()
        if not controller.halts_without_ledger():
            controller.keep_documents()  # with what the last trials have settled
        if controller.halt and not interrupted:
            raise InputError(controller.halt)
        return _result(controller, interrupted)


def _result(controller: RunController, interrupted: bool) -> RunResult:
    plan, state = controller.plan, controller.state
    return RunResult(
        outcomes=plan.outcomes,
        run=sorted(state.done),
        reused=sorted(plan.reused),
        failed=state.failed,
        cut=plan.cut,
        slots=state.slots,
        wall_seconds=state.elapsed if state.slots else 0.0,
        busy_seconds=state.busy_seconds,
        busy=state.busy,
        interrupted=interrupted,
        stopped=plan.stopped,
        ledger=controller.options.ledger,
    )
