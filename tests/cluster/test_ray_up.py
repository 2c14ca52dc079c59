"""``ray up`` with the file for own machines, a sweep on that cluster, ``ray down``: over real ssh, on this machine.

Two loopback addresses play the two machines. An ssh server of the test's own answers on both, with a home folder and
keys of the test's own, so that nothing outside the test's folder is read or written.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tuneopt.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
SSHD = shutil.which("sshd", path=f"/usr/sbin:{os.environ['PATH']}")
MISSING = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None] + ["sshd"] * (SSHD is None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (openssh-server, rsync)"),
    pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="this ssh server starts as root only"),
]


PINNED = ("weight_decay=0.1", "beta1=0.9", "beta2=0.95", "epsilon=1e-10", "max_grad_norm=1", "warmup=0.1")
SWEEP = [
    sys.executable, "-m", "tuneopt", "tune", "--optimizer", "adamw", "--ratio", "0.02", "--no-compile", "--json",
    "--replicates", "2", "--resolution", "0.3", "--grid", "learning_rate=0.004,0.016", "--set", "train_batch_size=16",
    *(word for pair in PINNED for word in ("--set", pair)),
]  # fmt: skip


RAY_OF_ONE_SITE = """
import os, sys, psutil
from ray.scripts.scripts import main

if sys.argv[1:2] != ["stop"]:
    sys.exit(main())
mine, spared = [], {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
for process in psutil.process_iter():
    try:
        if process.pid not in spared and process.environ().get("SITE") == os.environ["SITE"]:
            mine.append(process)
    except psutil.Error:
        continue
for process in mine:
    process.terminate()
for process in psutil.wait_procs(mine, timeout=3)[1]:
    process.kill()
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Site:
    """A home folder with keys and a secret, and an ssh server that leads there."""

    home: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.home}/bin:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"HOME": str(self.home), "PATH": path, "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}

    def run(self, *words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        environment = {**self.environment, "PYTHONPATH": str(ROOT)}
        return subprocess.run(words, env=environment, cwd=self.home, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    home = tmp_path / "home"
    home.mkdir()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / key)], check=True)
    site = Site(home, free_port())
    # Ray asks for port 22 and, on the head, for a key in the account's own home: this leads it to the test's server.
    (home / "bin").mkdir()
    (home / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -p {site.port} -i {home / "user"} "$@"\n')
    (home / "bin" / "ssh").chmod(0o755)
    # `ray down` says `ray stop` on every machine, which would stop whatever Ray runs on this one: here, only its own.
    (home / "bin" / "ray").write_text(f"#!{sys.executable}\n{RAY_OF_ONE_SITE}")
    (home / "bin" / "ray").chmod(0o755)
    # What the file's setup commands leave on a machine: a login shell that finds the environment's programs.
    (home / ".bashrc").write_text(f"export PATH={site.environment['PATH']} RAY_AUTH_MODE=token\n")
    settings = {
        "Port": site.port,
        "HostKey": home / "host",
        "PidFile": home / "sshd.pid",
        "AuthorizedKeysFile": home / "user.pub",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "yes",
        "SetEnv": " ".join(f"{name}={value}" for name, value in (site.environment | {"SITE": site.port}).items()),
    }
    lines = [f"{name} {value}" for name, value in settings.items()]
    lines += [f"ListenAddress 127.0.0.{machine}" for machine in (1, 2)]
    (home / "sshd_config").write_text("\n".join(lines) + "\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    assert SSHD is not None
    server = subprocess.Popen([SSHD, "-D", "-f", str(home / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        yield site
    finally:
        server.terminate()
        server.wait(timeout=30)


def cluster_file(site: Site, port: int) -> Path:
    """The project's own file, with addresses, keys and ports of this test; nothing to install."""
    plain = yaml.safe_load((ROOT / "clusters" / "on-premises.yaml").read_text())
    plain["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": ["127.0.0.2"]}
    plain["min_workers"] = plain["max_workers"] = 1
    plain["auth"] = {"ssh_user": "root", "ssh_private_key": str(site.home / "user")}
    plain["cluster_name"] = f"tuneopt-test-{port}"
    plain["file_mounts"], plain["setup_commands"] = {}, []
    for starts in ("head_start_ray_commands", "worker_start_ray_commands"):
        plain[starts] = [
            line.replace("6379", str(port)).replace("ray start", "ray start --num-cpus=1 --disable-usage-stats")
            for line in plain[starts]
            if line != "ray stop"  # it would stop any Ray of this machine
        ]
    path = site.home / "cluster.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def left_behind(site: Site) -> list[str]:
    """Words of the processes that were started through the test's ssh server, Ray's among them, and still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SITE") == str(site.port) and "ray" in " ".join(process.cmdline()):
                found.append(" ".join(process.cmdline())[:200])
        except psutil.Error:
            continue
    return found


def test_a_sweep_on_a_cluster_that_ray_up_brought_up(site: Site, text_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    cluster = cluster_file(site, port)
    generated = site.run("ray", "get-auth-token", "--generate")
    assert generated.returncode == 0 and (site.home / ".ray" / "auth_token").is_file(), generated.stderr
    try:
        up = site.run("ray", "up", "--yes", "--no-config-cache", str(cluster))
        assert up.returncode == 0, up.stdout[-3000:] + up.stderr[-3000:]
        wait_for_nodes(site, port, 2)
        words = [*SWEEP, "--corpus", str(text_folder), "--address", f"127.0.0.1:{port}", "--ledger"]
        ledger = tmp_path / "ledger"
        done = site.run(*words, str(ledger))
        assert done.returncode == 0, done.stderr[-3000:]
        summary = json.loads(done.stdout)
        assert summary["certificate"]["complete"] and summary["trials"]["failed"] == 0
        assert len(list(Ledger(ledger).records())) == summary["trials"]["run"] > 0

        (site.home / ".ray" / "auth_token").write_text("0" * 64)
        stranger = site.run(*words, str(tmp_path / "other"))
        assert stranger.returncode == 2, stranger.stderr[-3000:]
        assert stranger.stderr.count("\n") == 1 and "asks for a secret" in stranger.stderr
    finally:
        down = site.run("ray", "down", "--yes", str(cluster))
    assert down.returncode == 0, down.stdout[-3000:] + down.stderr[-3000:]
    deadline = time.monotonic() + 60
    while left_behind(site) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left_behind(site) == []


def wait_for_nodes(site: Site, port: int, count: int) -> None:
    """Until the head knows of ``count`` machines: its worker is started by the head itself."""
    words = (
        f"import ray; ray.init('127.0.0.1:{port}', log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
    )
    deadline = time.monotonic() + 120
    while True:
        answer = site.run(sys.executable, "-c", words)
        if answer.stdout.strip().endswith(str(count)):
            return
        assert time.monotonic() < deadline, answer.stdout[-2000:] + answer.stderr[-2000:]
        time.sleep(1)
