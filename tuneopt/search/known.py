"""What a ledger already holds, as a pool asks for it."""

from __future__ import annotations

from collections.abc import Callable

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.search.pool import Ended
from tuneopt.search.replay import outcome_of
from tuneopt.spec import TrialSpec


def ended(record: TrialRecord) -> Ended:
    """How a recorded trial ended; its device seconds are all its wall time, on all its devices."""
    from tuneopt.ledger.table import devices

    return Ended(outcome_of(record), devices(record) * sum(record.seconds.values()))


def recorded(ledger: Ledger) -> Callable[[TrialSpec], Ended | None]:
    """A look-up of trials in ``ledger``; None for one without a record, or with a damaged one."""

    def look_up(spec: TrialSpec) -> Ended | None:
        record = ledger.sound(spec.id)
        return None if record is None else ended(record)

    return look_up
