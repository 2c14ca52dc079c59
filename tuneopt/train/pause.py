"""How often a trial writes a checkpoint: a setting of the run, which changes no result."""

from __future__ import annotations

import os

from tuneopt.spec import InputError

PAUSE_VARIABLE = "TUNEOPT_CHECKPOINT_SECONDS"
PAUSE_SECONDS = 10.0
"""Least time between checkpoints, unless the environment says another."""


def pause_seconds() -> float:
    """Least seconds between checkpoints; raises `InputError` where the environment names no such time."""
    text = os.environ.get(PAUSE_VARIABLE, "")
    try:
        seconds = float(text) if text else PAUSE_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{PAUSE_VARIABLE} must be a number of seconds from 0 up, not {text!r}; leave it out for 10")
    return seconds
