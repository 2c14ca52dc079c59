"""What a sweep under way looks like from outside, and how it ended. Free of Ray, so that displays stay light."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuneopt.search.sweep import Outcome, SweepState


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a sweep under way; seconds since the run began."""

    state: SweepState
    running: dict[str, tuple[float, float | None]]
    """Trial id -> (fraction done, select loss at its last curve point)."""
    done: int
    reused: int
    diverged: int
    failed: int
    slots: int
    elapsed: float
    busy: float


@dataclass(slots=True)
class SweepResult:
    """How a sweep ended, and what this run of it cost."""

    state: SweepState
    outcomes: dict[str, Outcome]
    run: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Trial id -> last line of its error."""
    slots: int = 0
    wall_seconds: float = 0.0
    busy_seconds: float = 0.0
    interrupted: bool = False

    @property
    def diverged(self) -> list[str]:
        """Ids of the sweep's diverged trials."""
        return sorted(trial for trial, outcome in self.outcomes.items() if outcome.status == "diverged")

    @property
    def utilisation(self) -> float | None:
        """Seconds inside training and evaluation over wall seconds times slots; None when nothing ran."""
        return self.busy_seconds / (self.wall_seconds * self.slots) if self.run else None
