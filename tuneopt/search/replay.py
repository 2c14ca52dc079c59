"""Bring a sweep to where the ledger leaves it: replaying records is all there is to resuming."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.search.sweep import Outcome, Sweep, SweepState
from tuneopt.spec import TrialSpec


def outcome_of(record: TrialRecord) -> Outcome:
    """What coordinate descent is told about a finished trial."""
    status = record.status if record.comparable or record.status == "diverged" else "unproven"
    return Outcome(status, record.select_loss, record.report_loss)


@dataclass(slots=True)
class Replay:
    """The outcomes of a sweep known so far; each trial is looked up in the ledger once."""

    sweep: Sweep
    ledger: Ledger
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)

    def state(self, gave_up: Set[str] = frozenset()) -> SweepState:
        """Where the sweep stands, after feeding in whatever the ledger holds of the trials that it asks for."""
        while True:
            state = self.sweep.state(self.outcomes, gave_up)
            found = [self.look_up(spec) for spec in state.pending]
            if not any(found):
                return state

    def look_up(self, spec: TrialSpec) -> bool:
        """Take in the trial if the ledger holds it; False when it was known or asked for before, or is not there."""
        if spec.id in self.outcomes or spec.id in self._asked:
            return False
        self._asked.add(spec.id)
        return self.refresh(spec)

    def refresh(self, spec: TrialSpec) -> bool:
        """Ask the ledger again, after the trial ran; whether there is a record now."""
        record = self.ledger.get(spec.id)
        if record is not None:
            self.outcomes[spec.id] = outcome_of(record)
        return record is not None


def replay(sweep: Sweep, ledger: Ledger) -> tuple[SweepState, dict[str, Outcome]]:
    """The sweep's state and outcomes as the ledger alone tells them."""
    told = Replay(sweep, ledger)
    return told.state(), told.outcomes
