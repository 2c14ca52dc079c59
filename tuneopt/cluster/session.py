"""Connecting to Ray: a cluster by its address, or this machine."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
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
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Tune's own snapshots grow with every trial, and nothing reads them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A connection to Ray: trials of the wanted size that run at once, on machines that are there or can be started."""

    slots: int


@contextmanager
def connect(address: str | None, *, cpus_per_trial: float = 1.0, gpus_per_trial: float = 0.0) -> Iterator[Session]:
    """Connect to the cluster at ``address`` (``auto`` finds one; None starts Ray on this machine) and leave at the end.

    Raises `InputError` when no cluster answers there or no trial of the wanted size can ever run on it.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if address:
        check_address(address)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    ended = signal.getsignal(signal.SIGTERM)
    with _core_messages() if address else nullcontext(str) as said:
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
            raise InputError(_refused(address, error, said())) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ended)  # Ray's own handler would leave without a word
    try:
        # A cluster that grows with its work has less now than it can have; one that is there has what it has.
        machines = (_machines(), _machines_to_come())
        wanted = {"CPU": cpus_per_trial, "GPU": gpus_per_trial}
        slots = max(sum(_fit(wanted, resources) * count for resources, count in kind) for kind in machines)
        if slots < 1:
            raise InputError(_too_small(wanted, [resources for kind in machines for resources, _ in kind]))
        session = Session(slots)
        yield session
    finally:
        ray.shutdown()


@contextmanager
def _core_messages() -> Iterator[Callable[[], str]]:
    """Hold back what Ray's C++ core writes to stderr; the value reads it. A refused connection brings twenty lines."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace")
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _refused(address: str | None, error: Exception, said: str) -> str:
    if "Unauthenticated" in said or "authentication" in str(error).lower():
        return (
            f"the Ray cluster at {address!r} asks for a secret that this machine does not show; "
            "put its token into ~/.ray/auth_token and set RAY_AUTH_MODE=token"
        )
    reason = str(error).splitlines()[0]
    return f"no Ray cluster at {address!r} ({reason}); start one, or leave --address out"


def _machines() -> list[tuple[dict[str, float], int]]:
    """Resources of each machine that is there, once each."""
    import ray

    return [(node["Resources"], 1) for node in ray.nodes() if node["Alive"]]


def _machines_to_come() -> list[tuple[dict[str, float], int]]:
    """Resources of each kind of machine that the autoscaler knows, and how many of it there may be."""
    from ray._private.state import state

    config = state.get_cluster_config()
    return [(dict(kind.resources), kind.max_count) for kind in config.node_group_configs] if config else []


def _fit(wanted: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """Trials that one machine holds at once."""
    # The small number lets ten tenths of a GPU be a whole one.
    held = [int(resources.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount]
    return min(held, default=1)


def _too_small(wanted: Mapping[str, float], machines: Sequence[Mapping[str, float]]) -> str:
    largest = max(machines, key=lambda each: (each.get("GPU", 0.0), each.get("CPU", 0.0)), default={})
    return (
        f"a trial needs {wanted['CPU']:g} CPUs and {wanted['GPU']:g} GPUs on one machine, and the largest has "
        f"{largest.get('CPU', 0.0):g} CPUs and {largest.get('GPU', 0.0):g} GPUs; ask for less per trial or add machines"
    )


def check_address(address: str) -> None:
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
