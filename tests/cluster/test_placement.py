"""Where trials go on a real cluster of three nodes: what fits, what never can, who shares it, and how many at once."""

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tuneopt.cluster.session import connect
from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.spec import InputError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NODES = ({"num_cpus": 1, "num_gpus": 0}, {"num_cpus": 2, "num_gpus": 2}, {"num_cpus": 1, "num_gpus": 1})
"""Four CPUs and three GPUs that nobody computes on: trials here ask for them, and train on the CPU."""

SWEEP = [
    "--scale", "nano-65k", "--ratio", "0.02", "--no-compile", "--replicates", "1", "--json", "--set", "beta1=0.9",
    "--set", "beta2=0.95", "--set", "epsilon=1e-8", "--set", "max_grad_norm=1", "--set", "warmup=0.1",
    "--set", "train_batch_size=16", "--set", "weight_decay=0.1",
]  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args=dict(NODES[0]))
    try:
        for node in NODES[1:]:
            cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little text, so that preparing it costs nothing."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfwypvb", k=rng.randint(2, 9))) for _ in range(4000)]
    rows = (" ".join(rng.choices(words, k=200)) for _ in range(1500))
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n<|endoftext|>\n".join(rows))
    return path


@pytest.mark.parametrize(
    ("cpus", "gpus", "slots"),
    [(1, 0, 4), (0.5, 0, 8), (2, 0, 1), (1, 0.5, 3), (0.25, 0.25, 12), (0.1, 0.3, 9), (1, 1, 3), (1, 2, 1)],
)
def test_what_fits_is_counted_node_by_node(address: str, cpus: float, gpus: float, slots: int) -> None:
    with connect(address, cpus_per_trial=cpus, gpus_per_trial=gpus) as session:
        assert session.slots == slots


@pytest.mark.parametrize(
    ("cpus", "gpus", "said"),
    [
        (1, 3, "needs 1 CPUs and 3 GPUs on one machine, and the largest has 2 CPUs and 2 GPUs"),
        (3, 0, "needs 3 CPUs and 0 GPUs on one machine"),
        (2.5, 0.5, "needs 2.5 CPUs and 0.5 GPUs on one machine"),
    ],
)
def test_what_no_node_can_ever_hold_is_refused_at_once(address: str, cpus: float, gpus: float, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=said):
        connect(address, cpus_per_trial=cpus, gpus_per_trial=gpus).__enter__()
    assert time.monotonic() - began < 60, "all three nodes have four CPUs together, and nobody waits for that"


def start(address: str, text: Path, folder: Path, optimizer: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tuneopt", "tune", "-O", optimizer, "--corpus", str(text), "--address", address]
    return subprocess.Popen(
        [*command, *SWEEP, "--ledger", "ledger", *more], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_command_refuses_what_no_node_holds(address: str, text: Path, tmp_path: Path) -> None:
    out, err = (asked := start(address, text, tmp_path, "adamw", "--gpus-per-trial", "3")).communicate(timeout=200)
    assert asked.returncode == 2, err
    assert out == "" and len(err.splitlines()) == 1 and "needs 1 CPUs and 3 GPUs" in err
    assert list(tmp_path.rglob("*")) == [], "what is refused leaves nothing behind"


def span(record: TrialRecord) -> tuple[float, float]:
    return datetime.fromisoformat(record.started).timestamp(), datetime.fromisoformat(record.ended).timestamp()


def test_one_at_a_time(address: str, text: Path, tmp_path: Path) -> None:
    grid = ("--grid", "learning_rate=0.004,0.008,0.016", "--max-concurrent", "1")
    out, err = (asked := start(address, text, tmp_path, "adamw", *grid)).communicate(timeout=280)
    assert asked.returncode in (0, 3), err
    assert json.loads(out)["trials"]["failed"] == 0
    spans = sorted(map(span, Ledger(tmp_path / "ledger").records()))
    assert len(spans) >= 3
    # Times are in whole seconds.
    assert all(ended <= following + 1 for (_, ended), (following, _) in itertools.pairwise(spans)), spans


def test_two_sweeps_share_a_cluster_and_a_ledger(address: str, text: Path, tmp_path: Path) -> None:
    grid = ("--grid", "learning_rate=0.004,0.008", "--gpus-per-trial", "0.5")
    asked = [start(address, text, tmp_path, name, *grid) for name in ("adamw", "nadamw")]
    told = [each.communicate(timeout=500) for each in asked]
    for each, (out, err) in zip(asked, told, strict=True):
        assert each.returncode in (0, 3), err
        assert json.loads(out)["trials"]["failed"] == 0
    ledger = Ledger(tmp_path / "ledger")
    records = list(ledger.records())
    assert {record.spec.optimizer for record in records} == {"adamw", "nadamw"}
    assert sorted(plain["space"]["optimizer"] for plain in ledger.sweeps().values()) == ["adamw", "nadamw"]
    assert ledger.verify() == []
    assert all(record.proof_passed for record in records), "each trial ran its own optimizer"
