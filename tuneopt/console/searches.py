"""How a sampled search ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import pairs, say
from tuneopt.console.sweeps import sweep_summary


def search_summary(summary: Mapping[str, Any]) -> None:
    """Show how a sampled search ended, and what must be said beside its result."""
    trials = summary["trials"]
    under = "" if summary["scheduler"] == "none" else f" under {summary['scheduler']}, {trials['cut']} cut"
    pairs({"search": f"{summary['search']}{under}, a budget of {trials['budget']} trials"})
    sweep_summary(summary)
    for mark in summary["marks"]:
        say(f"note: {mark}")
