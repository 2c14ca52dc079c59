"""Results in other programs' formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger

OPTUNA = (".db", ".sqlite", ".sqlite3")
"""Suffixes of an Optuna storage."""


def export(ledger: Ledger | str, path: Path | str) -> dict[str, Any]:
    """Write a ledger to ``path``: one table (.parquet, .csv), or an Optuna storage for its dashboard (.db, .sqlite).

    Returns what was written. Exporting to the same storage again adds what is new. Raises `InputError` for another
    suffix and a file that cannot be written.
    """
    from tuneopt.ledger import open_ledger
    from tuneopt.spec import InputError

    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger
    place = Path(path)
    if place.suffix.lower() not in (*OPTUNA, ".parquet", ".csv"):
        raise InputError(
            f"cannot export to {place.name!r}: name a file that ends in .parquet or .csv, or in .db for Optuna"
        )
    if place.suffix.lower() not in OPTUNA:
        return {"path": str(place), "trials": opened.export(place)}
    from tuneopt.analysis.optuna_storage import export_studies

    done = export_studies(opened, place)
    return {
        "path": str(place),
        "trials": done.trials,
        "added": done.added,
        "left_out": done.left_out,
        "studies": list(done.studies),
    }
