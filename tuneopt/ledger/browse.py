"""Looking into a ledger: short rows for a listing, and one record by a prefix of its id."""

from __future__ import annotations

from typing import Any

from tuneopt.ledger.checks import SECONDS
from tuneopt.ledger.record import TrialRecord
from tuneopt.ledger.store import Ledger
from tuneopt.spec import InputError

SHORT = ("trial", "status", "optimizer", "scale", "ratio", "corpus", "seed", "select_loss", "report_loss", "tokens")
"""Columns of a listing; `short_rows` adds ``seconds``, ``proof_passed`` and ``ended``."""


def short_rows(ledger: Ledger) -> list[dict[str, Any]]:
    """One short row per trial: ordered by optimizer, scale size, ratio, then the best loss first, diverged last.

    ``seconds`` is the whole wall time of the trial. Losses are nats per token, None for a diverged trial.
    """
    rows = ledger.table().select(
        [*SHORT, "parameters", *(f"seconds_{part}" for part in SECONDS), "proof_passed", "ended"]
    )

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        loss = row["select_loss"]
        return row["optimizer"], row["parameters"], row["ratio"], loss is None, loss or 0.0, row["trial"]

    return [
        {
            **{name: row[name] for name in SHORT},
            "seconds": sum(row[f"seconds_{part}"] for part in SECONDS),
            "proof_passed": row["proof_passed"],
            "ended": row["ended"],
        }
        for row in sorted(rows.to_pylist(), key=order)
    ]


def find_record(ledger: Ledger, prefix: str) -> TrialRecord:
    """The one record whose id begins with ``prefix``; raises `InputError` for none, or naming the candidates."""
    found = [trial for trial in ledger.ids() if trial.startswith(prefix)] if prefix else []
    if len(found) == 1:
        record = ledger.get(found[0])
        if record is not None:
            return record
    if not found:
        raise InputError(f"no trial in {ledger.uri} has an id that begins with {prefix!r}; list them with ledger ls")
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise InputError(f"the id {prefix!r} is ambiguous; give more digits of one of {shown}")
