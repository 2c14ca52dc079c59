"""What a sweep needs to know of a finished trial."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuneopt.spec import InputError, nearest

STATUSES = ("completed", "diverged", "unproven")
"""How a trial can end; unproven means that the proof of its optimizer failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended; losses are nats per token, on the select and report splits. Only a completed trial can win.

    Raises `InputError` for a status that is none of `STATUSES`.
    """

    status: str
    select_loss: float | None = None
    report_loss: float | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise InputError(f"unknown trial status {self.status!r}; {nearest(self.status, STATUSES)}")

    @property
    def loss(self) -> float | None:
        """The select loss of a completed trial, else None."""
        return _finite(self.select_loss) if self.status == "completed" else None

    @property
    def reported(self) -> float | None:
        """The report loss of a completed trial, else None."""
        return _finite(self.report_loss) if self.status == "completed" else None


def _finite(loss: float | None) -> float | None:
    return loss if loss is not None and math.isfinite(loss) else None
