"""A look at a cluster from the driver: does it answer, what is in use, by whom, and what its autoscaler does.

For the line that says why a sweep waits (`tuneopt.observe.waiting`). That line matters most when the cluster is broken,
and then Ray's own calls hang for minutes, or raise. So a plain socket is tried first, and Ray is asked on a thread that
may be left behind.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tuneopt.observe.waiting import Cluster

ANSWER_SECONDS = 5.0
"""How long the cluster's control service may take to accept a connection, and then to answer. It answers within
milliseconds; the driver does nothing else meanwhile."""


def look_at_cluster(machines: int = 0) -> Cluster:
    """What can be said of the cluster that this driver is connected to; never raises and never hangs.

    ``machines`` is the number of machines that were there when the run began; fewer now means that some died.
    """
    import ray

    address = str(ray.get_runtime_context().gcs_address)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        return Cluster(address, lost=str(error))
    look = within(ANSWER_SECONDS, lambda: _look(address, machines))
    return look or Cluster(address, lost=f"it accepts connections but gave no answer in {ANSWER_SECONDS:g} seconds")


def within(seconds: float, call: Callable[[], Cluster]) -> Cluster | None:
    """What ``call`` returns within ``seconds``; None when it takes longer or raises."""
    results: list[Cluster] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception:  # Ray raises many kinds; to the caller no answer is no answer
            return

    # A daemon: a call that never returns must not keep the driver from ending.
    thread = threading.Thread(target=run, daemon=True, name="cluster-look")
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def _look(address: str, machines: int) -> Cluster:
    import ray
    from ray._private.state import state  # what `ray list actors` shows, without the dashboard that it would ask

    alive = sum(bool(node["Alive"]) for node in ray.nodes())
    job = ray.get_runtime_context().get_job_id()
    actors = list(state.actor_table(None).values())
    return Cluster(
        address,
        free=usage(ray.cluster_resources(), ray.available_resources()),
        holders=holders(actors, state.job_table(), job),
        autoscaler=_autoscaler(address),
        dead=max(0, machines - alive),
    )


def usage(total: Mapping[str, float], free: Mapping[str, float]) -> str:
    """Such as ``4 of 4 CPU and 0 of 1 GPU in use``."""
    parts = [
        f"{total[name] - free.get(name, 0.0):g} of {total[name]:g} {name}" for name in ("CPU", "GPU") if total.get(name)
    ]
    return f"{' and '.join(parts)} in use" if parts else ""


def holders(actors: Sequence[Mapping[str, Any]], jobs: Sequence[Mapping[str, Any]], own: str) -> tuple[str, ...]:
    """Living actors of other drivers (not of the job ``own``), the most numerous first.

    A driver is named by its process: command lines may hold secrets of other users, and these words get into logs.
    """
    drivers = {job["JobID"]: f"process {job['DriverPid']} on {job['DriverIPAddress']}" for job in jobs}
    counts = Counter(
        (str(actor["ActorClassName"]), str(actor["JobID"]))
        for actor in actors
        if actor["State"] == "ALIVE" and actor["JobID"] != own
    )
    return tuple(
        f"{f'{count} actors' if count > 1 else 'an actor'} {name} of the driver {drivers.get(job, 'that has ended')}"
        for (name, job), count in counts.most_common()
    )


def _autoscaler(address: str) -> tuple[str, ...]:
    """What the autoscaler starts and what it failed to start; empty where there is none."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    status = get_cluster_status(address)
    starting = [f"{launch.count} x {launch.ray_node_type_name}" for launch in status.pending_launches]
    starting += [f"1 x {node.ray_node_type_name}" for node in status.pending_nodes]
    failed = [
        f"{launch.ray_node_type_name} ({launch.details or 'no reason given'})" for launch in status.failed_launches
    ]
    return (
        *([f"the autoscaler starts {', '.join(starting)}"] if starting else []),
        *([f"the autoscaler could not start {', '.join(failed[-3:])}"] if failed else []),  # it tries again: the newest
    )
