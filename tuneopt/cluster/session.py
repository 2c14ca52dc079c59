"""Connecting to Ray: a cluster by its address, or this machine."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tuneopt.spec import InputError

WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""One thread for each trial: OpenMP's spinning collapses when two processes want the same cores."""

CONNECT_SECONDS = 5.0
"""How long a cluster may take to answer a connection."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A connection to Ray: CPUs and GPUs in the cluster, and how many trials of one size fit at once."""

    cpus: float
    gpus: float
    cpus_per_trial: float
    gpus_per_trial: float

    @property
    def slots(self) -> int:
        """Trials that can run at the same time."""
        by_cpu = int(self.cpus // self.cpus_per_trial) if self.cpus_per_trial else 10**9
        by_gpu = int(self.gpus / self.gpus_per_trial + 1e-9) if self.gpus_per_trial else 10**9
        return min(by_cpu, by_gpu)


@contextmanager
def connect(address: str | None, *, cpus_per_trial: float = 1.0, gpus_per_trial: float = 0.0) -> Iterator[Session]:
    """Connect to the cluster at ``address`` (``auto`` finds one; None starts Ray on this machine) and leave at the end.

    Raises `InputError` when no cluster answers there or no trial of the wanted size can ever run on it.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if address:
        _answers(address)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    ended = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            configure_logging=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"no Ray cluster at {address!r} ({reason}); start one, or leave --address out") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ended)  # Ray's own handler would leave without a word
    try:
        resources = ray.cluster_resources()
        session = Session(resources.get("CPU", 0.0), resources.get("GPU", 0.0), cpus_per_trial, gpus_per_trial)
        if session.slots < 1:
            raise InputError(
                f"a trial needs {cpus_per_trial:g} CPUs and {gpus_per_trial:g} GPUs, and the cluster has "
                f"{session.cpus:g} CPUs and {session.gpus:g} GPUs; ask for less per trial or add nodes"
            )
        yield session
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Raise `InputError` at once when nothing listens at ``host:port``; Ray itself would try for minutes."""
    match = re.fullmatch(r"(?:ray://)?(?P<host>[^:/]+|\[[^]]+\]):(?P<port>\d{1,5})", address)
    if match is None:
        if address not in ("auto", "local"):
            raise InputError(f"--address {address!r} is no Ray cluster; give host:port, ray://host:port or auto")
        return
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address!r} ({error}); start one, or leave --address out") from None
