"""Why a sweep waits, as one sentence: a pure function of what is known at a moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

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
    return each.silent is not None and each.silent >= max(patience, UNUSUAL * each.gap)


def _is_late(each: Running, patience: float) -> bool:
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
