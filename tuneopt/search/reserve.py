"""Keeping slots for long trials that will soon be ready, so that no long trial which nothing waits for is in their way.

A trial is never taken off its slot. So a long one that is begun to fill a slot can make a chain of trials wait that
the end of everything depends on, though the slot is wanted much sooner. Batch systems answer that with reservations
and backfilling: what starts meanwhile is what has ended by then.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

SHARE = 0.25
"""Share of the slots that may be kept; a small machine is never short of work, so one of three slots keeps none."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Trials to come: after about ``wait`` seconds ``slots`` of them, ``seconds`` long each."""

    wait: float
    slots: int
    seconds: float


def may_start(seconds: float, running: Collection[float], reserves: Sequence[Reserve], slots: int) -> bool:
    """Whether a trial of ``seconds`` may have one of ``slots`` slots beside trials as long as ``running`` says.

    It may not when it is shorter than trials to come, would still run when they are ready, and would leave too few
    slots that are free by then. Where nothing runs, anything may start.
    """
    for reserve in reserves:
        if not running or not reserve.wait < seconds < reserve.seconds:
            continue
        kept = sum(each.slots for each in reserves if each.wait < seconds)
        long = sum(each > reserve.wait for each in running)
        if long + min(kept, int(SHARE * slots)) >= slots:
            return False
    return True
