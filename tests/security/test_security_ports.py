"""Ray started on this machine listens on loopback alone; a cluster that was asked for is not touched by that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneopt.cluster import session

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")

LISTENING = """
import json, os, psutil
from tuneopt.cluster.session import connect
with connect(None) as held:
    import ray

    @ray.remote
    def worker():
        return os.getpid()

    workers = set(ray.get([worker.remote() for _ in range(2)]))
    me = psutil.Process()
    found, seen = [], set()
    for process in [me, *me.children(recursive=True)]:
        seen.add(process.pid)
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN or (connection.type == 2 and connection.laddr):
                found.append((process.name(), connection.laddr.ip, connection.laddr.port))
    print(json.dumps({"found": found, "workers": len(workers & seen), "slots": held.slots}))
"""


@pytest.mark.slow
def test_every_port_of_a_local_run_is_on_loopback(tmp_path: Path) -> None:
    import json

    done = subprocess.run(
        [sys.executable, "-c", LISTENING], cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    names = {name for name, _, _ in told["found"]}
    assert {"gcs_server", "raylet"} <= names and told["workers"] >= 1, "Ray's own processes were looked at"
    assert [each for each in told["found"] if each[1] not in LOOPBACK] == []


RANKS = """
import json, sys
from tuneopt.cluster.session import connect

def rank(config):
    import psutil, torch
    from ray import train
    word = torch.tensor([1.0])
    torch.distributed.all_reduce(word)
    listening = [
        connection.laddr[:2] for connection in psutil.Process().net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    gathered = [None, None]
    torch.distributed.all_gather_object(gathered, (float(word), listening))
    if train.get_context().get_world_rank() == 0:
        with open(config["out"], "w") as file:
            json.dump(gathered, file)

with connect(None):
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from tuneopt.cluster.ray_fixes.rendezvous import BoundTorchConfig
    TorchTrainer(
        rank, train_loop_config={"out": sys.argv[1]}, torch_config=BoundTorchConfig(timeout_s=60),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="ranks", storage_path=sys.argv[2]),
    ).fit()
"""


@pytest.mark.slow
def test_every_port_of_ranks_on_one_machine_is_on_loopback(tmp_path: Path) -> None:
    import json

    done = subprocess.run(
        [sys.executable, "-c", RANKS, str(tmp_path / "out.json"), str(tmp_path)], cwd=tmp_path, capture_output=True,
        text=True, timeout=300, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = json.loads((tmp_path / "out.json").read_text())
    assert [word for word, _ in ranks] == [2.0, 2.0], "the ranks met, and sum over both"
    ports = [place for _, listening in ranks for place in listening]
    assert len(ports) >= 3, "rank 0's store and the two workers' own"
    assert [place for place in ports if place[0] not in LOOPBACK] == []


def test_the_switch_holds_only_while_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._private import ray_constants

    name, seen = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, []

    def init(**options: object) -> None:
        seen.append((os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER, options["address"]))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "_machines", lambda: [({"CPU": 2.0}, 1)])
    monkeypatch.setattr(session, "_machines_to_come", list)
    monkeypatch.setattr(session, "check_address", lambda address: None)
    monkeypatch.delenv(name, raising=False)
    before = ray_constants.ENABLE_RAY_CLUSTER
    for address in (None, "local", "10.0.0.1:6379"):
        with session.connect(address):
            assert before == ray_constants.ENABLE_RAY_CLUSTER and name not in os.environ
    assert seen == [("0", False, "local"), ("0", False, "local"), (None, before, "10.0.0.1:6379")]


def test_the_dashboard_stays_off_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    asked: list[object] = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options["include_dashboard"]))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "_machines", lambda: [({"CPU": 2.0}, 1)])
    monkeypatch.setattr(session, "_machines_to_come", list)
    with session.connect(None):
        pass
    assert asked == [False]
