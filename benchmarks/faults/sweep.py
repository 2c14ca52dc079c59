"""The command that is disturbed: a small study of real training, started again after every end as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from faults.world import World

STUDY = """
name: chaos
optimizers:
  adamw:
    set: {beta1: 0.9, beta2: 0.95, epsilon: 1e-10, max_grad_norm: 1, warmup: 0.1, train_batch_size: 16}
    grid: {learning_rate: [0.004, 0.016], weight_decay: [0, 0.1]}
  lion:
    set: {weight_decay: 0.5, beta1: 0.9, beta2: 0.95, max_grad_norm: 1, warmup: 0.1, train_batch_size: 16}
    grid: {learning_rate: [0.0005, 0.002]}
scales: [nano-65k]
ratios: [RATIO]
corpus: embedded
phase_1: {regimes: {nano-65k: [RATIO]}}
replicates: 2
evaluation: {points: 8, curve_sequences: 16, final_sequences: 64}
compile: false
"""

PAUSE = 0.5
"""Seconds between checkpoints."""

HEARTBEAT = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
"""Ray declares a node dead after about ten silent seconds here, and not after more than a minute."""

SILENT = 14.0
"""Seconds that a paused process stays silent: past that heartbeat."""

HERE = Path(__file__).parent


class Run:
    """One study in one ledger, and the processes that work on it."""

    def __init__(self, folder: Path, ledger: Path, cache: Path, ratio: float, backend: str = "ray") -> None:
        self.folder, self.ledger, self.cache, self.backend = folder, ledger, cache, backend
        self.address: str | None = None
        self.world: World | None = None
        self.fresh = 0
        self.eyes = Path("/dev/shm") / f"chaos-{os.getpid()}-{folder.name}"
        self.eyes.mkdir(parents=True, exist_ok=True)
        self.file = folder / "chaos.yaml"
        self.file.write_text(STUDY.replace("RATIO", f"{ratio:g}"))
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.ends: list[dict[str, Any]] = []

    @property
    def environment(self) -> dict[str, str]:
        paths = [str(HERE / "eyes"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            **HEARTBEAT,
            **(self.world.environment if self.world else {}),
            "PYTHONPATH": os.pathsep.join(paths),
            "TUNEOPT_CHAOS_EYES": str(self.eyes),
            "TUNEOPT_CHECKPOINT_SECONDS": str(PAUSE),
            "TUNEOPT_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
        }

    def start(self) -> None:
        """Run the command; it is the same each time. Lives older than ``fresh`` are of orphans."""
        command = [sys.executable, "-m", "tuneopt", "study", "run", str(self.file), "--ledger", str(self.ledger)]
        command += ["--json", "-o", str(self.folder / "report.html"), "--backend", self.backend]
        command += ["--address", self.address] if self.address else []
        self.starts += 1
        self.fresh = time.monotonic_ns()
        out = (self.folder / f"out-{self.starts}.json").open("wb")
        err = (self.folder / f"err-{self.starts}.txt").open("wb")
        with out, err:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=out, stderr=err, start_new_session=True
            )

    @property
    def code(self) -> int | None:
        """How the command ended; None while it runs."""
        assert self.process is not None
        return self.process.poll()

    def note_end(self) -> dict[str, Any]:
        """Remember how the command ended: its exit code and the last line it said."""
        lines = (self.folder / f"err-{self.starts}.txt").read_text(errors="replace").strip().splitlines()
        said = lines[-1][:300] if lines else ""
        end = {"code": self.code, "said": said, "traceback": any("Traceback" in line for line in lines)}
        self.ends.append(end)
        return end

    def answer(self) -> dict[str, Any]:
        """What the last run of the command printed."""
        document: dict[str, Any] = json.loads((self.folder / f"out-{self.starts}.json").read_text())
        return document

    def kill(self) -> None:
        """SIGKILL of the driver alone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def again(self) -> None:
        """Kill the driver and run the command again."""
        self.kill()
        self.note_end()
        self.start()

    def family(self) -> list[psutil.Process]:
        """Every process below the driver."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def part_of_ray(self, name: str) -> psutil.Process | None:
        """The ``raylet`` or ``gcs_server`` of a local run."""
        return next((each for each in self.family() if _name(each) == name), None)

    def close(self) -> None:
        """End what is left of this run."""
        family = self.family()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for each in family:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        if self.world is not None:
            self.world.close()
        for path in self.eyes.iterdir():
            path.unlink()
        self.eyes.rmdir()


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def wait(condition: Any, seconds: float, pause: float = 0.05) -> bool:
    """Whether ``condition()`` came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
