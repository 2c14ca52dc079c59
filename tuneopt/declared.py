"""Files in which users declare what they want (YAML): read strictly, and every mistake answered with its line.

`read_yaml` and `parse_yaml` give a tree of `Node` values that remember their lines; the functions below them read one
value each, of the right type and in bounds, or say in one sentence what stands there and what was meant. Only what
YAML's safe loader knows is read: mappings, sequences, texts, numbers, switches. Anchors, tags, keys given twice,
numbers to other bases than ten and texts beyond `MAX_BYTES` are refused: a short file could otherwise stand for a huge
one, or for two meanings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from tuneopt import checked
from tuneopt.errors import of_system
from tuneopt.paths import read_plain
from tuneopt.spec import InputError, Value, nearest

T = TypeVar("T")

MAX_BYTES = 64 * 1024
"""Largest file; the largest in this repository has some two thousand bytes."""

MAX_DEPTH = 12
"""Deepest nesting; a study needs five levels."""

_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9_]+(:[0-9]+)+(\.[0-9_]*)?)")
"""Numbers that YAML 1.1 reads by 8 or by 60: ``010`` is 8 there, and ``1:30`` is 90."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file: ``plain`` is a dict of `Node` by key, a list of `Node`, or a scalar; ``line`` counts from 1.

    ``keys`` holds the line of each key of a mapping. ``path`` names the file in errors, or the option that it came by.
    """

    plain: Any
    line: int
    path: str
    keys: dict[str, int]

    def fail(self, what: str, line: int | None = None) -> NoReturn:
        """Raise the `InputError` that says where the mistake is and what it is."""
        raise InputError(f"{self.path}:{line or self.line}: {what}")

    def items(self) -> Iterator[tuple[str, Node]]:
        """The entries of a mapping."""
        yield from self.plain.items()


def read_yaml(path: Path, what: str, example: str) -> Node:
    """The one document of a YAML file; raises `InputError` with the place of what is wrong.

    ``what`` the file is ("study") and an ``example`` of one are named in errors.
    """
    try:
        text = read_plain(path, MAX_BYTES).decode()
    except FileNotFoundError:
        raise InputError(f"there is no {what} file at {path}; {example} is an example") from None
    except InputError as error:
        raise InputError(f"{path}:1: no {what} file: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:1: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise of_system(error, path) from None
    return parse_yaml(text, str(path), example)


def parse_yaml(text: str, path: str, example: str) -> Node:
    """The one document of a text; ``path``, and an ``example`` of such a file, are named in errors.

    PyYAML is imported here: most commands read no YAML.
    """
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """The safe loader, which refuses aliases and deep nesting where they begin, before it reads on."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            """One value and all that is in it."""
            line = self.peek_event().start_mark.line + 1
            if self.check_event(yaml.events.AliasEvent):
                raise InputError(f"{path}:{line}: anchors and aliases are not read here; write the value out")
            self.depth += 1
            if self.depth > MAX_DEPTH + 1:  # a thousand brackets would cost seconds
                raise InputError(f"{path}:{line}: nested too deeply; {MAX_DEPTH} levels are read")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    def convert(node: Any) -> Node:
        """YAML's own nodes, which know their lines, as ours: its constructor would keep the last of two equal keys."""
        line = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            return Node([convert(entry) for entry in node.value], line, path, {})
        if not isinstance(node, yaml.MappingNode):
            try:
                value = loader.construct_object(node)
            except ValueError as error:  # a date that is none, a number of thousands of digits
                raise InputError(f"{path}:{line}: {node.value[:40]!r} cannot be read ({error})") from None
            if not isinstance(value, str | None) and _OTHER_BASE.fullmatch(node.value):
                short = node.value[:40]
                raise InputError(f"{path}:{line}: YAML reads {short} to another base than ten; write the number out")
            if value is None or isinstance(value, bool | int | float | str):
                return Node(value, line, path, {})
            kind = type(value).__name__
            raise InputError(f"{path}:{line}: {node.value!r} is read as a {kind}; put it in quotes")
        entries: dict[str, Node] = {}
        keys: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, here = str(key_node.value), key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{path}:{here}: a key must be a word")
            if key in entries:
                raise InputError(f"{path}:{here}: {key!r} is given twice, first in line {keys[key]}; keep one")
            entries[key], keys[key] = convert(value_node), here
        return Node(entries, line, path, keys)

    try:
        loader = Loader(text)
    except yaml.YAMLError as error:  # control characters
        raise InputError(f"{path}:1: not YAML ({error})") from None
    try:
        root = loader.get_single_node()
        if root is None:
            raise InputError(f"{path}:1: the file is empty; {example} is an example")
        return convert(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(str(error.problem or error.context).split())
        raise InputError(f"{path}:{mark.line + 1 if mark else 1}: not YAML ({what})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}:1: not YAML ({' '.join(str(error).split())})") from None
    finally:
        loader.dispose()


_KINDS = {dict: "a mapping", list: "a list"}


def in_words(node: Node) -> str:
    """What stands in the file, in words."""
    if isinstance(node.plain, dict | list):
        return _KINDS[type(node.plain)]
    return "nothing" if node.plain is None else repr(node.plain)


def mapping(node: Node, what: str, known: Collection[str]) -> dict[str, Node]:
    """A mapping with no key but the known ones; an unknown key is answered with the nearest of them."""
    if not isinstance(node.plain, dict):
        node.fail(f"{what} must be a mapping of {', '.join(known)}, not {in_words(node)}")
    for key in node.plain:
        if key not in known:
            node.fail(f"unknown key {key!r} of {what}; {nearest(key, known)}", node.keys[key])
    return dict(node.plain)


def sequence(node: Node, what: str) -> Iterator[Node]:
    """The entries of a list, which must not be empty; a lone value counts as a list of one.

    A mapping is refused: its keys in a list's place are a mistake, and not a list of one.
    """
    if isinstance(node.plain, dict) or node.plain is None or node.plain == []:
        node.fail(f"{what} must be a list with at least one entry, not {in_words(node)}")
    yield from node.plain if isinstance(node.plain, list) else (node,)


def distinct(node: Node, what: str, one: str, read: Callable[[Node], T]) -> list[T]:
    """What ``read`` makes of the entries of a list; ``one`` of them that is listed twice is a mistake."""
    found: list[T] = []
    for entry in sequence(node, what):
        found.append(read(entry))
        if found[-1] in found[:-1]:
            shown = f"{found[-1]:g}" if isinstance(found[-1], float | int) else found[-1]
            entry.fail(f"{one} {shown} is listed twice; keep one")
    return found


def word(node: Node, what: str, known: Collection[str] = ()) -> str:
    """A text, and one of the known ones where these are given; an unknown one is answered with the nearest."""
    if not isinstance(node.plain, str) or not node.plain.strip():
        node.fail(f"{what} must be a word, not {in_words(node)}" + (f"; known: {', '.join(known)}" if known else ""))
    try:
        checked.text(what, node.plain)
    except InputError as error:
        node.fail(str(error))
    if known and node.plain not in known:
        node.fail(f"unknown {what} {node.plain!r}; {nearest(node.plain, known)}")
    return str(node.plain)


def switch(node: Node, what: str) -> bool:
    """True or false; YAML 1.1 reads yes, no, on and off as such too."""
    if not isinstance(node.plain, bool):
        node.fail(f"{what} must be true or false, not {in_words(node)}")
    return bool(node.plain)


def number(node: Node, what: str, *, least: float = 0.0, above: bool = False, example: str = "") -> float:
    """A finite number, at least ``least`` or ``above`` it; YAML reads 1e-3 as a text, here it is a number.

    ``example`` stands in errors. A switch is no number, though Python counts it as one.
    """
    value = node.plain
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    hint = f"; try {example}" if example else ""
    if not checked.is_number(value):
        node.fail(f"{what} must be a number, not {in_words(node)}{hint}")
    if value < least or (above and value == least):
        node.fail(f"{what} must be {'above' if above else 'at least'} {least:g}, not {value:g}{hint}")
    return float(value)


def whole(node: Node, what: str, *, least: int = 0, example: str = "") -> int:
    """A whole number of at least ``least``, and no more than a table's column holds."""
    hint = f"; try {example}" if example else ""
    if isinstance(node.plain, bool) or not isinstance(node.plain, int):
        node.fail(f"{what} must be a whole number, not {in_words(node)}{hint}")
    if node.plain < least:
        node.fail(f"{what} must be at least {least}, not {node.plain}{hint}")
    if node.plain > checked.LARGEST_COUNT:
        node.fail(f"{what} must be a number that can be counted to, not {checked.shown(node.plain)}{hint}")
    return int(node.plain)


def value(node: Node, what: str) -> Value:
    """A hyperparameter's value: a number, a word or a switch, which its search space checks."""
    if isinstance(node.plain, dict | list) or node.plain is None:
        node.fail(f"{what} must be one value, not {in_words(node)}")
    plain: Value = node.plain
    return plain
