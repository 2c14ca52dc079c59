"""Connecting to Ray: a cluster by its address, or this machine.

`connect` is the one way in. It tells Ray to be quiet, starts or finds it, counts how many trials it can ever hold at
once, and takes everything back at the end. What it works around in Ray 2.60 stands in `tuneopt.cluster.ray_fixes`. A
request that can never be met is refused here in one sentence: Ray itself would wait for machines for ever.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tuneopt.cluster.ray_fixes.access import guard_token, loopback
from tuneopt.cluster.ray_fixes.folder import scratch
from tuneopt.cluster.ray_fixes.lost import alive_before_connecting, own_signals, watching
from tuneopt.cluster.ray_fixes.output import core_messages, messages_to_log
from tuneopt.errors import why
from tuneopt.spec import InputError
from tuneopt.training.config import HIDDEN, PAUSE_VARIABLE

WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""One thread for each trial: OpenMP's spinning collapses when two processes want the same cores. The number of threads
also orders sums, so that it must not follow from a machine's cores."""

CONNECT_SECONDS = 5.0
"""How long a cluster may take to accept a connection, and then to say its first word; Ray tries for minutes."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
"""How a client of HTTP/2, and so of gRPC, which Ray speaks, begins: the preface and empty settings (RFC 9113, 3.4)."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
    "RAY_DEDUP_LOGS": "0",  # it would hold lines back to count repeats
    # Ray 2.60 warns at each start about what this will mean one day (ray-project/ray, pull request 54928).
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a CSV, a JSON and a TensorBoard file for each trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours: Tune's first one would wait for the running trials
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # Tune's own snapshots grow with every trial, and nothing reads them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",  # a warning about those snapshots
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's table of trials, on stdout
    "RAY_ROTATION_MAX_BYTES": str(16 << 20),  # of each of Ray's log files; a long run would fill the disk with them
    "RAY_ROTATION_BACKUP_COUNT": "2",
}
"""Ray's switches for a run; what a user has set stays."""


def worker_environment(gpus_per_trial: float) -> dict[str, str]:
    """What every worker finds in its environment: one thread, and the driver's own pause between checkpoints.

    A worker inherits the environment of Ray's daemon, which on a cluster is another machine's. Where trials take no
    GPU, none is to be seen: Ray hides GPUs from no worker that asked for none, and each would then train on the first.
    """
    pause = os.environ.get(PAUSE_VARIABLE)
    hidden = {} if gpus_per_trial else HIDDEN
    return {**WORKER_ENVIRONMENT, **hidden, **({PAUSE_VARIABLE: pause} if pause else {})}


@dataclass(frozen=True, slots=True)
class Session:
    """A connection to Ray: trials of the wanted size that run at once, on machines that are there or can be started."""

    slots: int
    gpus: int
    """GPUs of the machines that are there, whether or not trials take any."""


@contextmanager
def connect(
    address: str | None,
    *,
    cpus_per_trial: float = 1.0,
    gpus_per_trial: float = 0.0,
    ranks: Collection[int] = (1,),
    together: bool = False,
) -> Iterator[Session]:
    """Connect to the cluster at ``address`` (``auto`` finds one; None starts Ray on this machine) and leave at the end.

    A trial takes its CPUs and GPUs once per rank; ``ranks`` are the numbers of ranks that trials have, ``together``
    keeps those of one trial on one machine. Slots are counted for the fewest. Raises `InputError` when no cluster
    answers there or the largest trial can never run on it.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if address:
        check_address(address)
    address = None if address == "local" else address  # Ray's own word for what is the default here
    import ray  # after the settings: Ray reads some of them when it is imported

    logging.getLogger("ray").setLevel(logging.ERROR)
    # Order: messages go to the log before Ray says its first word; the folder's janitor must be there before Ray's
    # processes are; the token must be private before Ray reads it. At the end all of it goes after `ray.shutdown`.
    clearing = ExitStack()
    clearing.enter_context(messages_to_log())
    folder = None if address else clearing.enter_context(scratch())
    if not address:
        guard_token()
    with clearing, watching(local=not address) as watch:
        try:
            _start(address, folder, worker_environment(gpus_per_trial))
            watch.started = True
            # A cluster that grows with its work has less now than it can have; one that is there has what it has.
            machines = (_machines(), _machines_to_come())
            wanted = {"CPU": cpus_per_trial, "GPU": gpus_per_trial}
            # How many trials fit at once, by their number of ranks; that of 1 tells which of two sentences is right.
            room = {size: max(_trials(wanted, size, kind, together) for kind in machines) for size in {*ranks, 1}}
            if not room[1]:
                raise InputError(_too_small(wanted, [resources for kind in machines for resources, _ in kind]))
            if not room[max(ranks)]:
                raise InputError(_too_few(wanted, max(ranks), machines, together))
            # Slots by what can be there, or nothing would ask an autoscaler to start it; GPUs by what is there now.
            gpus = sum(resources.get("GPU", 0.0) * count for resources, count in machines[0])
            yield Session(room[min(ranks)], int(gpus))
        except KeyboardInterrupt:
            # Where Ray is gone the watch interrupts this thread: Tune would wait for ever (`ray_fixes.lost`).
            if not watch.lost:
                raise
        finally:
            watch.rest()
            ray.shutdown()
        if watch.lost:
            raise InputError(watch.lost)


_NO_FAULT = re.compile(r"\s|$|\[[\d :,.-]+I |.*\bRaylet is terminated\b")
"""How lines of Ray's logs begin that tell no cause. Its core marks what reports no fault with an I, such as
``[2026-11-29 10:43:58,202 I 8787 8818]``. Its agents note that the raylet is dead, and quote its log, indented: the
raylet's last words, whatever they are, and not why it died (``process_watcher.py``)."""


def _start(address: str | None, folder: Path | None, environment: Mapping[str, str]) -> None:
    """Start Ray in ``folder``, or connect to ``address``; raises `InputError` where that fails."""
    import ray

    # Signals stay ours: Ctrl-C means the same while Ray starts. `core_said` gives what Ray's core printed: only there
    # stands that a cluster wants a secret. A local Ray listens on the loopback address alone while it starts.
    with core_messages() if address else loopback() as core_said, own_signals(), alive_before_connecting():
        try:
            if address == "auto":
                address = _running_here()
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,  # a cluster's dashboard is its own
                configure_logging=False,  # the driver's own logging stays as it is
                log_to_driver=False,  # workers write into their trials' logs
                logging_level=logging.ERROR,
                runtime_env={"env_vars": dict(environment)},
                _temp_dir=str(folder) if folder else None,
            )
        except BaseException as error:
            # Ray's words for what is wrong with a machine or an address are of many types, the plain one among them.
            reason = _refused(address, error, core_said()) if address else _not_started(error, folder)
            with suppress(Exception):
                ray.shutdown()
            if not isinstance(error, Exception) or isinstance(error, InputError):  # Ctrl-C
                raise
            raise InputError(reason) from None


def _not_started(error: BaseException, folder: Path | None) -> str:
    """Why Ray did not start on this machine, and what may help.

    What it wrote into its logs says more than its exception, which names files that are gone when anybody reads it.
    """
    reason = (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
    if isinstance(error, OSError) and error.filename:
        reason = f"{error.filename}: {why(error)}"
    # The last words of the last log that tells a fault.
    for log in sorted(folder.glob("session_*/logs/*.err")) if folder else ():
        lines = [line for line in log.read_text(errors="replace").splitlines() if not _NO_FAULT.match(line)]
        reason = f"{log.stem}: {lines[-1].strip()}" if lines else reason
    text = f"{reason} {error}"  # Ray raises plain exceptions here: only their words tell what to mend
    if "AF_UNIX" in text or "socket" in text.lower():
        mend = "set RAY_TMPDIR to a short absolute path"
    elif "space" in text or "shm" in text:
        mend = "make room in /dev/shm and in the folder for temporary files"
    elif isinstance(error, OSError) and error.filename:
        mend = "let this user write there (HOME and TMPDIR say where)"
    else:
        mend = "end what is left of other Ray processes, see that memory is free, and run the same command again"
    return f"Ray could not be started on this machine ({reason}); {mend}, or take --backend inline, which needs no Ray"


def _running_here() -> str:
    """The address that ``auto`` stands for; raises `InputError` where nothing is running there."""
    from ray._private.services import canonicalize_bootstrap_address

    address = canonicalize_bootstrap_address("auto")
    if address is None:
        raise InputError(
            "no Ray cluster runs on this machine; start one with `ray start --head`, or leave --address out"
        )
    check_address(address, "auto, which stands for ")
    return str(address)


def _refused(address: str | None, error: BaseException, said: str) -> str:
    # Depending on who notices first, the secret is missed in Ray's core or in Python, in different words.
    if "Unauthenticated" in said or "authentication" in str(error).lower():
        return (
            f"the Ray cluster at {address!r} asks for a secret that this machine does not show; "
            "put its token into ~/.ray/auth_token and set RAY_AUTH_MODE=token"
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
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
    """Trials (or ranks) that one machine holds at once, by what is scarcest."""
    # The small number lets ten tenths of a GPU be a whole one.
    counts = [int(resources.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount]
    return min(counts, default=1)


def _trials(
    wanted: Mapping[str, float], ranks: int, machines: Sequence[tuple[Mapping[str, float], int]], together: bool
) -> int:
    """Trials of that many ranks that the machines hold at once; ``machines`` are resources and how many have them."""
    if together:  # what is left over on one machine does not add up with what is left over on another
        return sum(_fit(wanted, resources) // ranks * count for resources, count in machines)
    return sum(_fit(wanted, resources) * count for resources, count in machines) // ranks


def _too_few(
    wanted: Mapping[str, float],
    ranks: int,
    machines: Sequence[Sequence[tuple[Mapping[str, float], int]]],
    together: bool,
) -> str:
    per_rank = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
    if together:
        most = max((_fit(wanted, resources) for kind in machines for resources, _ in kind), default=0)
        where = (
            f"one machine, where its checkpoints are, and the largest holds {most}; use fewer ranks, larger machines, "
            "or a ledger in a folder that all machines share"
        )
    else:
        most = max(_trials(wanted, 1, kind, together) for kind in machines)
        where = f"the cluster, and all its machines hold {most}; use fewer ranks or add machines"
    return f"a trial on {ranks} ranks needs {ranks} times {per_rank} on {where}"


def _too_small(wanted: Mapping[str, float], machines: Sequence[Mapping[str, float]]) -> str:
    largest = max(machines, key=lambda resources: (resources.get("GPU", 0.0), resources.get("CPU", 0.0)), default={})
    return (
        f"a trial needs {wanted['CPU']:g} CPUs and {wanted['GPU']:g} GPUs on one machine, and the largest has "
        f"{largest.get('CPU', 0.0):g} CPUs and {largest.get('GPU', 0.0):g} GPUs; ask for less per trial or add machines"
    )


def check_address(address: str, what: str = "") -> None:
    """Raise `InputError` soon when nothing listens at ``host:port``, or nobody answers; Ray would try for minutes.

    ``what`` the address is stands before it in errors.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    if address == "auto" and named not in ("", "auto", "local"):  # soon, before anything is prepared for a run
        address, what = named, "auto, which stands for "
    match = re.fullmatch(r"(?:ray://)?(?P<host>[^:/]+|\[[^]]+\]):(?P<port>\d{1,5})", address)
    if match is None:
        if address not in ("auto", "local"):
            raise InputError(f"--address {address!r} is no Ray cluster; give host:port, ray://host:port or auto")
        return
    try:
        with socket.create_connection((match["host"].strip("[]"), int(match["port"])), CONNECT_SECONDS) as line:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return  # it waits for a handshake first, which is Ray's to make
            line.settimeout(CONNECT_SECONDS)
            line.sendall(PREFACE)
            answer = line.recv(9)  # the head of a frame, settings from a server that speaks HTTP/2
    except TimeoutError:
        raise InputError(
            f"no Ray cluster at {what}{address!r} (nothing answered for {CONNECT_SECONDS:g} s); check the address, and "
            "that the head node is well"
        ) from None
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {what}{address!r} ({error}); start one, or leave --address out") from None
    # Ray's control service speaks gRPC, that is HTTP/2: byte 3 of a frame is its kind, and the first one is settings
    # (4).
    if len(answer) < 4 or answer[3] != 4:
        raise InputError(f"no Ray cluster at {what}{address!r} (another program answers there); check the address")
