"""What an export wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import say


def exported(done: Mapping[str, Any]) -> None:
    """Say what was written, and how to look at it."""
    if "studies" not in done:
        say(f"{done['trials']} trials written to {done['path']}")
        return
    say(f"{done['trials']} trials in {len(done['studies'])} studies of {done['path']}, {done['added']} of them new")
    if done["left_out"]:
        say(f"{done['left_out']} trials belong to no sweep and are in no study")
    say(f"look at it with: optuna-dashboard sqlite:///{done['path']}")
