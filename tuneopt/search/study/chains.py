"""Which of a study's trials the end of everything waits for: chains of waves, sweeps and phases, in seconds of work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tuneopt.search.queue import Reserve
from tuneopt.search.study.study import PHASES, Study

if TYPE_CHECKING:
    from tuneopt.search.standing import Standing
    from tuneopt.spec import Regime

TYPICAL_WAVES = 4
"""Waves that a sweep usually takes to its certificate; only the order of launches and the time left rest on it."""

LAST_WAVES = 2
"""Waves still expected of a sweep that has had as many: what takes long already may well take longer."""

Seconds = Callable[["Regime"], float]
"""How long a trial of a regime takes."""

Regimes = Callable[[str], tuple["Regime", ...]]
"""The regimes of a phase."""


def urgency(study: Study, regimes: Regimes, seconds: Seconds, standing: Standing) -> float:
    """The seconds of the waves that a sweep probably still needs, and of those of the phases that wait on it."""
    own = seconds(standing.task.sweep.regime)
    if standing.descended or standing.task.phase not in PHASES:
        return own
    later = PHASES[PHASES.index(standing.task.phase) + 1 :]
    return _waves_left(standing) * own + sum(_chain(study, seconds, regimes(phase), phase) for phase in later)


def reserves(study: Study, regimes: Regimes, seconds: Seconds, standings: Iterable[Standing]) -> tuple[Reserve, ...]:
    """The first trials of an optimizer's Phase III, from when its last sweeps before it are all begun.

    They are its longest, and only the longest regime's count: the others can follow beside it.
    """
    before = "II" if study.phase_2 else "I"
    if not regimes("III"):
        return ()
    waits: dict[str, float] = {}
    arrived: set[str] = set()
    for standing in standings:
        task = standing.task
        if task.phase == "III":
            arrived.add(task.optimizer)
        elif task.phase == before and not standing.descended:
            left = _waves_left(standing) * seconds(task.sweep.regime)
            waits[task.optimizer] = max(left, waits.get(task.optimizer, 0.0))
    longest = max(map(seconds, regimes("III")))
    return tuple(Reserve(wait, study.replicates, longest) for name, wait in waits.items() if name not in arrived)


def _waves_left(standing: Standing) -> int:
    return max(LAST_WAVES, TYPICAL_WAVES - standing.state.descent.waves)


def _chain(study: Study, seconds: Seconds, regimes: tuple[Regime, ...], phase: str) -> float:
    waves = TYPICAL_WAVES - 1 if phase == "II" or study.star else 1
    return waves * max(map(seconds, regimes), default=0.0)
