"""What a driver knows about why its run waits: who has a slot, who has none, and since when."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tuneopt.cluster.holders import look_at_cluster
from tuneopt.ledger import Ledger
from tuneopt.ledger.logs import read_log
from tuneopt.observe.board import Board, Heard
from tuneopt.observe.describe import describe
from tuneopt.observe.waiting import Cluster, Facts, Running, Wait, why_waiting
from tuneopt.spec import TrialSpec


class Waits:
    """Answers why a run waits; `tuneopt.observe.timer.WaitTimer` asks it from a thread of its own.

    ``launched`` is the searcher's live mapping of the trials handed out. Logs of trials and the cluster are looked at
    only when something seems to wait.
    """

    def __init__(
        self,
        launched: Mapping[str, TrialSpec],
        board: Board,
        ledger: Ledger,
        slots: int,
        look: Callable[[], Cluster] = look_at_cluster,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.launched, self.board, self.ledger, self.slots = launched, board, ledger, slots
        self.look, self.clock = look, clock
        self._since: dict[str, float] = {}

    def __call__(self, patience: float) -> Wait | None:
        """Why the run waits, if it has waited for ``patience`` seconds."""
        facts = self.facts()
        if why_waiting(facts, patience) is None:
            return None
        heard = {trial: self._told(trial) for trial in (each.trial for each in facts.running)}
        running = tuple(replace(each, **heard[each.trial]) for each in facts.running)
        return why_waiting(replace(facts, running=running, cluster=self.look()), patience)

    def facts(self) -> Facts:
        """The moment as the driver alone knows it."""
        now = self.clock()
        handed_out = {spec.id for spec in dict(self.launched).values()}
        running = {trial: heard for trial, heard in self.board.look().items() if trial in handed_out}
        queued = handed_out - running.keys()
        waiting = {f"queued {trial}" for trial in queued}
        if handed_out and not queued and len(running) < self.slots:
            waiting.add("idle")
        if not handed_out:
            waiting.add("nothing")
        self._since = {name: self._since.get(name, now) for name in waiting}
        return Facts(
            now=time.time(),
            slots=self.slots,
            running=tuple(_running(trial, heard, now) for trial, heard in sorted(running.items())),
            queued={trial: now - self._since[f"queued {trial}"] for trial in sorted(queued)},
            idle=self._for("idle", now),
            nothing=self._for("nothing", now),
        )

    def _for(self, name: str, now: float) -> float | None:
        return now - self._since[name] if name in self._since else None

    def _told(self, trial: str) -> dict[str, Any]:
        """What the trial's own log says."""
        try:
            events, _ = read_log(self.ledger, trial)
        except Exception:  # a store that does not answer is no reason not to name the others
            return {}
        names = [event["event"] for event in events]
        latest = len(names) - names[::-1].index("start") if "start" in names else 0
        training = bool({"ready", "resume", "point"} & set(names[latest:]))
        # That it started is known; what it then does, before anything else is said, is in the sentence itself.
        said = describe(events[-1]) if events and names[-1] != "start" else ""
        return {"training": training, "said": said}


def _running(trial: str, heard: Heard, now: float) -> Running:
    passed = heard.fraction - heard.first_fraction
    left = None
    if heard.last is not None and passed > 0:
        pace = (heard.last - heard.began) / passed
        left = max(0.0, pace * (1.0 - heard.fraction) - (now - heard.last))
    worker = heard.worker
    return Running(
        trial=trial,
        began=now - heard.began,
        silent=None if heard.last is None else now - heard.last,
        gap=heard.gap,
        left=left,
        where=f"process {worker.pid} on {worker.host}" if worker else "",
    )
