"""The faults themselves: each finds its victim among what is running, does its harm, and says what it did."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from faults.lives import Life, lives
from faults.nodes import Nodes
from faults.sweep import SILENT, Run, wait
from faults.world import ERRORS

Harm = Callable[["Scene"], str]


class Scene:
    """What a fault can reach: the run, the cluster below it where there is one, and the disk of its ledger."""

    def __init__(self, run: Run, nodes: Nodes | None, disk: Path | None) -> None:
        self.run, self.nodes, self.disk = run, nodes, disk
        self.source = random.Random(0)

    def training(self) -> list[Life]:
        """The lives under way, of this moment."""
        return [life for life in lives(self.run.eyes) if life.alive]

    def victim(self) -> Life | None:
        found = self.training()
        return self.source.choice(found) if found else None


def harm(kind: str, scene: Scene) -> str:
    """Do the harm of ``kind``; what was done, or nothing when its victim was gone already."""
    return _HARMS[kind](scene)


def _kill_worker(scene: Scene) -> str:
    life = scene.victim()
    if life is None:
        return ""
    os.kill(life.pid, signal.SIGKILL)
    return f"worker of {life.trial} at step {life.step}"


def _kill_driver(scene: Scene) -> str:
    scene.run.kill()
    return "driver"


def _kill_raylet(scene: Scene) -> str:
    raylet = scene.run.part_of_ray("raylet")
    if raylet is None:
        return ""
    raylet.kill()
    return "raylet"


def _of_a_node(word: str) -> Harm:
    def act(scene: Scene) -> str:
        assert scene.nodes is not None
        scene.nodes.ask(f"{word} {scene.source.randrange(2)}")
        time.sleep(scene.source.uniform(2, 8))  # the sweep goes on with what is left
        scene.nodes.ask("add")
        return f"{word} of one of two nodes with slots, put back later"

    return act


def _truncate(path: Path, scene: Scene) -> str:
    size = path.stat().st_size
    kept = scene.source.choice([0, size // 3, max(0, size - 1), scene.source.randrange(size) if size else 0])
    with path.open("rb+") as file:
        file.truncate(kept)
    return f"{path.name} to {kept} of {size} bytes"


def _damage(choose: Callable[[Scene], Path | None]) -> Harm:
    """Truncate a file while everything runs, or between a kill of the driver and its next start."""

    def act(scene: Scene) -> str:
        between = scene.source.random() < 0.5
        wait(lambda: choose(scene) is not None or scene.run.code is not None, 20)
        if between:
            scene.run.kill()
        path = choose(scene)
        try:
            done = _truncate(path, scene) if path else ""
        except FileNotFoundError:
            done = ""
        return f"{done}, {'between kill and start' if between else 'while running'}" if done else ""

    return act


def _newest_checkpoint(scene: Scene) -> Path | None:
    found = {path: _modified(path) for path in scene.run.ledger.glob("checkpoints/*/step-*.pt")}
    return max(found, key=lambda path: found[path]) if found else None


def _truncate_checkpoint(scene: Scene) -> str:
    """A checkpoint that nobody reads again does no harm: its worker, or the driver, dies with it."""
    wait(lambda: _newest_checkpoint(scene) is not None or scene.run.code is not None, 20)
    victim = scene.victim()
    if scene.source.random() < 0.5 or victim is None:
        scene.run.kill()
        wait(lambda: not scene.training(), 15)
        how = "driver killed"
    else:
        os.kill(victim.pid, signal.SIGKILL)
        how = "worker killed"
    path = _newest_checkpoint(scene)
    if victim is not None and how == "worker killed":
        own = sorted((scene.run.ledger / "checkpoints" / victim.trial).glob("step-*.pt"))
        path = own[-1] if own else path
    try:
        return f"{_truncate(path, scene)}, {how}" if path else ""
    except FileNotFoundError:
        return ""


def _any_shard(scene: Scene) -> Path | None:
    found = sorted(scene.run.cache.glob("corpora/*/*"))
    return scene.source.choice(found) if found else None


def _any_ledger_file(scene: Scene) -> Path | None:
    kinds = [
        sorted(scene.run.ledger.glob(pattern))
        for pattern in (
            "trials/*.json",
            "trials/*.json",
            "sweeps/*.json",
            "runs/*.json",
            "studies/*.json",
            "ledger.json",
        )
    ]
    found = [files for files in kinds if files]
    return scene.source.choice(scene.source.choice(found)) if found else None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _pause(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(SILENT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _pause_worker(scene: Scene) -> str:
    life = scene.victim()
    if life is None:
        return ""
    _pause(life.pid)
    return f"worker of {life.trial} at step {life.step}, {SILENT:g} s"


def _pause_driver(scene: Scene) -> str:
    assert scene.run.process is not None
    _pause(scene.run.process.pid)
    return f"driver, {SILENT:g} s"


def _pause_raylet(scene: Scene) -> str:
    raylet = scene.run.part_of_ray("raylet")
    if raylet is None:
        return ""
    _pause(raylet.pid)
    return f"raylet, {SILENT:g} s"


def _pause_node(scene: Scene) -> str:
    assert scene.nodes is not None
    raylet = scene.nodes.ask(f"name {scene.source.randrange(2)}")["raylet"]
    _pause(raylet)
    time.sleep(2)
    if not psutil.pid_exists(raylet):
        scene.nodes.ask("kill 0")
        scene.nodes.ask("add")
    return f"raylet of a node, {SILENT:g} s"


def _fill(scene: Scene) -> str:
    """Leave no byte; when the command has ended by itself, make room again."""
    assert scene.disk is not None
    filler, written = scene.disk / "filler", 0
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    written += file.write(b"\0" * size)
            except OSError:
                continue
    began = time.monotonic()
    stopped = wait(lambda: scene.run.code is not None, 150)
    took = time.monotonic() - began
    filler.unlink()
    return f"{written} bytes written, the command {'ended' if stopped else 'had not ended'} after {took:.0f} s"


def _kill_while_it_starts(scene: Scene) -> str:
    """One of Ray's two processes, at once or a moment later; Ray notices some deaths after 45 seconds only."""
    name = scene.source.choice(["raylet", "gcs_server"])
    scene.run.again()
    if not wait(lambda: scene.run.part_of_ray(name) is not None or scene.run.code is not None, 120):
        return ""
    time.sleep(scene.source.uniform(0, 1.5))
    process = scene.run.part_of_ray(name)
    if process is None:
        return ""
    process.kill()
    return f"{name} while it started"


def _end_driver(scene: Scene) -> str:
    """A polite end at work, or at a random moment of a start: imports, preparation, Ray's start, first trials."""
    assert scene.run.process is not None
    starting = scene.source.random() < 0.6
    # A shell's background jobs ignore SIGINT, those of nohup SIGHUP, and so do their children.
    usual = [number for number in _POLITE if signal.getsignal(number) is not signal.SIG_IGN]
    number = scene.source.choice([signal.SIGTERM] if starting else usual)
    delay = scene.source.uniform(1, 15)
    if starting:
        scene.run.again()
        wait(lambda: scene.run.code is not None, delay)
    scene.run.process.send_signal(number)
    began = time.monotonic()
    ended = wait(lambda: scene.run.code is not None, 150)
    when = f"{delay:.1f} s after the start" if starting else "at work"
    took = time.monotonic() - began
    return f"{number.name} {when}, {'ended' if ended else 'had NOT ended'} after {took:.1f} s"


_POLITE = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def _failing(kind: str) -> Harm:
    """Calls on files of the ledger and the cache fail for a while; a command that ends and starts again meets them."""

    def act(scene: Scene) -> str:
        assert scene.run.world is not None
        share, seconds = scene.source.choice([1.0, 0.5, 0.05]), scene.source.uniform(0.3, 8)
        scene.run.world.fail(kind, share, seconds, scene.source.randrange(2**32))
        wait(lambda: scene.run.code is not None, seconds)
        count = scene.run.world.failed
        return f"at least {count} calls failed, {share:.0%} for {seconds:.1f} s" if count else ""

    return act


def _wrong_clock(scene: Scene) -> str:
    """It jumps while all runs, or the next driver starts with it; the next fault of this kind sets it anew."""
    assert scene.run.world is not None
    source = scene.source
    seconds = source.choice([-1, 1]) * source.choice([2, 45, 90, 3600, 86_400, 10 * 365 * 86_400]) * source.random()
    scene.run.world.lie(seconds)
    if source.random() < 0.5:
        scene.run.kill()
        return f"{seconds:+.0f} s, then the driver was killed"
    wait(lambda: scene.run.code is not None, source.uniform(1, 5))
    if source.random() < 0.5:
        scene.run.world.lie(0)
        return f"{seconds:+.0f} s for a while"
    return f"{seconds:+.0f} s"


_HARMS: dict[str, Harm] = {
    **{kind: _failing(kind) for kind in ERRORS},
    "wrong clock": _wrong_clock,
    "end driver": _end_driver,
    "kill Ray while it starts": _kill_while_it_starts,
    "kill worker": _kill_worker,
    "kill driver": _kill_driver,
    "kill raylet": _kill_raylet,
    "remove node": _of_a_node("remove"),
    "kill node's raylet": _of_a_node("kill"),
    "truncate checkpoint": _truncate_checkpoint,
    "truncate shard": _damage(_any_shard),
    "truncate ledger file": _damage(_any_ledger_file),
    "pause worker": _pause_worker,
    "pause driver": _pause_driver,
    "pause raylet": _pause_raylet,
    "pause node's raylet": _pause_node,
    "fill disk": _fill,
}
