"""Search: declared spaces, coordinate descent to a certificate, whole sweeps, studies and predictions.

Pure Python over plain values; importing it loads nothing heavy. Names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Certificate": "descent",
    "Change": "descent",
    "Coordinate": "space",
    "Descent": "descent",
    "LadderSpace": "space",
    "Move": "replaying",
    "Outcome": "plan",
    "SearchSpace": "space",
    "Sweep": "sweep",
    "SweepState": "state",
    "descend": "descent",
    "load_space": "space",
    "space_names": "space",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
