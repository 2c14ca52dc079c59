"""Hyperparameters as users type them."""

from __future__ import annotations

from collections.abc import Sequence

from tuneopt.spec import InputError, Value


def parse_value(text: str) -> Value:
    """A hyperparameter value as typed: true/false, a whole number, a number, else a word."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_assignments(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a mapping of texts; raises `InputError` for a pair without a name, a value or an ``=``."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise InputError(f"{option} {pair!r} is not of the form name=value, such as learning_rate=0.01")
        if name.strip() in parsed:
            raise InputError(f"{option} names {name.strip()!r} twice; keep one")
        parsed[name.strip()] = value.strip()
    return parsed


def parse_grids(pairs: Sequence[str]) -> dict[str, list[Value]]:
    """``["a=1,2", "b=cosine,linear"]`` as lists of values."""
    texts = parse_assignments(pairs, "--grid")
    return {name: [parse_value(word) for word in text.split(",")] for name, text in texts.items()}


def parse_values(pairs: Sequence[str], option: str) -> dict[str, Value]:
    """``["a=1", "b=cosine"]`` as a mapping of values; raises `InputError` as `parse_assignments` does."""
    return {name: parse_value(text) for name, text in parse_assignments(pairs, option).items()}
