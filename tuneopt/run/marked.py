"""A ledger whose new records say which search proposed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tuneopt.ledger import Ledger, TrialRecord


class MarkedLedger(Ledger):
    """Adds ``marks`` to the environment of each record that it stores; what it reads is as it is.

    A search that samples marks its records with its name, id and scheduler, and says so in words among their notes:
    its budget, and what it ranked on, are not those of coordinate descent.
    """

    def __init__(self, uri: str, marks: Mapping[str, str]) -> None:
        super().__init__(uri)
        self.marks = dict(marks)

    def __reduce__(self) -> tuple[Any, ...]:
        return MarkedLedger, (self.uri, self.marks)  # a ledger travels to workers and ranks by its address alone

    def put(self, record: TrialRecord) -> bool:
        """Store a record with its marks."""
        notes = [f"proposed by {self.marks['search']}"]
        if self.marks["scheduler"] != "none":
            notes.append(f"ran under {self.marks['scheduler']}, which ranks on intermediate loss")
        environment = {**record.environment, **self.marks}
        return super().put(replace(record, environment=environment, notes=(*record.notes, *notes)))


def marked(ledger: Ledger, marks: Mapping[str, str]) -> Ledger:
    """``ledger``, with ``marks`` on its new records where there are any."""
    return MarkedLedger(ledger.uri, marks) if marks else ledger
