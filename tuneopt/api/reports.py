"""Reports of ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger


def report(ledger: Ledger | str, path: Path | str, sweeps: Sequence[str] | None = None) -> dict[str, Any]:
    """Write the one-file HTML report of a ledger (or of some of its sweeps); returns what ``report --json`` prints."""
    from tuneopt.ledger import open_ledger
    from tuneopt.report import write_report

    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger
    return write_report(opened, Path(path), sweeps)
