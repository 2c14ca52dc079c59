"""Notices when Ray itself dies under a driver, which would otherwise wait for its trials for ever; and keeps SIGTERM.

Ray's core asks a dead raylet for workers again and again (ray-project/ray, issue 20239), and Tune waits on it. A
control service that dies while Ray starts is asked for a minute, and then the core ends the driver with a message of
its own. A thread of this process looks instead: at the processes that this driver started, or at its node of a cluster.

SIGTERM is answered by this program while Ray starts and afterwards, as ever (`own_signals`). `ray.init` sets handlers
before it connects and while it starts its processes. They end the driver at once with exit code 1 or 15, without a word
of how to go on. Its C++ core sets one more, below Python's: it prints a stack trace, hands the signal on, and aborts
the process three seconds later by an alarm (absl's failure signal handler).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

LOOK_SECONDS = 2.0
"""Between two looks at own processes; a poll of a child costs nothing."""
LOOK_AT_CLUSTER_SECONDS = 10.0
"""Between two looks at a cluster's list of nodes, which is a remote call."""
START_SECONDS = 10.0
"""How long Ray may take to notice by itself that a process of its own died while it starts: it knows why."""
END_SECONDS = 15.0
"""How long the driver may take to end after Ray died; its C++ core can wait for answers that will not come."""

BAD_END = 2

SERVICES = ("raylet", "gcs_server")
"""Ray's processes without which a driver cannot go on, as Ray and the system call them."""

WAKE = signal.SIGUSR1
"""What interrupts the main thread. Not SIGINT: shells start background jobs with SIGINT ignored."""


class LostRayWatch:
    """Looks after the Ray that this driver is connected to; ``lost`` says what became of it, if anything did.

    ``started`` is set by who starts Ray, when it has.
    """

    def __init__(self, local: bool, wake: bool) -> None:
        self.local, self.wake, self.started = local, wake, False
        self.lost = ""
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, name="ray-watch", daemon=True)
        self._thread.start()

    def rest(self) -> None:
        """Look no more, because Ray is about to be ended on purpose; what was lost before stays lost."""
        with self._lock:
            if not self.lost:
                self._done.set()

    def stop(self) -> None:
        """The driver got away from Ray, alive or dead."""
        self._done.set()

    def _look(self) -> None:
        since = 0.0  # when a process was first seen dead
        while not self._done.wait(LOOK_SECONDS if self.local else LOOK_AT_CLUSTER_SECONDS):
            # Before it is connected Ray must not be asked for its nodes: it would start one.
            dead = _dead_processes() if self.local else _dead_node() if self.started else ""
            with self._lock:  # `rest` may be called between the look and here; then the end was on purpose
                since = (since or time.monotonic()) if dead else 0.0
                early = not self.started and time.monotonic() - since < START_SECONDS
                if not dead or early or self._done.is_set():
                    continue
                self.lost = f"{dead}; run the same command again: it goes on from what is recorded"
            if self.wake:
                os.kill(os.getpid(), WAKE)  # what waits inside Ray wakes up to signals
            if not self._done.wait(END_SECONDS):
                # The main thread is stuck in Ray's C++ core, where no Python exception reaches it.
                sys.stderr.write(f"tuneopt: {self.lost}\n")
                sys.stderr.flush()
                os._exit(BAD_END)
            return


@contextlib.contextmanager
def watching(local: bool) -> Iterator[LostRayWatch]:
    """Look after Ray while the block runs. In another thread than the main one nothing can be interrupted."""
    wake = threading.current_thread() is threading.main_thread()
    before = signal.signal(WAKE, _interrupt) if wake else None
    watch = LostRayWatch(local, wake)
    try:
        yield watch
    finally:
        watch.stop()
        if wake:
            signal.signal(WAKE, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _dead_processes() -> str:
    """Which of the processes that this driver started for Ray has ended."""
    from ray._private import worker

    node: Any = worker._global_node
    if node is None:
        return _dead_children()
    for kind in SERVICES:
        for started in node.all_processes.get(kind, ()):
            code = started.process.poll()
            if code is not None:
                return f"Ray's {kind} on this machine ended (exit code {code})"
    return ""


def _dead_children() -> str:
    """Which process of Ray ended before Ray has a node: a child that nobody has asked about yet (state Z, proc(5))."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            before, _, after = place.read_text().rpartition(")")
            name, (state, parent) = before.partition("(")[2], after.split()[:2]
            if state == "Z" and int(parent) == os.getpid() and name in SERVICES:
                return f"Ray's {name} on this machine ended while Ray started"
    return ""


@contextmanager
def alive_before_connecting() -> Iterator[None]:
    """Look for Ray's processes once more right before its core connects, while the block runs.

    Where the raylet is gone by then, the core ends this process at once, with exit code 1 and a line of its own
    (``core_worker_process.cc``, "Worker will terminate"). What is raised here is answered as any failed start is.
    """
    from ray._private import worker

    connect = worker.connect

    def looked(*words: Any, **named: Any) -> Any:
        if dead := _dead_processes():
            raise RuntimeError(f"{dead} while Ray started")
        return connect(*words, **named)

    worker.connect = looked
    try:
        yield
    finally:
        worker.connect = connect


def _dead_node() -> str:
    """Whether the cluster gave up the node that this driver is connected to."""
    import ray

    with contextlib.suppress(Exception):  # a head that does not answer is Ray's own to judge: it ends the driver itself
        mine = ray.get_runtime_context().get_node_id()
        if any(node["NodeID"] == mine and not node["Alive"] for node in ray.nodes()):
            return "the Ray node that this command was connected to is gone"
    return ""


@contextmanager
def own_signals() -> Iterator[None]:
    """Let Ray set no handlers while the block runs, and take back the core's; its processes end with this one."""
    from ray._private import utils

    main = threading.current_thread() is threading.main_thread()
    before, setter = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = setter
        if main:
            signal.signal(signal.SIGTERM, before)  # anew, because the core has replaced it without Python's knowledge
            signal.alarm(0)  # of a signal that came in between
