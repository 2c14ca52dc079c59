"""What sweeps under way look like from outside, and how they ended. Free of Ray, so that displays stay light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuneopt.search.standing import Standing
from tuneopt.search.sweep import Outcome, SweepState


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of trials under way; seconds since the run began."""

    running: dict[str, tuple[float, float | None]]
    """Trial id -> (fraction done, select loss at its last curve point)."""
    done: int
    reused: int
    diverged: int
    failed: int
    slots: int
    elapsed: float
    busy: float


@dataclass(frozen=True, slots=True)
class Progress(Moment):
    """A moment of a sweep under way."""

    state: SweepState


@dataclass(frozen=True, slots=True)
class PoolProgress(Moment):
    """A moment of many sweeps under way, by sweep id."""

    standings: Mapping[str, Standing]
    device_seconds: float
    """Device seconds of every trial that ended, earlier runs included."""


@dataclass(slots=True)
class PoolResult:
    """How a run of a pool ended, and what it cost."""

    outcomes: dict[str, Outcome]
    run: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Trial id -> last line of its error."""
    slots: int = 0
    wall_seconds: float = 0.0
    busy_seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)
    """Trial id -> its seconds inside training and evaluation in this run."""
    interrupted: bool = False
    stopped: str = ""
    """The limit that ended the run, if one did."""

    @property
    def diverged(self) -> list[str]:
        """Ids of the diverged trials."""
        return sorted(trial for trial, outcome in self.outcomes.items() if outcome.status == "diverged")

    @property
    def utilisation(self) -> float | None:
        """Seconds inside training and evaluation over wall seconds times slots; None when nothing ran."""
        return self.busy_seconds / (self.wall_seconds * self.slots) if self.run else None


@dataclass(slots=True, kw_only=True)
class SweepResult(PoolResult):
    """How a sweep ended, and what this run of it cost."""

    state: SweepState
