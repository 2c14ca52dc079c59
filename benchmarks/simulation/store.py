"""A store in memory that misbehaves as stores do: the files of a ledger (`tuneopt.ledger.files.Files`) of one process.

Two kinds. A *folder* is what a local or shared folder gives: one writer of several wins, locks, names appear at once. A
*bucket* is what an object store without conditional writes gives: `create` asks first and puts then, there are no
locks, others see a new object, or a new version of it, later, and a listing may leave out what is new.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from simulation.world import DeadError, Process, Signal, World
from tuneopt.checked import NewerSchemaError
from tuneopt.ledger import damage
from tuneopt.ledger.files import RemoteFiles


@dataclass(slots=True)
class Version:
    """What a name holds from ``since`` on for everybody, and for its writer at once; None: nothing."""

    data: bytes | None
    since: float
    writer: Process | None


@dataclass(slots=True)
class Store:
    """What processes share. ``faults`` maps the number of an operation to what goes wrong with it."""

    world: World
    bucket: bool
    faults: dict[int, tuple[str, float]] = field(default_factory=dict)
    versions: dict[str, list[Version]] = field(default_factory=dict)
    operations: int = 0
    locks: dict[str, tuple[Process, Signal]] = field(default_factory=dict)
    written: dict[str, list[bytes]] = field(default_factory=dict)
    """What was acknowledged for each name under ``trials``, and neither lost nor damaged by a fault."""
    lost: set[str] = field(default_factory=set)
    """Names of which the store acknowledged a write and forgot it."""
    deleted: list[str] = field(default_factory=list)
    """Names under which a good record stood when somebody deleted it."""

    def seen(self, name: str, process: Process | None) -> bytes | None:
        """What a process sees under a name now; None for the world itself: the newest."""
        for version in reversed(self.versions.get(name, ())):
            if process is None or version.since <= self.world.now or version.writer is process:
                return version.data
        return None

    def put(self, name: str, data: bytes | None, process: Process | None, delay: float = 0.0) -> None:
        """Add a version."""
        self.versions.setdefault(name, []).append(Version(data, self.world.now + delay, process))

    def settle(self) -> None:
        """No faults from now on, and everybody sees the newest version of everything."""
        self.faults.clear()
        for name, versions in self.versions.items():
            self.versions[name] = [Version(versions[-1].data, 0.0, None)]

    def rot(self, draw: float) -> None:
        """Flip a bit of a stored document, as a dying disk does."""
        names = sorted(name for name in self.versions if name.startswith(("trials/", "sweeps/")))
        names = [name for name in names if self.seen(name, None)]
        if names:
            name = names[int(draw * len(names))]
            data = bytearray(self.seen(name, None) or b"")
            bit = int(draw * 1e9) % (8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            # Two flips can make a record of a later release, which only a person may move: its sweep waits for that.
            with contextlib.suppress(NewerSchemaError):
                damage.fault(name, bytes(data))
                self.put(name, bytes(data), None)
                self.written.pop(name, None)


class SimulatedFiles:
    """The files of a ledger as one process sees them; every operation takes some time and may go wrong."""

    def __init__(self, store: Store, process: Process) -> None:
        self.store, self.process = store, process

    def read(self, name: str) -> bytes:
        self._take_time("read")
        return self._content(name)

    def _content(self, name: str) -> bytes:
        data = self.store.seen(name, self.process)
        if data is None:
            raise FileNotFoundError(name)
        return data

    def read_all(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, self.read(name)

    def exists(self, name: str) -> bool:
        self._take_time("read")
        return self.store.seen(name, self.process) is not None

    def oddity(self, name: str) -> str:
        return ""

    def odd_names(self, folder: str) -> list[str]:
        return []

    def create(self, name: str, data: bytes) -> bool:
        if self.store.bucket:
            if self.exists(name):
                return False
            self.replace(name, data)
            return True
        fault = self._take_time("write")
        # The link decides, for all processes at once.
        if self.store.seen(name, None) is not None:
            return False
        self._write(name, data, fault)
        return True

    def replace(self, name: str, data: bytes) -> None:
        self._write(name, data, self._take_time("write"))

    def _write(self, name: str, data: bytes | None, fault: tuple[str, float]) -> None:
        """Put a version; a lost write is acknowledged, and a write can happen whose writer hears of an error."""
        kind, amount = fault
        if kind == "lose":
            self.store.lost.add(name)
            return
        self.store.put(name, data, self.process, amount if kind == "delay" and self.store.bucket else 0.0)
        if name.startswith("trials/") and data is not None:
            self.store.written.setdefault(name, []).append(data)
        if kind == "fail after":
            raise OSError(5, "no answer, though it was done")

    def move(self, name: str, target: str, seen: bytes, instead: bytes | None = None) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.store.bucket:  # request by request, as `RemoteFiles.move` makes them
                RemoteFiles.move(self, name, target, seen, instead)  # type: ignore[arg-type]
                return
            self._take_time("write")
            data = self._content(name)
            self._write(target, data, ("", 0.0))
            self._write(name, None, ("", 0.0))
            if instead is not None:
                self.create(name, instead)

    def delete(self, name: str) -> None:
        fault = self._take_time("write")
        if self.store.seen(name, None) in self.store.written.get(name, ()):
            self.store.deleted.append(name)
        self._write(name, None, fault)

    def delete_tree(self, folder: str) -> None:
        for name in list(self.store.versions):
            if name.startswith(f"{folder}/"):
                self.delete(name)

    def tree(self, folder: str) -> list[tuple[str, int, float]]:
        return []

    def names(self, folder: str) -> list[str]:
        kind, amount = self._take_time("list")
        found = sorted(
            name.removeprefix(f"{folder}/")
            for name in self.store.versions
            if name.startswith(f"{folder}/") and self.store.seen(name, self.process) is not None
        )
        if kind == "partial" and self.store.bucket:
            found = [name for place, name in enumerate(found) if (place + int(amount)) % 2]
        return found

    def stray(self, folder: str) -> list[str]:
        return []

    @contextlib.contextmanager
    def alone(self, word: str) -> Iterator[None]:
        if self.store.bucket:
            yield
            return
        self._take_time("lock")
        while word in self.store.locks and self.store.locks[word][0].alive:
            _, free = self.store.locks[word]
            self.store.world.wait(free, 0.05)  # a kernel drops the lock of a killed process
        self.store.locks[word] = (self.process, Signal())
        try:
            yield
        finally:
            _, free = self.store.locks.pop(word, (None, Signal()))
            self.store.world.give(free)

    def _take_time(self, kind: str) -> tuple[str, float]:
        """Wait as long as the operation takes; what goes wrong with it."""
        store, world = self.store, self.store.world
        if not self.process.alive:
            raise DeadError
        store.operations += 1
        fault = store.faults.get(store.operations, ("", 0.0))
        world.sleep(world.random.expovariate(20.0) if store.bucket else world.random.expovariate(200.0))
        if fault[0] == "fail":
            raise OSError(5, "no answer")
        return fault
