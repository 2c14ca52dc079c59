"""Tidying a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger


def clean(ledger: Ledger | str, *, dry_run: bool = False, days: float | None = None) -> dict[str, Any]:
    """Remove what no run needs from a ledger, and from this machine's cache where the ledger is remote.

    ``days`` also takes the checkpoints of unfinished trials that have been untouched for so long. With ``dry_run``
    nothing is removed. Returns what was found. Raises `InputError` where there is no ledger.
    """
    from tuneopt.data.cache import cache_folder
    from tuneopt.ledger import open_ledger
    from tuneopt.ledger.clean import CHECKPOINTS, clean_cache, leftovers, remove

    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger
    found = leftovers(opened, None if days is None else days * 86400)
    if not dry_run:
        remove(opened, found)
    found += clean_cache(opened, cache_folder() / CHECKPOINTS, dry_run=dry_run)
    return {
        "removed": not dry_run,
        "bytes": sum(each.bytes for each in found),
        "leftovers": [each.to_dict() for each in found],
    }
