"""Why a sweep waits: who has a slot, who has none, since when, and what their logs say, in one sentence.

Three parts: `Waits` gathers facts now and then, `why_waiting` makes a sentence of them (a pure function), and
`WaitTimer` asks from a thread of its own, because the driver's loop may be what hangs. Nothing here may raise into the
run: a run that waits is bad enough.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from tuneopt.ledger import Ledger
from tuneopt.ledger.logs import describe, read_log
from tuneopt.observe.state import RunningTrial, RunState

_log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds of waiting after which a sweep says why."""

UNUSUAL = 3.0
"""A trial is silent for too long at this many times the longest gap between its reports so far."""

NAMED = 3
"""Trials, or holders of slots, that a sentence names; it counts the others."""

FIRST_POINT = 20.0
"""A trial that trains but has not reached its first curve point is mentioned after this many times the patience."""


@dataclass(frozen=True, slots=True)
class Running:
    """A trial that has its slot; times are seconds before now."""

    trial: str
    began: float
    silent: float | None = None
    """Since its last curve point; None before the first."""
    gap: float = 0.0
    """The longest time between two of its reports so far."""
    left: float | None = None
    """Expected seconds to its end; None before anything is known of its pace."""
    where: str = ""
    """Its worker, such as ``process 4711 on node-3``."""
    training: bool = False
    """Whether its own log says that preparation is over."""
    last_event: str = ""
    """The last event of its own log, in words."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A look at the cluster."""

    address: str
    lost: str = ""
    """Why it does not answer; empty when it does."""
    free: str = ""
    """What is in use of what there is, such as ``1 of 1 CPU in use``."""
    holders: tuple[str, ...] = ()
    """Who else has something there, each in words."""
    autoscaler: tuple[str, ...] = ()
    """What is being started, or failed to start, each in words; empty when nothing is."""
    dead: int = 0
    """Machines that were there and are gone."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A moment of a sweep; times are seconds before now."""

    now: float
    """Seconds since the epoch, for the clock times in a sentence."""
    slots: int
    running: tuple[Running, ...] = ()
    queued: dict[str, float] = field(default_factory=dict)
    """Trials handed out that have no slot yet, and for how long."""
    idle: float | None = None
    """For how long slots have been idle because nothing may start before a running trial ends; None: none are."""
    nothing: float | None = None
    """For how long no trial at all has been handed out; None: there are some."""
    cluster: Cluster | None = None
    """None where nobody looked."""


class Wait(str):
    """A sentence that says why a sweep waits, and the kind of reason, so that a change of reason is noticed."""

    kind: str

    def __new__(cls, kind: str, text: str) -> Wait:
        """The sentence ``text``, of kind ``kind``."""
        made = super().__new__(cls, text)
        made.kind = kind
        return made


def why_waiting(facts: Facts, patience: float = PATIENCE) -> Wait | None:
    """Why the sweep waits, if it has waited for ``patience`` seconds; the gravest reason first. None: all goes well."""
    return next(_reasons(facts, patience), None)


def _reasons(facts: Facts, patience: float) -> Iterator[Wait]:
    cluster = facts.cluster
    if cluster is not None and cluster.lost:
        yield Wait(
            "lost",
            f"the cluster at {cluster.address} does not answer ({cluster.lost}); finished trials are in the ledger, "
            "and the same command goes on from there once the cluster is back",
        )
    queued = {trial: waited for trial, waited in facts.queued.items() if waited >= patience}
    if queued:
        yield _no_slot(facts, queued)
    silent = [each for each in facts.running if _is_silent(each, patience)]
    if silent:
        yield _silent(facts, max(silent, key=lambda each: each.silent or 0.0), len(silent))
    preparing = [each for each in facts.running if each.silent is None and _is_late(each, patience)]
    if preparing:
        yield _preparing(facts, max(preparing, key=lambda each: each.began), len(preparing))
    if facts.idle is not None and facts.idle >= patience and facts.running:
        yield _last_of_wave(facts)
    if facts.nothing is not None and facts.nothing >= patience:
        yield Wait(
            "nothing", f"no trial has been started for {_span(facts.nothing)}: the search works out which come next"
        )


def _is_silent(each: Running, patience: float) -> bool:
    # By its own measure: points of a large trial are an hour apart, and that is no silence.
    return each.silent is not None and each.silent >= max(patience, UNUSUAL * each.gap)


def _is_late(each: Running, patience: float) -> bool:
    # Preparation takes seconds to a minute; the first point of a trial that trains may be far away.
    return each.began >= (FIRST_POINT * patience if each.training else patience)


def _no_slot(facts: Facts, queued: dict[str, float]) -> Wait:
    parts = [f"no slot is free for {_trials(list(queued))}, since {_clock(facts, max(queued.values()))}"]
    cluster = facts.cluster
    if cluster is not None:
        parts += [cluster.free] if cluster.free else []
        if cluster.holders:
            parts.append(f"held by {_listed(cluster.holders)}")
        if facts.running:
            parts.append(f"{len(facts.running)} by this sweep")
        if cluster.dead:
            parts.append(f"{cluster.dead} {'machine is' if cluster.dead == 1 else 'machines are'} gone")
        parts.append(_listed(cluster.autoscaler) if cluster.autoscaler else "no machine is being started")
    return Wait("slot", "; ".join(parts))


def _silent(facts: Facts, worst: Running, count: int) -> Wait:
    others = f", and {count - 1} more are silent" if count > 1 else ""
    last = f"; its log ends with: {worst.last_event}" if worst.last_event else ""
    return Wait(
        "silent",
        f"the worker of trial {worst.trial}{_at(worst)} has not answered since {_clock(facts, worst.silent or 0.0)} "
        f"(its longest silence before: {_span(worst.gap)}){others}{last}",
    )


def _preparing(facts: Facts, worst: Running, count: int) -> Wait:
    others = f", like {count - 1} more" if count > 1 else ""
    if worst.training:
        return Wait(
            "first point",
            f"trial {worst.trial}{_at(worst)} trains since {_clock(facts, worst.began)} and has not reached its first "
            f"curve point{others}",
        )
    doing = worst.last_event or "it loads the text, builds the model and compiles it"
    return Wait(
        "preparing", f"trial {worst.trial}{_at(worst)} prepares since {_clock(facts, worst.began)}{others}: {doing}"
    )


def _last_of_wave(facts: Facts) -> Wait:
    free = facts.slots - len(facts.running)
    ends = [each.left for each in facts.running]
    known = [left for left in ends if left is not None]
    # The end of a wave is that of its last trial: known only when all of them have a pace.
    end = f", expected at about {_clock(facts, -max(known))}" if len(known) == len(ends) else ""
    idle = f"{free} of {facts.slots} slots {'is' if free == 1 else 'are'} idle"
    names = _trials([each.trial for each in facts.running])
    return Wait("wave", f"{idle}: what comes next depends on the end of {names}{end}")


def _trials(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED])
    if len(names) == 1:
        return f"trial {shown}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} trials ({shown}{more})"


def _listed(words: tuple[str, ...]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more


def _at(each: Running) -> str:
    return f" ({each.where})" if each.where else ""


def _clock(facts: Facts, ago: float) -> str:
    """The local time ``ago`` seconds before now; with the day where it is not today's."""
    then, now = time.localtime(facts.now - ago), time.localtime(facts.now)
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)


def _span(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min"


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
            return None  # what is far away is not asked while all goes well
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
        # After its last start: what an earlier process of the trial wrote says nothing of this one.
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
