"""Sweeps as a ledger keeps them: a sweep's own fields, and whatever its driver noted beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError

_FIELDS = frozenset(field.name for field in fields(Sweep) if field.init)


def stored_sweep(plain: Mapping[str, Any], name: str) -> Sweep:
    """The sweep that a ledger's entry describes; raises `InputError` naming the entry where it describes none."""
    try:
        return Sweep.from_dict({key: value for key, value in plain.items() if key in _FIELDS})
    except InputError as error:
        raise InputError(f"sweeps/{name}.json of the ledger describes no sweep ({error}); move it away") from None
