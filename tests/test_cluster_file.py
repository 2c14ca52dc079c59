"""`cluster.yaml` is what Ray's own loader accepts, and opens nothing to the internet."""

from pathlib import Path

import pytest
import yaml

CLUSTER = Path(__file__).resolve().parents[1] / "cluster.yaml"


@pytest.fixture(scope="module")
def cluster() -> dict:
    return yaml.safe_load(CLUSTER.read_text())


def test_ray_accepts_it(cluster: dict) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(cluster)
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_the_head_runs_no_trials_and_workers_come_and_go(cluster: dict) -> None:
    assert cluster["available_node_types"]["head"]["resources"] == {"CPU": 0}
    gpu = cluster["available_node_types"]["gpu"]
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= cluster["max_workers"]
    assert gpu["resources"]["GPU"] >= 1


def test_the_dashboard_stays_on_the_head(cluster: dict) -> None:
    starts = " ".join(cluster["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in starts
    assert "security_group" not in cluster["provider"], "Ray's own group admits ssh alone"


def test_every_node_installs_this_checkout_at_pinned_versions(cluster: dict) -> None:
    assert cluster["file_mounts"] == {"~/tuneopt": "."}
    assert any("-c ~/tuneopt/constraints.txt" in command for command in cluster["setup_commands"])
