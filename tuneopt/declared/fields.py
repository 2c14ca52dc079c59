"""Reading single values of a declared file: the right type, in bounds, or one sentence that says what was meant."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tuneopt import checked
from tuneopt.declared.lines import Node
from tuneopt.spec import InputError, Value, nearest

_KINDS = {dict: "a mapping", list: "a list", bool: "a switch", int: "a whole number", float: "a number", str: "a word"}


def said(node: Node) -> str:
    """What stands in the file, in words."""
    if isinstance(node.plain, dict | list):
        return _KINDS[type(node.plain)]
    return "nothing" if node.plain is None else repr(node.plain)


def mapping(node: Node, what: str, known: Collection[str]) -> dict[str, Node]:
    """A mapping with no key but the known ones."""
    if not isinstance(node.plain, dict):
        node.fail(f"{what} must be a mapping of {', '.join(known)}, not {said(node)}")
    for key in node.plain:
        if key not in known:
            node.fail(f"unknown key {key!r} of {what}; {nearest(key, known)}", node.keys[key])
    return dict(node.plain)


def sequence(node: Node, what: str) -> Iterator[Node]:
    """The entries of a list, which must not be empty; a lone value counts as a list of one."""
    if isinstance(node.plain, dict) or node.plain is None or node.plain == []:
        node.fail(f"{what} must be a list with at least one entry, not {said(node)}")
    yield from node.plain if isinstance(node.plain, list) else (node,)


def word(node: Node, what: str, known: Collection[str] = ()) -> str:
    """A text, and one of the known ones where these are given."""
    if not isinstance(node.plain, str) or not node.plain.strip():
        node.fail(f"{what} must be a word, not {said(node)}" + (f"; known: {', '.join(known)}" if known else ""))
    try:
        checked.text(what, node.plain)
    except InputError as error:
        node.fail(str(error))
    if known and node.plain not in known:
        node.fail(f"unknown {what} {node.plain!r}; {nearest(node.plain, known)}")
    return str(node.plain)


def switch(node: Node, what: str) -> bool:
    """True or false."""
    if not isinstance(node.plain, bool):
        node.fail(f"{what} must be true or false, not {said(node)}")
    return bool(node.plain)


def number(node: Node, what: str, *, least: float = 0.0, above: bool = False, example: str = "") -> float:
    """A finite number, at least ``least`` or ``above`` it; YAML reads 1e-3 as a text, here it is a number."""
    value = node.plain
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    hint = f"; try {example}" if example else ""
    if not checked.is_number(value):
        node.fail(f"{what} must be a number, not {said(node)}{hint}")
    if value < least or (above and value == least):
        node.fail(f"{what} must be {'above' if above else 'at least'} {least:g}, not {value:g}{hint}")
    return float(value)


def whole(node: Node, what: str, *, least: int = 0, example: str = "") -> int:
    """A whole number of at least ``least``."""
    hint = f"; try {example}" if example else ""
    if isinstance(node.plain, bool) or not isinstance(node.plain, int):
        node.fail(f"{what} must be a whole number, not {said(node)}{hint}")
    if node.plain < least:
        node.fail(f"{what} must be at least {least}, not {node.plain}{hint}")
    if node.plain > checked.LARGEST_COUNT:
        node.fail(f"{what} must be a number that can be counted to, not {checked.shown(node.plain)}{hint}")
    return int(node.plain)


def value(node: Node, what: str) -> Value:
    """A hyperparameter's value."""
    if isinstance(node.plain, dict | list) or node.plain is None:
        node.fail(f"{what} must be one value, not {said(node)}")
    plain: Value = node.plain
    return plain
