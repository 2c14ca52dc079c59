"""Sweeps as a ledger keeps them: a sweep's own fields, and whatever its driver noted beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tuneopt.search.sweep import Sweep

_FIELDS = frozenset(field.name for field in fields(Sweep) if field.init)


def stored_sweep(plain: Mapping[str, Any]) -> Sweep:
    """The sweep that a ledger's entry describes; raises `InputError` where it describes none."""
    return Sweep.from_dict({name: value for name, value in plain.items() if name in _FIELDS})
