"""What tidying a ledger did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import say


def cleaned(done: Mapping[str, Any]) -> None:
    """Name each leftover, and say how much it holds."""
    verb = "removed" if done["removed"] else "would go"
    for each in done["leftovers"]:
        say(f"{verb}: {each['name']} ({each['bytes'] / 2**20:.1f} MiB): {each['why']}")
    count = len(done["leftovers"])
    say(f"{verb}: {count} leftovers, {done['bytes'] / 2**20:.1f} MiB" if count else "nothing is left over")
