"""One sweep with faults: started, disturbed at its moments, started again after every end, and judged at the end."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from faults.compare import answer, compare
from faults.inject import Scene, harm
from faults.lives import lives, losses
from faults.nodes import Nodes
from faults.plan import Fault
from faults.sweep import Run, wait
from faults.world import ERRORS, World
from tuneopt.ledger import Ledger

STUCK = 400.0
"""Seconds without a step, a record or an end after which a run counts as stuck, and is killed."""

SETTLING = {"kill raylet": 40.0, "kill Ray while it starts": 120.0, "pause raylet": 8.0, "pause node's raylet": 5.0}
"""Seconds that the driver may take to notice what happened to its Ray, before the next fault comes."""

DISK_BYTES = 48 << 20


class Episode:
    """The life of one ledger under faults."""

    def __init__(
        self, place: str, folder: Path, cache: Path, reference: Path, ratio: float, library: Path | None = None
    ) -> None:
        self.place, self.folder, self.cache, self.reference, self.ratio = place, folder, cache, reference, ratio
        folder.mkdir(parents=True)
        self.disk = _mount(folder / "disk") if place == "small disk" else None
        own = folder / "cache"  # its shards are damaged too
        shutil.copytree(cache, own)
        backend = "inline" if place == "one process" else "ray"
        self.run = Run(folder, (self.disk or folder) / "ledger", own, ratio, backend)
        if library is not None:
            page = self.run.eyes.with_name(f"{self.run.eyes.name}.world")
            self.run.world = World(page, library, (self.run.ledger, own))
        self.nodes: Nodes | None = None
        if place == "three nodes":
            self.nodes = Nodes(self.run.environment, folder / "nodes.txt")
            self.run.address = self.nodes.address
        self.seen: dict[str, tuple[int, int]] = {}
        self.rewritten: list[str] = []
        self.broken: set[str] = set()
        self.stuck = 0
        self.closed: list[tuple[float, float]] = []

    def disturb(self, faults: list[Fault]) -> list[dict[str, Any]]:
        """Inject faults one after another until the sweep has ended; those that found nothing to disturb come back."""
        scene = Scene(self.run, self.nodes, self.disk)
        self.run.start()
        done = []
        for fault in faults:
            if not self._until_training():
                break
            self._go_on(fault.delay)
            if self._over():
                break
            scene.source = random.Random(fault.seed)
            code, starts, records = self.run.code, self.run.starts, len(self.seen)
            began = time.monotonic()
            before = self._sizes()
            did = harm(fault.kind, scene)
            for _ in range(3):
                if did or self.run.code is not None:
                    break
                time.sleep(1.0)  # its victim was just gone
                did = harm(fault.kind, scene)
            if not did:
                break  # it comes again in the next sweep
            wait(lambda: self.run.code is not None, SETTLING.get(fault.kind, 0.0))
            self._mark_broken(before, did)
            if fault.kind == "fill disk" or fault.kind in ERRORS:
                self.closed.append((began, time.monotonic()))
            entry = {
                "number": fault.number, "kind": fault.kind, "place": self.place, "did": did, "records": records,
                "began": began,
            }  # fmt: skip
            back = self._until_training()
            entry["back_seconds"] = time.monotonic() - began
            entry["driver"] = list(self.run.ends[starts - 1 :]) if code is None else []
            done.append(entry)
            if not back:
                break
        self._to_the_end()
        return done

    def judge(self) -> dict[str, Any]:
        """What became of the ledger; removes everything else that the episode made."""
        ledger = Ledger(self.run.ledger)
        seen = set(self.seen) - self.broken
        found = compare(ledger, Ledger(self.reference / "ledger"), seen, self.cache)
        expected = answer(json.loads((self.reference / "answer.json").read_text()))
        costs = losses(lives(self.run.eyes), self.closed)
        return {
            **found,
            "doubled": sorted(set(self.rewritten) - self.broken),
            "same answer": answer(self.run.answer()) == expected,
            "verify": ledger.verify(),
            "stuck": self.stuck,
            "starts": self.run.starts,
            "ends": self.run.ends,
            "bad ends": [end for end in self.run.ends if _bad(end)],
            "work lost": costs,
        }

    def close(self) -> None:
        self.run.close()
        if self.nodes:
            self.nodes.close()
        if self.disk:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=False)

    def _look(self) -> None:
        """Note the records that are there, and whether one that was there is another file now."""
        for path in self.run.ledger.glob("trials/*.json"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            mark = (stat.st_ino, stat.st_mtime_ns)
            if self.seen.setdefault(path.stem, mark) != mark:
                self.rewritten.append(path.stem)
                self.seen[path.stem] = mark

    def _sizes(self) -> dict[str, int]:
        return {path.stem: path.stat().st_size for path in self.run.ledger.glob("trials/*.json")}

    def _mark_broken(self, before: dict[str, int], did: str) -> None:
        self.broken |= {trial for trial in before if f"{trial}.json to " in did}

    def _over(self) -> bool:
        """Whether the sweep has ended; a run that ended otherwise is started again."""
        self._look()
        if self.run.code is None:
            return False
        if self.run.code == 0:
            return True
        self.run.note_end()
        if self.run.starts > 60:
            raise RuntimeError(f"the sweep does not end: {self.run.ends[-5:]}")
        self.run.start()
        return False

    def _until_training(self) -> bool:
        """Go on until somebody trains; False when the sweep ended before."""
        while True:
            known = {life.born: life.step for life in lives(self.run.eyes)}
            moved = wait(partial(self._moved, known, len(self.seen)), STUCK)
            if not moved:
                self.stuck += 1
                self.run.kill()
            if self._over():
                return False
            if self._steps(known):
                return True

    def _moved(self, known: dict[int, int], records: int) -> bool:
        return self._steps(known) or self.run.code is not None or self._more_than(records)

    def _steps(self, known: dict[int, int]) -> bool:
        """Whether any step was trained since ``known``."""
        now = lives(self.run.eyes)
        mine = [
            life for life in now if life.born > self.run.fresh and life.alive
        ]  # no orphans of a run that was killed
        return any(life.step > known.get(life.born, life.first_step) for life in mine)

    def _more_than(self, count: int) -> bool:
        self._look()
        return len(self.seen) > count

    def _go_on(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.run.code is None:
            self._look()
            time.sleep(0.02)

    def _to_the_end(self) -> None:
        while not self._over():
            if not self._until_training() or self.run.code == 0:
                continue
            self._go_on(1.0)


ANSWERS = (2, 3, 130, -9, -15)
"""Exit codes before the end: bad luck, no certificate yet, interrupted, and the signals that Python has no answer to:
SIGKILL, and SIGTERM in the second before the program has begun."""


def _bad(end: dict[str, Any]) -> bool:
    """Whether the command ended otherwise than it should: with a traceback, as a mistake, or without how to go on."""
    wordless = end["code"] == 2 and not end["said"].startswith("tuneopt: ")
    unclear = end["code"] == 130 and "Go on with: " not in end["said"]
    return end["traceback"] or end["code"] not in ANSWERS or wordless or unclear


def _mount(folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    return folder


def can_mount() -> bool:
    """Whether a small disk can be made: needs root and a kernel that lets it mount."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = _mount(Path(folder) / "disk")
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", str(made)], check=False)
        return True


def undisturbed(folder: Path, cache: Path, ratio: float) -> float:
    """The run that every other is compared with; the seconds it took."""
    began = time.monotonic()
    if not (folder / "answer.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run = Run(folder, folder / "ledger", cache, ratio)
        run.start()
        assert run.process is not None
        if run.process.wait() != 0:
            raise RuntimeError(f"the undisturbed run ended with {run.note_end()}")
        (folder / "answer.json").write_text(json.dumps(run.answer()))
        run.close()
    return time.monotonic() - began
