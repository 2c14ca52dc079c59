"""Single fields of data that others wrote: of the right type and within bounds, or one sentence that says so.

The bounds are far beyond anything that can be trained. They keep sums and products within what a table can hold, and
hostile data from costing time or memory.
"""

from __future__ import annotations

import re
from typing import Any

from tuneopt.errors import InputError

LARGEST_COUNT = 2**63 - 1
"""Largest count of anything: what a 64-bit column holds."""

LARGEST_NUMBER = 1e300
"""Largest magnitude of a real number: products of a few ordinary ones with it stay finite or are refused as such."""

LARGEST_USUAL = 1e30
"""Largest magnitude of anything that was measured or tuned; the inverse is the smallest."""

LONGEST_TEXT = 4096
"""Characters of a name or word."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def text(name: str, value: Any, *, empty: bool = True) -> str:
    """A line of printable text; raises `InputError` for other types, control characters and half surrogates."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text, not {shown(value)}")
    if not value.isprintable() or len(value) > LONGEST_TEXT:
        raise InputError(f"{name} must be one line of up to {LONGEST_TEXT} printable characters, not {shown(value)}")
    if not (value or empty):
        raise InputError(f"{name} must not be empty")
    return value


def whole(name: str, value: Any, *, least: int = 0, most: int = LARGEST_COUNT) -> int:
    """A whole number within bounds; switches are none. Raises `InputError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} must be a whole number, not {shown(value)}")
    if not least <= value <= most:
        raise InputError(f"{name} must lie between {least} and {most}, not {shown(value)}")
    return int(value)


def switch(name: str, value: Any) -> bool:
    """True or false; raises `InputError` for anything else, numbers included."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {shown(value)}")
    return value


def sha256(name: str, value: Any) -> str:
    """64 lower-case hexadecimal digits; raises `InputError` otherwise."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise InputError(f"{name} must be a SHA-256 in hexadecimal digits, not {shown(value)}")
    return value


def is_number(value: Any) -> bool:
    """Whether ``value`` is a real number that arithmetic can bear: no switch, not NaN, not huge."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def is_usual(value: Any) -> bool:
    """Whether ``value`` is 0 or a number of a magnitude that logarithms and squares can bear."""
    return is_number(value) and (value == 0 or 1 / LARGEST_USUAL <= abs(value) <= LARGEST_USUAL)


def shown(value: Any) -> str:
    """A value for an error's sentence, cut where it is long."""
    if isinstance(value, int) and abs(value) > LARGEST_COUNT:
        return f"a number of {value.bit_length()} bits"
    found = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return found if len(found) <= 80 else found[:79] + "\u2026"
