"""The lives of trials: each process that trained one, from which step to which, and what a kill cost."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

FORMAT = struct.Struct("<9d")  # as in eyes/sitecustomize.py


FIRST_STEPS = 5
"""Steps before which there is no checkpoint: a trial's proof needs three steps with a learning rate, in one process."""


@dataclass(frozen=True)
class Life:
    """One process' part of a trial; times in seconds of the monotonic clock."""

    trial: str
    pid: int
    born: int
    first_step: int
    began: float
    step: int
    step_at: float
    saved_step: int
    saved_at: float
    longest: float
    """Longest seconds from one step to the next."""
    pause: float
    """Longest pause between checkpoints that it asked for: writing them may take a twentieth of the time."""
    ended: bool

    @property
    def alive(self) -> bool:
        if self.ended or not psutil.pid_exists(self.pid):
            return False
        try:
            return psutil.Process(self.pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return False


def lives(folder: Path) -> list[Life]:
    """All lives so far, oldest first."""
    found = []
    for path in folder.iterdir():
        data = path.read_bytes()
        if len(data) == FORMAT.size:
            trial, pid, born = path.name.split(".")
            first, began, step, at, saved, saved_at, longest, pause, ended = FORMAT.unpack(data)
            found.append(
                Life(
                    trial, int(pid), int(born), int(first), began, int(step), at, int(saved), saved_at, longest,
                    pause, bool(ended),
                )
            )  # fmt: skip
    return sorted(found, key=lambda life: life.born)


def losses(found: list[Life], closed: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """What each killed life cost: the steps that its successor trained again, and the seconds since its checkpoint.

    ``within`` says whether that is at most one checkpoint interval: the pause between checkpoints, and the step (with
    what comes between steps, evaluation and writing) that was under way. ``excused`` says why it could not be: the
    proof of the optimizer, which is taken on the first steps, was not complete; a checkpoint was truncated, so that
    the one before it was taken; or nothing could be written (``closed``: from, to).
    """
    by_trial = defaultdict(list)
    for life in found:
        by_trial[life.trial].append(life)
    costs = []
    for trial, chain in by_trial.items():
        for life, successor in pairwise(chain):
            if life.ended or successor.began < life.step_at:  # two at once: the first lost nothing to the second
                continue
            since = life.step_at - (life.saved_at if successor.first_step == life.saved_step else life.began)
            excuse = "older checkpoint" if successor.first_step < life.saved_step else ""
            if successor.first_step == 0 and life.step <= FIRST_STEPS:
                excuse = "first steps"
            if any(begin - 1 <= life.step_at <= end + 1 for begin, end in closed):
                excuse = "no writing"
            costs.append(
                {
                    "trial": trial,
                    "steps": max(0, life.step - successor.first_step),
                    "seconds": max(0.0, since),
                    "pause": life.pause,
                    "longest": life.longest,
                    "at": life.step_at,
                    "excused": excuse,
                    "within": since <= life.pause + 2 * life.longest + 0.05,
                }
            )
    return costs
