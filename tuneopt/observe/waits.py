"""Finds out now and then why a run waits: who has a slot, who has none, since when, and what their logs say.

Three parts: `Waits` gathers facts, `tuneopt.observe.waiting` makes one sentence of them (a pure function), and
`WaitTimer` asks from a thread of its own, because the driver's loop may be what hangs. Nothing here may raise into the
run: a run that waits is bad enough.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from tuneopt.ledger import Ledger
from tuneopt.ledger.logs import read_log
from tuneopt.observe.describe import describe
from tuneopt.observe.state import RunningTrial, RunState
from tuneopt.observe.waiting import PATIENCE, Cluster, Facts, Running, Wait, why_waiting

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Times:
    """When a wait is told: after ``first`` seconds, then every ``every`` seconds; looked at every ``beat``."""

    first: float = PATIENCE
    every: float = 300.0
    beat: float = 5.0


class Waits:
    """Answers why a run waits.

    Logs of trials and the cluster (``look``) are read only when something seems to wait: both may be far away.
    """

    def __init__(self, state: RunState, ledger: Ledger, look: Callable[[], Cluster]) -> None:
        self.state, self.ledger, self.look = state, ledger, look
        self._since: dict[str, float] = {}

    def __call__(self, patience: float) -> Wait | None:
        """Why the run waits, if it has waited for ``patience`` seconds."""
        facts = self.facts()
        if why_waiting(facts, patience) is None:
            return None
        running = tuple(replace(each, **self._logged(each.trial)) for each in facts.running)
        return why_waiting(replace(facts, running=running, cluster=self.look()), patience)

    def facts(self) -> Facts:
        """The moment as the driver alone knows it."""
        now = self.state.clock()
        handed_out = set(dict(self.state.plan.running))  # copied at once: the driver's thread goes on meanwhile
        running = {trial: heard for trial, heard in self.state.running.items() if trial in handed_out}
        queued = handed_out - running.keys()
        waiting = {f"queued {trial}" for trial in queued}
        if handed_out and not queued and len(running) < self.state.slots:
            waiting.add("idle")
        if not handed_out:
            waiting.add("nothing")
        # What no longer waits is dropped, so that its time begins anew when it waits again.
        self._since = {name: self._since.get(name, now) for name in waiting}
        lasted = {name: now - since for name, since in self._since.items()}
        return Facts(
            now=time.time(),
            slots=self.state.slots,
            running=tuple(_running(trial, heard, now) for trial, heard in sorted(running.items())),
            queued={trial: lasted[f"queued {trial}"] for trial in sorted(queued)},
            idle=lasted.get("idle"),
            nothing=lasted.get("nothing"),
        )

    def _logged(self, trial: str) -> dict[str, Any]:
        """What the trial's own log says."""
        try:
            events, _ = read_log(self.ledger, trial)
        except Exception:  # a store that does not answer is no reason not to name the others
            return {}
        names = [event["event"] for event in events]
        latest = len(names) - names[::-1].index("start") if "start" in names else 0
        training = bool({"ready", "resume", "point"} & set(names[latest:]))
        # That it started is known; what it then does, before anything else is said, is in the sentence itself.
        last = describe(events[-1]) if events and names[-1] != "start" else ""
        return {"training": training, "last_event": last}


def _running(trial: str, heard: RunningTrial, now: float) -> Running:
    # The pace of this run alone: what a resumed trial had done before says nothing of this worker's speed.
    passed = heard.fraction - heard.first_fraction
    left = None
    if heard.last is not None and passed > 0:
        pace = (heard.last - heard.began) / passed
        left = max(0.0, pace * (1.0 - heard.fraction) - (now - heard.last))
    return Running(
        trial=trial,
        began=now - heard.began,
        silent=None if heard.last is None else now - heard.last,
        gap=heard.gap,
        left=left,
        where=f"process {heard.worker.pid} on {heard.worker.host}" if heard.worker else "",
    )


class WaitTimer:
    """A thread that calls ``ask`` every few seconds and hands the reason for waiting that it gives to ``tell``.

    ``ask`` gets the patience in seconds and answers a reason or None. A reason of another kind is told at once, one
    that lasts every five minutes, and one that went away and came back anew.
    """

    def __init__(
        self, ask: Callable[[float], Wait | None], tell: Callable[[Wait], object], times: Times | None = None
    ) -> None:
        self.ask, self.tell, self.times = ask, tell, times or Times()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="why-waiting")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join(timeout=1.0)  # a look at a lost cluster may hang; the thread dies with the process

    def _run(self) -> None:
        kind, told_at = "", 0.0
        while not self._over.wait(self.times.beat):
            try:
                reason = self.ask(self.times.first)
            except Exception:
                _log.debug("could not find out why the run waits", exc_info=True)
                continue
            now = time.monotonic()
            if reason is None:
                kind = ""
            elif not self._over.is_set() and (reason.kind != kind or now - told_at >= self.times.every):
                kind, told_at = reason.kind, now
                self.tell(reason)
