"""A world of processes on a virtual clock: one thread, one order of events, the same for the same seed.

A process is a group of tasks, each a greenlet that runs real code until it sleeps; then the world goes on with whatever
is due next. A process can be killed in the middle of anything: what unwinds then can do nothing any more, as after
SIGKILL. It can be paused, and its clock may be wrong.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from greenlet import getcurrent, greenlet

from tuneopt.ledger import lease

MOST_EVENTS = 60_000
"""Events of a schedule beyond which something goes round in circles: ordinary ones have some hundreds."""


class DeadError(BaseException):
    """The process that runs this was killed; no `Exception`, so that nothing handles it."""


class Process:
    """What is killed, paused and misled about the time as one; ``number`` and ``machine`` are what leases know."""

    def __init__(self, name: str, machine: str, number: int, clock_off: float = 0.0) -> None:
        self.name, self.machine, self.number, self.clock_off = name, machine, number, clock_off
        self.alive = True
        self.paused_until = 0.0
        self.tasks: list[Task] = []


class Task:
    """Something that runs in a process; ``over`` is signalled at its end."""

    def __init__(self, process: Process, act: Callable[[], Any], hub: greenlet) -> None:
        self.process, self.over = process, Signal()
        self.turn = 0
        self.greenlet = greenlet(act, parent=hub)


class Signal:
    """What tasks wait for; once given it stays."""

    def __init__(self) -> None:
        self.given = False
        self.waiting: list[Task] = []


class World:
    """The clock and everything that is due on it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.events = 0
        self.current: Task | None = None
        self.processes: list[Process] = []
        self.errors: list[str] = []
        self._due: list[tuple[float, int, Any, int]] = []
        self._order = 0
        self._hub = getcurrent()

    def process(self, name: str, machine: str, clock_off: float = 0.0) -> Process:
        """A new process; numbers are never used again, as on a machine with a large number of them."""
        made = Process(name, machine, 1000 + len(self.processes), clock_off)
        self.processes.append(made)
        return made

    def start(self, process: Process, act: Callable[[], Any]) -> Task:
        """Run ``act`` in a process from now on."""
        task = Task(process, lambda: self._whole(task, act), self._hub)
        process.tasks.append(task)
        self._push(self.now, task)
        return task

    def at(self, when: float, act: Callable[[], Any]) -> None:
        """Let something happen from outside; it must not sleep."""
        self._order += 1
        heapq.heappush(self._due, (when, self._order, act, 0))

    def sleep(self, seconds: float) -> None:
        """Let the current task wait."""
        task = self._living()
        due = self.now + max(0.0, seconds)
        if not self._due or due < self._due[0][0]:  # nothing else happens until then: the hub would come back at once
            self.now = due
            self.events += 1
            if self.events <= MOST_EVENTS:
                return
        self._push(due, task)
        self._switch(task)

    def wait(self, signal: Signal, seconds: float | None = None) -> bool:
        """Let the current task wait for a signal, at most so long; whether it was given."""
        task = self._living()
        if not signal.given:
            signal.waiting.append(task)
            if seconds is not None:
                self._push(self.now + seconds, task)
            else:
                task.turn += 1
            self._switch(task)
        return signal.given

    def give(self, signal: Signal) -> None:
        """Wake everything that waits for a signal."""
        signal.given = True
        for task in signal.waiting:
            self._push(self.now, task)
        signal.waiting.clear()

    def kill(self, process: Process) -> None:
        """End a process at once; called from inside, what calls is its last task."""
        process.alive = False
        for task in process.tasks:
            if task is not self.current and not task.greenlet.dead:
                before, self.current = self.current, task
                task.greenlet.throw(DeadError)
                self.current = before
            task.turn += 1
            self.give(task.over)

    def run(self) -> bool:
        """Go on until nothing is due; False where that does not end."""
        while self._due:
            when, _, what, turn = heapq.heappop(self._due)
            self.events += 1
            if self.events > MOST_EVENTS:
                return False
            if not isinstance(what, Task):
                self.now = max(self.now, when)
                what()
                continue
            if turn != what.turn or not what.process.alive:
                continue
            self.now = max(self.now, when)
            if what.process.paused_until > self.now:
                self._push(what.process.paused_until, what)
                continue
            self.current = what
            what.greenlet.switch()
            self.current = None
        return True

    def _whole(self, task: Task, act: Callable[[], Any]) -> None:
        try:
            act()
        except DeadError:
            pass
        except Exception as error:
            self.errors.append(f"{task.process.name}: {type(error).__name__}: {error}")
            raise
        finally:
            if task.process.alive:
                self.give(task.over)

    def _push(self, when: float, task: Task) -> None:
        task.turn += 1
        self._order += 1
        heapq.heappush(self._due, (when, self._order, task, task.turn))

    def _switch(self, task: Task) -> None:
        self._hub.switch()
        if not task.process.alive:
            raise DeadError

    def _living(self) -> Task:
        assert self.current is not None, "only tasks wait"
        if not self.current.process.alive:
            raise DeadError
        return self.current


class _Flag:
    """`threading.Event` on the virtual clock."""

    def __init__(self, world: World) -> None:
        self._world, self._signal = world, Signal()

    def set(self) -> None:
        self._world.give(self._signal)

    def wait(self, seconds: float) -> bool:
        return self._world.wait(self._signal, seconds)


class _Thread:
    """`threading.Thread` on the virtual clock: a task of the process that starts it."""

    def __init__(self, world: World, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._world, self._act = world, lambda: target(*args)
        self._task: Task | None = None

    def start(self) -> None:
        assert self._world.current is not None
        self._task = self._world.start(self._world.current.process, self._act)

    def join(self, seconds: float) -> None:
        assert self._task is not None
        self._world.wait(self._task.over, seconds)


@contextmanager
def inside(world: World) -> Iterator[None]:
    """Give the code of leases this world's clock, threads and processes in place of the machine's."""

    def process() -> Process:
        assert world.current is not None
        return world.current.process

    def born(number: int) -> str:
        same = (each for each in world.processes if each.number == number and each.machine == process().machine)
        return "lives" if any(each.alive for each in same) else ""

    names = ("time", "threading", "os", "_machine", "_born")
    before = {name: getattr(lease, name) for name in names}
    lease.time = SimpleNamespace(  # type: ignore[attr-defined]
        time=lambda: 1e9 + world.now + process().clock_off, monotonic=lambda: world.now, sleep=world.sleep
    )
    lease.threading = SimpleNamespace(  # type: ignore[attr-defined]
        Event=lambda: _Flag(world), Thread=lambda target, args, name, daemon: _Thread(world, target, args)
    )
    lease.os = SimpleNamespace(getpid=lambda: process().number)  # type: ignore[attr-defined]
    lease._machine, lease._born = lambda: process().machine, born
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(lease, name, value)
