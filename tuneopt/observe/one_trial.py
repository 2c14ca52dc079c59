"""Observing a single trial that trains in this process, or on ranks of this machine, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.observe.narrator import Narrator
from tuneopt.observe.observer import Observer, Observers, TrialEnd
from tuneopt.spec import TrialSpec


class OneTrial:
    """Tells observers of one trial; of one that the ledger holds already, only that. An interrupted one has no end."""

    def __init__(self, spec: TrialSpec, ledger: Ledger, observers: Sequence[Observer] = ()) -> None:
        self.spec = spec
        self.observers = Observers([Narrator(ledger, writes=False), *observers])
        self.known = ledger.has(spec.id)

    def __enter__(self) -> Self:
        if not self.known:
            self.observers.started(self.spec)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            text = f"{type(error).__name__}: {error}".splitlines()
            self.observers.ended(self.spec, TrialEnd("failed", error=text[-1]))

    def point(self, point: CurvePoint) -> None:
        """It reached a curve point."""
        self.observers.points(self.spec, [point])

    def done(self, record: TrialRecord) -> None:
        """It is recorded."""
        if self.known:
            self.observers.reused(self.spec)
            return
        self.observers.points(self.spec, record.curve)
        seconds = record.seconds["train"] + record.seconds["eval"]
        self.observers.ended(self.spec, TrialEnd(record.status, record.select_loss, record.report_loss, seconds))
