"""The store of all trial records: schema, durable store, compaction, import and export.

Names resolve lazily, so that importing this package stays light (no pyarrow until a table is asked for).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.ledger.browse import find_record, short_rows
    from tuneopt.ledger.checks import finite
    from tuneopt.ledger.record import CurvePoint, TrialRecord
    from tuneopt.ledger.store import Ledger, open_ledger

__all__ = ["CurvePoint", "Ledger", "TrialRecord", "find_record", "finite", "open_ledger", "short_rows"]

_HOMES = {
    "CurvePoint": "record",
    "Ledger": "store",
    "TrialRecord": "record",
    "find_record": "browse",
    "finite": "checks",
    "open_ledger": "store",
    "short_rows": "browse",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
