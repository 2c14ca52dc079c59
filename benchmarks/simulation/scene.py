"""A schedule under way: drivers that run tuneopt's own code, workers that take some seconds, and what harms them.

What runs is tuneopt's own: `tuneopt.run.spine.run`, the scheduler queue of a sweep, the ledger with its seals and
leases, and the worker's last step. Simulated are the store below, the clock, the death of processes, and training: a
trial takes some seconds and ends with a loss that its configuration decides.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from simulation.drawing import Fault, Schedule
from simulation.store import SimulatedFiles, Store
from simulation.world import Process, Signal, World
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.observe.state import TrialEnd
from tuneopt.run.options import RunOptions
from tuneopt.run.simulated import simulate
from tuneopt.run.spine import DEAD, RunController, RunResult, run
from tuneopt.scale_files import find_scale
from tuneopt.search.plan import Plan
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.records import kept_evidence, recorded
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, Regime, TrialSpec
from tuneopt.training.run import TrialRun

CALM = 400.0
"""Seconds after which nothing goes wrong any more; what runs then runs to its end."""

TRIAL_SECONDS = 12.0
"""About how long a trial takes: longer than a heartbeat, shorter than a lease."""

ATTEMPTS = 3
"""Workers that a trial gets in one run, as on Ray."""


def _small_sweep() -> Sweep:
    """A sweep of AdamW that moves once and ends with two seeds of its winner: six trials."""
    space = load_space("adamw").on("nano")
    free = {"learning_rate": [0.004, 0.008, 0.016]}
    pinned = {axis.name: space.value(space.start, axis.name) for axis in space.axes if axis.name not in free}
    regime = Regime(find_scale("nano-65k"), 0.02, CorpusId("made-up", "00ff", 1024))
    return Sweep(load_space("adamw").on("nano", pinned, free), regime, replicates=2)


def loss(spec: TrialSpec) -> float:
    """A bowl with its lowest loss at 0.016."""
    return 4 + abs(float(spec.config["learning_rate"]) / 0.016 - 1) + 1e-4 * spec.seed


@functools.cache
def record(spec: TrialSpec, worker: int) -> TrialRecord:
    """What a worker writes; the note tells one worker's from another's."""
    value, tokens = loss(spec), spec.steps * spec.batch * spec.regime.scale.seq_len
    return TrialRecord(
        trial=spec.id, status="completed", spec=spec, select_loss=value, report_loss=value, initial_loss=7.0,
        curve=(CurvePoint(spec.steps, tokens, 0.0, value, value, value, 1.0),), tokens=tokens, steps=spec.steps,
        epochs=0.1, flops=1.0, seconds={"train": 1.0, "eval": 0.0, "startup": 0.0, "checkpoint": 0.0}, peak_bytes=None,
        checkpoint_bytes=None, optimizer_state_bytes=None, proof={"passed": True, "checks": []}, routing=(),
        environment={}, started="2026-01-01T00:00:00+00:00", ended="2026-01-01T00:00:01+00:00", resumes=0,
        tokens_per_second=1.0, notes=(f"worker {worker}",),
    )  # fmt: skip


SWEEP = _small_sweep()
UNDISTURBED = simulate(SWEEP, loss, slots=2)


class VirtualBackend:
    """Workers as processes of the world; a driver hears of their ends through its mailbox."""

    remote = False

    def __init__(self, scene: Scene, driver: Process) -> None:
        self.scene, self.driver, self.world = scene, driver, scene.world
        self.mail: list[tuple[TrialSpec, str, str]] = []
        self.news = Signal()
        self.workers: list[Process] = []

    @contextmanager
    def connect(self, plan: Plan, options: RunOptions) -> Iterator[int]:
        yield self.scene.schedule.slots

    def drive(self, controller: RunController) -> None:
        """Hand trials to workers until nothing is left, as Ray's backend does."""
        inside = self.scene.driving
        if others := [other.name for other in inside if other.alive]:
            self.scene.overlaps.append(f"{self.driver.name} began while {', '.join(others)} worked on the sweep")
        inside.append(self.driver)
        try:
            self._hand_out(controller)
        finally:
            inside.remove(self.driver)

    def _hand_out(self, controller: RunController) -> None:
        running: dict[str, int] = {}
        while True:
            while len(running) < controller.state.slots and (spec := controller.ask()) is not None:
                running[spec.id] = 1
                controller.started(spec)
                self.launch(spec)
            if not running:
                return
            while not self.mail:
                self.news = Signal()
                self.world.wait(self.news)
            spec, end, text = self.mail.pop(0)
            if end == "died" and running[spec.id] < ATTEMPTS:
                running[spec.id] += 1
                controller.restarted(spec, text)
                self.launch(spec)
                continue
            del running[spec.id]
            if end == "died":
                controller.failed(spec, text)
            elif end == "reused":
                controller.reused(spec)
            else:
                controller.ended(spec, TrialEnd("completed", loss(spec), loss(spec), 1.0))

    def launch(self, spec: TrialSpec) -> None:
        """Start a worker, or two of which one is forgotten."""
        self.scene.launches += 1
        for copy in range(2 if self.scene.launches in self.scene.schedule.twins else 1):
            machine = self.driver.machine if self.world.random.random() < 0.7 else "elsewhere"
            worker = self.world.process(f"worker of {self.driver.name}", machine)
            self.workers.append(worker)
            self.scene.workers.append((worker, self, spec, copy == 0))
            self.world.start(worker, functools.partial(self.work, worker, spec, copy == 0))

    def work(self, worker: Process, spec: TrialSpec, first: bool) -> None:
        """What a worker does, from the look into the ledger to the record."""
        try:
            ledger = self.scene.ledger(worker)
            end = "reused"
            if ledger.sound(spec.id) is None:
                end = "ended"
                self.world.sleep(TRIAL_SECONDS * self.world.random.uniform(0.5, 2.0))
                mine = record(spec, worker.number % 4)
                TrialRun._store(SimpleNamespace(ledger=ledger), mine)  # type: ignore[arg-type]
        except (OSError, InputError) as error:
            end, text = "died", f"{type(error).__name__}: {error}"
        else:
            text = ""
        self.post(spec, end, text, first)
        self.world.kill(worker)

    def post(self, spec: TrialSpec, end: str, text: str, first: bool = True) -> None:
        """Tell the driver, if it lives and knows of the worker."""
        if first and self.driver.alive:
            self.mail.append((spec, end, text))
            self.world.give(self.news)


@dataclass
class Scene:
    """A schedule under way."""

    schedule: Schedule
    world: World = field(init=False)
    store: Store = field(init=False)
    launches: int = 0
    workers: list[tuple[Process, VirtualBackend, TrialSpec, bool]] = field(default_factory=list)
    drivers: dict[int, Process] = field(default_factory=dict)
    backends: dict[Process, VirtualBackend] = field(default_factory=dict)
    results: dict[str, RunResult] = field(default_factory=dict)
    certificates: dict[str, Any] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)
    driving: list[Process] = field(default_factory=list)
    """Drivers that hand out trials of the sweep now."""
    overlaps: list[str] = field(default_factory=list)
    calm: bool = False

    def __post_init__(self) -> None:
        self.world = World(self.schedule.seed)
        self.store = Store(self.world, self.schedule.bucket)

    def ledger(self, process: Process) -> Ledger:
        """The ledger as a process sees it."""
        ledger = Ledger("/simulated")
        ledger.files = SimulatedFiles(self.store, process)
        return ledger

    def begin_driver(self, which: int, name: str = "") -> None:
        """Start the command, or start it again."""
        schedule = self.schedule
        machine = "one" if schedule.one_machine else f"machine {which}"
        off = schedule.clocks_off[which % len(schedule.clocks_off)]
        process = self.world.process(name or f"driver {which}", machine, off)
        self.drivers[which] = process
        self.world.start(process, functools.partial(self.drive, process, which))

    def drive(self, process: Process, which: int) -> None:
        """The command ``tune``; it comes back where it did not finish."""
        try:
            result, finished = self._tune(process)
        except (OSError, InputError) as error:  # one sentence and exit code 2
            self.ends.append(f"{process.name}: {error}")
            finished = False
        else:
            self.results[process.name] = result
        self._take_workers(process)
        if not finished:
            self.come_back(which)
        self.world.kill(process)  # it exits, and with it the heart of its lease

    def _tune(self, process: Process) -> tuple[RunResult, bool]:
        ledger, backend = self.ledger(process), VirtualBackend(self, process)
        self.backends[process] = backend
        evidence = kept_evidence(ledger, SWEEP.regime.corpus)(SWEEP)
        plan = SchedulerQueue(OneSweep(SWEEP, evidence), known=recorded(ledger), ahead=self.schedule.ahead)
        result = run(plan, backend, RunOptions(ledger))
        standing = plan.standings[SWEEP.id]
        if plan.finished and not result.failed:
            state = standing.state
            self.certificates[process.name] = (state.certificate, state.descent.incumbent, state.best)
        if result.run or result.failed:
            ledger.put_run({"sweep": SWEEP.id, "run": result.run, "failed": result.failed})
        return result, plan.finished and not result.failed

    def come_back(self, which: int) -> None:
        """The user, or a batch system, runs the same command again."""
        again = self.world.now + self.world.random.uniform(1.0, 40.0)
        if again < CALM and not self.calm:
            self.world.at(again, lambda: self.begin_driver(which))

    def _take_workers(self, driver: Process) -> None:
        """What ends with its driver, some seconds later: Ray's processes are cleared by the janitor."""
        backend = self.backends.get(driver)
        for worker in backend.workers if backend and not self.schedule.orphans else ():
            self.world.at(self.world.now + self.world.random.uniform(0.0, 10.0), lambda each=worker: self._end(each))

    def _end(self, worker: Process) -> None:
        if worker.alive:
            self.world.kill(worker)

    def harm(self, fault: Fault) -> None:
        """What a fault at a time does; nothing where there is no victim."""
        drivers = [(which, each) for which, each in self.drivers.items() if each.alive and not each.tasks[0].over.given]
        workers = [entry for entry in self.workers if entry[0].alive and not entry[0].tasks[0].over.given]
        if fault.kind == "rot":
            self.store.rot(fault.amount)
        elif fault.kind.endswith("driver") and drivers:
            which, driver = drivers[int(fault.amount * len(drivers))]
            if fault.kind == "pause driver":
                driver.paused_until = self.world.now + 200 * fault.amount
                return
            self.world.kill(driver)
            self._take_workers(driver)
            self.come_back(which)
        elif fault.kind.endswith("worker") and workers:
            worker, backend, spec, first = workers[int(fault.amount * len(workers))]
            if fault.kind == "pause worker":
                worker.paused_until = self.world.now + 200 * fault.amount
                return
            self.world.kill(worker)
            self.world.at(self.world.now + 1.0, lambda: backend.post(spec, "died", DEAD, first))
