"""One schedule: drivers, workers and faults that a seed draws, what happens then, and what must be true at the end.

What runs is tuneopt's own: `tuneopt.run.spine.run`, the scheduler queue of a sweep, the ledger with its seals and
leases, and the worker's last step. Simulated are the store below, the clock, the death of processes, and training: a
trial takes some seconds and ends with a loss that its configuration decides.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from simulation.store import SimulatedFiles, Store
from simulation.world import Process, Signal, World, inside
from tuneopt import checked
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord, damage, store
from tuneopt.observe.state import TrialEnd
from tuneopt.run.options import RunOptions
from tuneopt.run.simulated import simulate
from tuneopt.run.spine import DEAD, RunController, RunResult, run
from tuneopt.scale_files import find_scale
from tuneopt.search import queue
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

OPERATION_FAULTS = ("fail", "fail after", "lose", "delay", "partial")
TIMED_FAULTS = ("rot", "kill driver", "kill worker", "pause driver", "pause worker")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong: at the ``place``-th operation of the store, or at that second.

    ``amount`` says how: seconds of a delay or a pause, or which victim.
    """

    kind: str
    place: float
    amount: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that happens follows from this; equal schedules end alike."""

    seed: int
    bucket: bool = False
    slots: int = 2
    ahead: bool = False
    starts: tuple[float, ...] = (0.0,)
    """When the first driver, and a second one, begin; each comes back some seconds after it ended before its time."""
    one_machine: bool = True
    clocks_off: tuple[float, ...] = (0.0,)
    """Seconds by which the clocks of the drivers' machines are wrong."""
    orphans: bool = False
    """Whether workers live on when their driver dies."""
    twins: frozenset[int] = frozenset()
    """Which launches start two workers."""
    faults: tuple[Fault, ...] = ()


def drawn(seed: int) -> Schedule:
    """The schedule of a seed: from undisturbed to a dozen faults."""
    draw = random.Random(seed)
    two = draw.random() < 0.5
    faults = []
    for _ in range(draw.choice((0, 1, 2, 2, 3, 3, 4, 6, 8, 12))):
        if draw.random() < 0.5:
            faults.append(Fault(draw.choice(OPERATION_FAULTS), draw.randrange(1, 250), draw.uniform(0.1, 40.0)))
        else:
            faults.append(Fault(draw.choice(TIMED_FAULTS), draw.uniform(0.0, 120.0), draw.random()))
    return Schedule(
        seed=seed,
        bucket=draw.random() < 0.5,
        slots=draw.choice((1, 2, 4)),
        ahead=draw.random() < 0.5,
        starts=(0.0, draw.choice((0.0, draw.uniform(0.0, 60.0)))) if two else (0.0,),
        one_machine=draw.random() < 0.5,
        clocks_off=tuple(draw.choice((0.0, 0.0, -3600.0, 3600.0, -75.0, 30.0)) for _ in range(2)),
        orphans=draw.random() < 0.5,
        twins=frozenset(draw.randrange(12) for _ in range(draw.choice((0, 0, 1, 3)))),
        faults=tuple(faults),
    )


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
_PLAIN = SWEEP.to_dict()
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


def play(schedule: Schedule) -> tuple[list[str], Scene]:
    """Run a schedule; a sentence for each property that it breaks, and what happened."""
    scene = Scene(schedule)
    world, shared = scene.world, scene.store
    with inside(world), quick():
        for which, start in enumerate(schedule.starts):
            world.at(start, functools.partial(scene.begin_driver, which))
        for fault in schedule.faults:
            if fault.kind in OPERATION_FAULTS:
                shared.faults[int(fault.place)] = (fault.kind, fault.amount)
            else:
                world.at(fault.place, functools.partial(scene.harm, fault))
        ended = world.run()
        shared.settle()
        scene.calm = True
        # The same command once more, and then again: the first brings what is missing, the second finds everything.
        for name in ("last", "again"):
            if ended:
                scene.begin_driver(0, name)
                ended = world.run()
        broken = list(_broken(scene)) if ended else ["a run does not end"]
        for process in world.processes:  # nothing of this schedule may go on in the next
            if process.alive:
                with suppress(Exception):
                    world.kill(process)
    return broken, scene


def _broken(scene: Scene) -> Iterator[str]:
    """What is not as it must be, whatever went wrong on the way."""
    store = scene.store
    yield from (f"a process crashed: {error}" for error in scene.world.errors)
    for name in ("last", "again"):
        if name not in scene.results:
            yield f"the {name} run did not end with a result: {scene.ends[-1:]}"
    if "again" in scene.results and scene.results["again"].run:
        yield f"the run after the last one trained {scene.results['again'].run}"
    state = UNDISTURBED.state
    expected = (state.certificate, state.descent.incumbent, state.best)
    for name, certificate in scene.certificates.items():
        if certificate != expected:
            yield f"{name} ended with another certificate"
    if "last" not in scene.certificates:
        yield "the last run ended without a certificate"
    present = {name: data for name in store.versions if name.startswith("trials/") and (data := store.seen(name, None))}
    aside = {store.seen(name, None) for name in store.versions if name.startswith(f"{damage.FOLDER}/")}
    for spec in UNDISTURBED.state.needed:
        if f"trials/{spec.id}.json" not in present:
            yield f"no record of trial {spec.id}"
    for name, data in present.items():
        try:
            found = damage.decode("", damage.key(name), data)
        except damage.DamagedRecordError as error:
            if damage.key(name) in {spec.id for spec in UNDISTURBED.state.needed}:
                yield f"{name} is damaged, and nobody trained it again: {error.why}"
            continue
        if found.select_loss != loss(found.spec):
            yield f"{name} was changed"
    for name, written in store.written.items():
        if not store.bucket and (len(written) > 1 or present.get(name) != written[0]):
            yield f"{name} was written {len(written)} times, or is not what was written first"
        elif not any(data == present.get(name) or data in aside for data in written):
            yield f"{name} was lost"
    yield from (f"verify after mend: {problem}" for problem in _mended(scene))


def _mended(scene: Scene) -> list[str]:
    """What `verify` names when `mend` is done: what rotted and is needed by no run was set aside."""
    checker, problems = scene.world.process("mend", "one"), ["mend does not end"]

    def mend() -> None:
        ledger = scene.ledger(checker)
        ledger.mend()
        problems[:] = ledger.verify()

    scene.world.start(checker, mend)
    scene.world.run()
    return problems


def shrunk(schedule: Schedule) -> Schedule:
    """A schedule that breaks something, with as little in it as does so: no part of it can be left out."""
    while True:
        for smaller in _smaller(schedule):
            if play(smaller)[0]:
                schedule = smaller
                break
        else:
            return schedule


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    for place in range(len(schedule.faults)):
        yield replace(schedule, faults=schedule.faults[:place] + schedule.faults[place + 1 :])
    if len(schedule.starts) > 1:
        yield replace(schedule, starts=schedule.starts[:1])
    yield from (replace(schedule, twins=schedule.twins - {launch}) for launch in sorted(schedule.twins))
    plain: dict[str, Any] = {"ahead": False, "bucket": False, "orphans": False, "one_machine": True, "slots": 1}
    for name, value in plain.items():
        if getattr(schedule, name) != value:
            yield replace(schedule, **{name: value})
    if any(schedule.clocks_off):
        yield replace(schedule, clocks_off=(0.0, 0.0))


@contextmanager
def quick() -> Iterator[None]:
    """Remember what pure functions said, and log nothing: schedules ask the same of them again and again."""
    before = queue.stand, queue.lookahead, dict(damage.DECODERS), TrialRecord.to_json, Sweep.to_dict
    queue.stand, queue.lookahead = _stand, _lookahead
    Sweep.to_dict = lambda sweep: _PLAIN  # type: ignore[method-assign]
    store.plain_tree, store.place.resolve = _plain_tree, _resolve
    damage._read_record = _DECODERS["trials"]
    damage.DECODERS.update(_DECODERS)
    TrialRecord.to_json = _to_json  # type: ignore[method-assign]
    disabled = logging.root.manager.disable
    if disabled < logging.CRITICAL:  # asking is cheap, and to set it empties the caches of all loggers
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        queue.stand, queue.lookahead = before[:2]
        TrialRecord.to_json, Sweep.to_dict = before[3:]  # type: ignore[method-assign]
        damage.DECODERS.update(before[2])
        damage._read_record = before[2]["trials"]
        store.plain_tree, store.place.resolve = checked.plain_tree, _resolve.__wrapped__
        if disabled < logging.CRITICAL:
            logging.disable(disabled)


_known: dict[Any, Any] = {}
_real_stand, _real_lookahead = queue.stand, queue.lookahead


def _stand(task: Any, outcomes: Any, gave_up: Any) -> Any:
    key = task.id, task.evidence, frozenset(outcomes.items()), frozenset(gave_up)
    if key not in _known:
        _known[key] = _real_stand(task, outcomes, gave_up)
    return _known[key]


def _lookahead(sweep: Sweep, outcomes: Any, gave_up: Any, evidence: Any) -> Iterator[TrialSpec]:
    key = "ahead", sweep.id, evidence, frozenset(outcomes.items()), frozenset(gave_up)
    if key not in _known:
        _known[key] = tuple(_real_lookahead(sweep, outcomes, gave_up, evidence))
    return iter(_known[key])


def _plain_tree(tree: Any, what: str) -> Any:
    key = "plain", repr(tree)
    if key not in _known:
        _known[key] = checked.plain_tree(tree, what)
    return _known[key]


_DECODERS = {folder: functools.lru_cache(4096)(read) for folder, read in damage.DECODERS.items()}
_resolve = functools.lru_cache(8)(store.place.resolve)
_texts: dict[int, tuple[TrialRecord, str]] = {}
_real_to_json = TrialRecord.to_json


def _to_json(record: TrialRecord) -> str:
    if id(record) not in _texts:
        _texts[id(record)] = record, _real_to_json(record)  # held, so that its id is no other's
    return _texts[id(record)][1]
