"""Who works on a sweep: a small file with a heartbeat in the ledger, so that a second driver says so and stops.

Results are safe without it, since the first record of a trial wins; it saves the time of training everything twice. A
holder on this machine is asked for by its process, so that a killed driver holds nothing up. One on another machine
counts as gone when its heartbeat stands still for `EXPIRY_SECONDS`.

``leases/<name>.json`` holds one `Holder` as JSON. Its holder alone replaces it, every `BEAT_SECONDS`, and deletes it at
the end; a killed driver leaves it, and the next driver takes it over. A lease that cannot be read holds nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tuneopt.ledger.store import Ledger
from tuneopt.spec import InputError

BEAT_SECONDS = 10.0
"""Seconds between heartbeats: a small write each, which a slow object store can bear."""

EXPIRY_SECONDS = 60.0
"""Seconds without a heartbeat after which a holder on another machine counts as gone: six beats may fail in a row."""

FEWEST_BEATS = 3
"""Heartbeats that are waited for whatever the holder's last time was: its clock may be behind by hours, and a driver
that lives shows itself within one beat and the time of a write."""

_log = logging.getLogger(__name__)

_held: set[str] = set()
"""Tokens of the leases that this process holds: one of its own that is not among them could not be deleted."""


@dataclass(frozen=True)
class Holder:
    """A process that works on a sweep; ``machine`` and ``born`` tell it from others with its host name or number."""

    token: str
    host: str
    machine: str
    process: int
    born: str
    since: str
    beat: int = 0
    """Heartbeats so far: whoever sees the number change knows that the holder lives, whatever the clocks say."""
    at: float = 0.0
    """When it last beat, in seconds since 1970 by its own clock. It shortens the wait for the next beat, to
    `FEWEST_BEATS` at least: who comes an hour after a crash need not wait a minute, and a holder whose clock is behind
    still has the time to show that it lives."""

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(secrets.token_hex(8), socket.gethostname(), _machine(), os.getpid(), _born(os.getpid()), now)

    @property
    def gone(self) -> bool:
        """Whether it ran on this very machine and runs no more, or is this process and has come to its end."""
        if self.machine != _machine():
            return False
        if _born(self.process) != self.born:
            return True
        return self.process == os.getpid() and self.token not in _held

    def beaten(self) -> Holder:
        """The same holder, a heartbeat later."""
        return replace(self, beat=self.beat + 1, at=time.time())

    def to_json(self) -> bytes:
        """Inverse of `parse`."""
        return json.dumps(vars(self)).encode() + b"\n"


def parse(data: bytes) -> Holder | None:
    """The holder that a lease names; None for a damaged lease, which holds nothing."""
    try:
        holder = Holder(**json.loads(data))
    except (ValueError, TypeError, RecursionError):
        return None
    words = (holder.token, holder.host, holder.machine, holder.born, holder.since)
    numbers = (holder.process, holder.beat, holder.at)
    sound = all(isinstance(word, str) for word in words) and all(isinstance(number, int | float) for number in numbers)
    return holder if sound else None


@contextlib.contextmanager
def hold(ledger: Ledger, name: str, what: str = "sweep") -> Iterator[None]:
    """Hold the lease of the sweep or study ``name`` while the block runs.

    Raises `InputError` that names the host, the process and since when, where another driver holds it.
    """
    lease, done = _Lease(ledger, name, what), threading.Event()
    beating = threading.Thread(target=lease.beat, args=(done,), name="lease", daemon=True)
    _held.add(lease.mine.token)  # before it is written: another thread may read it at once
    try:
        lease.take()
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join(BEAT_SECONDS)
            lease.leave()
    finally:
        _held.discard(lease.mine.token)


class _Lease:
    """The lease of one sweep or study, from this process's side."""

    def __init__(self, ledger: Ledger, name: str, what: str) -> None:
        self.files, self.mark = ledger.files, ledger.mark
        self.name, self.what = f"leases/{name}.json", f"{what} {name}"
        self.mine = Holder.here().beaten()

    def take(self) -> None:
        """Write the lease, or take it over from a holder that is gone; raises `InputError` where one is not."""
        self.mark()
        if self.files.create(self.name, self.mine.to_json()):  # atomic: of two that come at once one gets it
            return
        other = self.read()
        if other is not None and not other.gone:
            self.watch(other)
        with self.files.alone("leases"):
            now = self.read()
            if now is not None and now != other:  # a third driver was faster
                raise self.refusal(now)
            self.files.replace(self.name, self.mine.to_json())

    def watch(self, other: Holder) -> None:
        """Return when ``other`` shows no sign of life; raises `InputError` when it does."""
        if other.machine == self.mine.machine:  # its process is there: no beat needs to be waited for
            raise self.refusal(other)
        left = max(EXPIRY_SECONDS - max(0.0, time.time() - other.at), FEWEST_BEATS * BEAT_SECONDS)
        _log.warning("%s is held by %s; waiting for a sign of life, %.0f s at most", self.what, _who(other), left)
        deadline = time.monotonic() + left
        while time.monotonic() < deadline:
            time.sleep(min(1.0, EXPIRY_SECONDS / 10))
            now = self.read()
            if now is None or now.token != other.token:  # it left, or somebody else took over: `take` looks again
                return
            if now.beat != other.beat:
                raise self.refusal(now)

    def refusal(self, holder: Holder) -> InputError:
        return InputError(f"{self.what} is under way: {_who(holder)}; wait for it, or end it before you start another")

    def read(self) -> Holder | None:
        try:
            return parse(self.files.read(self.name))
        except FileNotFoundError:
            return None

    def beat(self, done: threading.Event) -> None:
        """Show that this process is alive, until ``done`` or until another one took over.

        A beat that cannot be written is left out: a store that does not answer for a moment must not end a sweep.
        """
        while not done.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                now = self.read()
                if now is not None and now.token != self.mine.token:
                    _log.warning("%s is now also worked on by %s; nothing is recorded twice", self.what, _who(now))
                    return
                self.mine = self.mine.beaten()
                self.files.replace(self.name, self.mine.to_json())

    def leave(self) -> None:
        """Delete the lease, if it is still this process's."""
        with contextlib.suppress(OSError):
            now = self.read()
            if now is not None and now.token == self.mine.token:
                self.files.delete(self.name)


def _who(holder: Holder) -> str:
    return f"process {holder.process} on {holder.host} works on it since {holder.since}"


def _machine() -> str:
    """A machine that was not restarted, seen from one container: where process numbers mean the same.

    Two containers can share a host name and number their processes alike; the kernel's name of the process namespace
    tells them apart, and the boot id tells a restart.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _born(process: int) -> str:
    """When a process of this machine began, in the kernel's ticks since boot; empty when there is none.

    A number alone would take a later process with the same number for the holder. Where there is no /proc (macOS), it
    has to do.
    """
    try:
        # The name in parentheses may hold spaces; state and start time are the 1st and the 20th field behind it.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # a zombie runs no more
    except OSError:
        if Path("/proc/self").exists():
            return ""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "lives"
