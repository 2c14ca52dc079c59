"""The cluster files are what Ray's own loader, Kubernetes' parser and bash accept, and open nothing to the internet."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CLUSTERS = ROOT / "clusters"
AUTOSCALED = [ROOT / "cluster.yaml", CLUSTERS / "on-premises.yaml"]


@pytest.fixture(params=AUTOSCALED, ids=lambda path: path.stem)
def cluster(request) -> dict:
    return yaml.safe_load(request.param.read_text())


@pytest.fixture
def aws() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def kubernetes() -> dict:
    return yaml.safe_load((CLUSTERS / "kubernetes.yaml").read_text())


def test_ray_accepts_it(cluster: dict) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(cluster)
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_the_head_of_aws_runs_no_trials_and_workers_come_and_go(aws: dict) -> None:
    assert aws["available_node_types"]["head"]["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in aws["available_node_types"]["head"]["node_config"]
    spot, full = aws["available_node_types"]["gpu-spot"], aws["available_node_types"]["gpu-on-demand"]
    assert spot["min_workers"] == 0 < spot["max_workers"] <= aws["max_workers"]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    # But for the price, the two are one machine: a trial may be resumed on either.
    same = {name: value for name, value in spot["node_config"].items() if name != "InstanceMarketOptions"}
    assert full["node_config"] == same and full["resources"] == spot["resources"] == {"CPU": 16, "GPU": 1}


def test_nobody_talks_to_ray_without_the_secret(cluster: dict) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [
        line
        for line in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
        if "ray start" in line
    ]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in line for line in starts)
    assert any("RAY_AUTH_MODE=token" in line for line in cluster["setup_commands"])


def test_the_dashboard_stays_on_the_head(cluster: dict) -> None:
    assert "--dashboard-host=127.0.0.1" in " ".join(cluster["head_start_ray_commands"])
    assert "security_group" not in cluster["provider"], "Ray's own group admits ssh alone"


def test_every_node_installs_this_checkout_at_pinned_versions(cluster: dict) -> None:
    assert cluster["file_mounts"]["~/tuneopt"] == "."
    assert any("-c ~/tuneopt/constraints.txt" in command for command in cluster["setup_commands"])


def test_machines_that_share_a_head_do_not_stop_it() -> None:
    local = yaml.safe_load((CLUSTERS / "on-premises.yaml").read_text())
    assert not any("ray stop" in line for line in local["worker_start_ray_commands"])
    assert local["min_workers"] == local["max_workers"] == len(local["provider"]["worker_ips"])


def test_kubernetes_pods_run_the_pinned_ray_behind_a_secret(kubernetes: dict) -> None:
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line.count("==") == 1
    )
    spec = kubernetes["spec"]
    assert kubernetes["kind"] == "RayCluster" and spec["rayVersion"] == pinned["ray"]
    assert f"rayproject/ray:{pinned['ray']}-" in (CLUSTERS / "Dockerfile").read_text()
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    workers = spec["workerGroupSpecs"]
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in workers)
    images = {
        container["image"]
        for group in (spec["headGroupSpec"], *workers)
        for container in group["template"]["spec"]["containers"]
    }
    assert len(images) == 1, "head and workers run the same code"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_reads_the_slurm_script() -> None:
    subprocess.run(["bash", "-n", str(CLUSTERS / "slurm.sh")], check=True)


SLURM = """
    scontrol: echo node-a; echo node-b
    srun: while [ "${1#-}" != "$1" ]; do case "$1" in -w) shift;; esac; shift; done; exec "$@"
    hostname: echo 10.1.2.3
    sleep: exit 0
    ray: echo "ray $*" >> "$LOG"
    tuneopt: echo "tuneopt $*" >> "$LOG"; trap 'echo stopped >> "$LOG"; exit 130' TERM; touch "$LOG.up"; I=0; \
        while [ -n "$LINGER" ] && [ $I -lt 600 ]; do /bin/sleep 0.05; I=$((I+1)); done; exit 3
"""


@pytest.fixture
def slurm_job(tmp_path: Path):
    """The SLURM script with programs of the cluster replaced by small scripts that write down how they were called."""
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for line in SLURM.replace("\\\n", " ").strip().splitlines():
        name, body = line.strip().split(": ", 1)
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    (tools / "python").symlink_to(shutil.which("python3") or "/usr/bin/python3")

    def start(**extra: str) -> subprocess.Popen:
        environment = {
            "PATH": "/usr/bin:/bin",
            "LOG": str(tmp_path / "log"),
            "LINGER": "",
            "TUNEOPT_HOME": str(tmp_path),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_NODELIST": "node-[a-b]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_ID": "41",
            **extra,
        }
        command = ["bash", str(CLUSTERS / "slurm.sh"), "tune", "--optimizer", "soap"]
        return subprocess.Popen(command, env=environment, cwd=tmp_path)

    return start, tmp_path / "log"


def test_a_slurm_job_starts_every_node_and_hands_its_words_on(slurm_job) -> None:
    start, log = slurm_job
    assert start().wait(timeout=30) == 3, "the exit code is the driver's"
    lines = log.read_text().splitlines()
    assert "tuneopt tune --optimizer soap --address 10.1.2.3:20041" in lines
    assert any(line.startswith("ray start --head") and "--port=20041" in line for line in lines)
    assert "ray start --address=10.1.2.3:20041 --block" in lines


def test_the_end_of_a_slurm_job_lets_the_driver_stop_by_itself(slurm_job) -> None:
    start, log = slurm_job
    job = start(LINGER="yes")
    up = log.with_name("log.up")
    for _ in range(600):
        if up.exists():
            break
        subprocess.run(["/bin/sleep", "0.05"], check=True)
    job.terminate()
    assert job.wait(timeout=30) == 130
    assert log.read_text().splitlines()[-1] == "stopped"
