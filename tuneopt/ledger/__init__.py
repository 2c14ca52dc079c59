"""The store of all trial records: one small file for each finished trial, in a folder or an object store.

From below: `files` writes whole files, `place` finds them by an address, `record` is one trial, `damage` says what is
wrong with a file, `compaction` and `table` make one table of all, and `store` is the `Ledger` that everybody uses.
Beside it stand `lease`, `logs`, `folders`, `browse` and `clean`.

Names resolve lazily, so that importing this package stays light (no pyarrow until a table is asked for).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.ledger.browse import find_record, short_rows
    from tuneopt.ledger.record import CurvePoint, TrialRecord, finite
    from tuneopt.ledger.store import Ledger, open_ledger

__all__ = ["CurvePoint", "Ledger", "TrialRecord", "find_record", "finite", "open_ledger", "short_rows"]

_HOMES = {"Ledger": "store", "open_ledger": "store", "find_record": "browse", "short_rows": "browse"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'record')}"), name)
