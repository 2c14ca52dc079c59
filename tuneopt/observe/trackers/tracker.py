"""The driver's end of a tracker: an observer that hands everything to a process of its own and never waits for it.

`tracking` makes the trackers that a user asks for, and answers at once to what cannot work: after an hour of training a
mistyped address is found too late.

What is said goes through a queue of bounded length, a thread that writes it to the process's stdin, and the process
(`child`). Each of the three may stop: then messages are dropped and counted, and the run goes on as if nothing were.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from tuneopt.ledger import CurvePoint
from tuneopt.observe.observer import Observer
from tuneopt.observe.state import TrialEnd, Worker
from tuneopt.paths import check_way
from tuneopt.spec import InputError, TrialSpec, nearest

TITLES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases", "mlflow": "MLflow"}
"""Trackers, by the names of their flags."""

# By the names of the flags: the package that has to be installed, and what a target looks like.
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}

_INSTALLED_BY = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow-skinny"}
"""What to install for each; mlflow-skinny is the client alone."""

_EXAMPLES = {"tensorboard": "a folder", "wandb": "the name of a project", "mlflow": "sqlite:///mlflow.db or a server"}

_MLFLOW = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "file")
"""Schemes of addresses that MLflow's client takes."""

WAITING_LINES = 20_000
"""Messages held for a tracker that is slow; what comes beyond them is dropped and counted."""

PATIENCE = 30.0
"""Seconds that a tracker gets at the end of a run to take in what is left."""

_log = logging.getLogger("tuneopt.trackers")


class Tracker(Observer):
    """One run of a tracker for each trial, in a process that a slow or failing tracker cannot leave.

    The process starts with the first curve point. It ends when the driver does, however that ends, and marks the runs
    of trials under way as interrupted; they go on under the same id. What goes wrong is logged once, as a warning.
    """

    wants_points = True

    def __init__(self, kind: str, target: str, patience: float = PATIENCE) -> None:
        self.kind, self.target, self.patience = kind, target, patience
        self.title = TITLES[kind]
        self._lines: queue.Queue[bytes | None] = queue.Queue(WAITING_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._dropped = 0
        self._warned = False

    def points(self, spec: TrialSpec, points: Sequence[CurvePoint], worker: Worker | None = None) -> None:
        """Hand over curve points."""
        self._hand_over(spec, points, None)

    def ended(self, spec: TrialSpec, end: TrialEnd) -> None:
        """Hand over how a trial ended."""
        self._hand_over(spec, (), end)

    def close(self) -> None:
        """Give the process some time for what is left, then end it; at most twice `patience` seconds."""
        process = self._process
        if process is None:
            return
        try:
            self._lines.put(None, timeout=self.patience)  # the end, behind all that waits
            process.wait(self.patience)
            for thread in self._threads:
                thread.join(1.0)
        except (queue.Full, subprocess.TimeoutExpired):
            self._warn(f"has not taken in everything after {self.patience:g} seconds, and is left behind")
        finally:
            self._process = None
            process.kill()
            process.wait()
        if self._dropped:
            _log.warning("%s was too slow: %d messages were dropped", self.title, self._dropped)

    def _hand_over(self, spec: TrialSpec, points: Sequence[CurvePoint], end: TrialEnd | None) -> None:
        """Queue one message. It carries the whole specification: the process may have been started after the trial."""
        self._start()
        self._put(
            {
                "spec": spec.to_dict(),
                "points": [astuple(point) for point in points],
                "end": None if end is None else asdict(end),
            }
        )

    def _put(self, message: dict[str, Any]) -> None:
        try:
            self._lines.put_nowait(json.dumps(message).encode() + b"\n")
        except queue.Full:
            self._dropped += 1

    def _start(self) -> None:
        """Start the process and the two threads that talk to it, so that the driver never waits on a pipe."""
        if self._process is not None:
            return
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tuneopt.observe.trackers.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the driver, which then closes this in good order
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._put({"kind": self.kind, "target": self.target})  # on stdin: an address may hold a password
        self._threads = [
            threading.Thread(target=self._write, args=(process,), daemon=True, name=f"{self.kind}-write"),
            threading.Thread(target=self._read, args=(process, errors), daemon=True, name=f"{self.kind}-read"),
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        try:
            while (line := self._lines.get()) is not None:
                process.stdin.write(line)
                process.stdin.flush()
            process.stdin.close()
        except OSError:  # it is gone; `_read` says why
            return

    def _read(self, process: subprocess.Popen[bytes], errors: Any) -> None:
        """Say what the process complains of, and why it ended if it did so by itself."""
        assert process.stdout is not None
        for line in process.stdout:
            self._warn(
                f"does not take metrics ({json.loads(line)}); the run goes on, and three failures in a row end it"
            )
        process.stdout.close()
        if process.wait() > 0:
            errors.seek(0)
            last = errors.read()[-2000:].decode(errors="replace").strip().splitlines()
            self._warn(f"has ended by itself ({last[-1] if last else f'code {process.returncode}'})")
        errors.close()

    def _warn(self, text: str) -> None:
        """Say what went wrong, the first time; a name and password in the address are not repeated."""
        if not self._warned:
            self._warned = True
            head, at, place = self.target.rpartition("@")
            shown = f"{head.partition('://')[0]}://...@{place}" if at else self.target
            _log.warning("%s %s", self.title, text.replace(self.target, shown), extra={"tracker": self.kind})


@contextmanager
def tracking(
    tensorboard: str | None = None, wandb: str | None = None, mlflow: str | None = None
) -> Iterator[tuple[Tracker, ...]]:
    """Trackers to observe runs with: a folder, a project, an address. Closed at the end, within half a minute.

    Raises `InputError` at once for a target that cannot be one, and for a package that is not installed.
    """
    asked = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
    targets = {kind: target for kind, target in asked.items() if target is not None}
    check(targets)
    trackers = tuple(Tracker(kind, target) for kind, target in targets.items())
    try:
        yield trackers
    finally:
        for tracker in trackers:
            tracker.close()


def check(targets: Mapping[str, str]) -> None:
    """Raise `InputError` for the first target that cannot be written to, without any network.

    Whether a server answers is not asked: it may be down now and up in an hour, and the run does not depend on it.
    """
    for kind, target in targets.items():
        if not target.strip():
            raise InputError(f"--{kind} is empty; give {_EXAMPLES[kind]}")
        if not installed(_PACKAGES[kind]):
            raise InputError(f"--{kind} needs the package {_PACKAGES[kind]}; pip install {_INSTALLED_BY[kind]}")
    if "tensorboard" in targets:
        folder = Path(targets["tensorboard"])
        check_way(folder, folder, "event files")
    if "wandb" in targets and set(targets["wandb"]) & set("/\\#?%:"):
        raise InputError(f"--wandb {targets['wandb']!r} is no name of a project; leave out / \\ # ? % and :")
    if "mlflow" in targets:
        _check_mlflow(targets["mlflow"])


def installed(package: str) -> bool:
    """Whether a package can be imported; a folder of that name (where W&B keeps its runs) is none."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def _check_mlflow(uri: str) -> None:
    """Raise `InputError` for an address whose scheme MLflow does not know, or that it no longer writes to."""
    scheme, known, _ = uri.partition(":")
    if not known and uri == "databricks":
        return
    scheme = scheme.partition("+")[0] if known else "file"
    if scheme not in _MLFLOW:
        raise InputError(f"--mlflow {scheme}: is no address that MLflow knows; {nearest(scheme, _MLFLOW)}")
    if scheme == "file" and not os.environ.get("MLFLOW_ALLOW_FILE_STORE"):
        raise InputError(f"--mlflow: MLflow no longer writes into plain folders; give {_EXAMPLES['mlflow']}")
