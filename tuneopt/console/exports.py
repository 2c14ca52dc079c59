"""What an export wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import say


def exported_model(done: Mapping[str, Any]) -> None:
    """Say where the model is, whether it is the recorded one, and how to load it."""
    say(f"the model of trial {done['trial']} is in {done['path']} ({done['bytes'] / 2**20:.1f} MiB)")
    again = done["retrained_select_loss"]
    if again is not None:
        same = "as recorded" if again == done["select_loss"] else f"recorded {done['select_loss']:.6f}"
        say(f"trained again: select loss {again:.6f}, {same}")
    say(f"load it with: transformers.AutoModelForCausalLM.from_pretrained({done['path']!r})")


def exported(done: Mapping[str, Any]) -> None:
    """Say what was written, and how to look at it."""
    if "studies" not in done:
        say(f"{done['trials']} trials written to {done['path']}")
        return
    say(f"{done['trials']} trials in {len(done['studies'])} studies of {done['path']}, {done['added']} of them new")
    if done["left_out"]:
        say(f"{done['left_out']} trials belong to no sweep and are in no study")
    say(f"look at it with: optuna-dashboard sqlite:///{done['path']}")
