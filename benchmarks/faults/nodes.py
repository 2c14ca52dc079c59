"""Three Ray nodes on this machine, in a process of their own: a head without slots, and two nodes with one each.

Run as a script it is that process: it prints its address, then takes ``remove``, ``raylet`` and ``add`` on stdin.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil


class Nodes:
    """The cluster, from outside."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.address = str(self._answer()["address"])

    def ask(self, word: str) -> dict[str, Any]:
        """Let the cluster do something; what it answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError("the cluster's process ended")

    def close(self) -> None:
        """End the cluster and all its processes."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.kill()
        for each in family:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=30)
        self.process.wait()
        self._log.close()


def serve() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    print(json.dumps({"address": cluster.address}), flush=True)
    for line in sys.stdin:
        word, _, number = line.strip().partition(" ")
        if word == "add":
            while len(workers) < 2:
                workers.append(cluster.add_node(num_cpus=1))
            answer: dict[str, Any] = {"nodes": len(workers)}
        else:
            node = workers[int(number) % len(workers)]
            raylet = node.all_processes["raylet"][0].process.pid
            answer = {"raylet": raylet}
            if word == "remove":
                workers.remove(node)
                cluster.remove_node(node, allow_graceful=False)
            elif word == "kill":
                workers.remove(node)
                os.kill(raylet, signal.SIGKILL)
                cluster.remove_node(node, allow_graceful=False)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
