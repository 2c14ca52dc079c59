"""What goes wrong in a schedule: drawn from a seed, and made smaller where less is enough."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

OPERATION_FAULTS = ("fail", "fail after", "lose", "delay", "partial")
TIMED_FAULTS = ("rot", "kill driver", "kill worker", "pause driver", "pause worker")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong: at the ``place``-th operation of the store, or at that second.

    ``amount`` says how: seconds of a delay or a pause, or which victim.
    """

    kind: str
    place: float
    amount: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything that happens follows from this; equal schedules end alike."""

    seed: int
    bucket: bool = False
    slots: int = 2
    ahead: bool = False
    starts: tuple[float, ...] = (0.0,)
    """When the first driver, and a second one, begin; each comes back some seconds after it ended before its time."""
    one_machine: bool = True
    clocks_off: tuple[float, ...] = (0.0,)
    """Seconds by which the clocks of the drivers' machines are wrong."""
    orphans: bool = False
    """Whether workers live on when their driver dies."""
    twins: frozenset[int] = frozenset()
    """Which launches start two workers."""
    faults: tuple[Fault, ...] = ()


def drawn(seed: int) -> Schedule:
    """The schedule of a seed: from undisturbed to a dozen faults."""
    draw = random.Random(seed)
    two = draw.random() < 0.5
    faults = []
    for _ in range(draw.choice((0, 1, 2, 2, 3, 3, 4, 6, 8, 12))):
        if draw.random() < 0.5:
            faults.append(Fault(draw.choice(OPERATION_FAULTS), draw.randrange(1, 250), draw.uniform(0.1, 40.0)))
        else:
            faults.append(Fault(draw.choice(TIMED_FAULTS), draw.uniform(0.0, 120.0), draw.random()))
    return Schedule(
        seed=seed,
        bucket=draw.random() < 0.5,
        slots=draw.choice((1, 2, 4)),
        ahead=draw.random() < 0.5,
        starts=(0.0, draw.choice((0.0, draw.uniform(0.0, 60.0)))) if two else (0.0,),
        one_machine=draw.random() < 0.5,
        clocks_off=tuple(draw.choice((0.0, 0.0, -3600.0, 3600.0, -75.0, 30.0)) for _ in range(2)),
        orphans=draw.random() < 0.5,
        twins=frozenset(draw.randrange(12) for _ in range(draw.choice((0, 0, 1, 3)))),
        faults=tuple(faults),
    )


def smaller(schedule: Schedule) -> Iterator[Schedule]:
    """The schedule with one thing left out, in every way there is."""
    for place in range(len(schedule.faults)):
        yield replace(schedule, faults=schedule.faults[:place] + schedule.faults[place + 1 :])
    if len(schedule.starts) > 1:
        yield replace(schedule, starts=schedule.starts[:1])
    yield from (replace(schedule, twins=schedule.twins - {launch}) for launch in sorted(schedule.twins))
    plain: dict[str, Any] = {"ahead": False, "bucket": False, "orphans": False, "one_machine": True, "slots": 1}
    for name, value in plain.items():
        if getattr(schedule, name) != value:
            yield replace(schedule, **{name: value})
    if any(schedule.clocks_off):
        yield replace(schedule, clocks_off=(0.0, 0.0))
