"""YAML as plain values that remember their lines, so that every mistake can be answered with its place.

Only what YAML's safe loader knows is read: mappings, sequences, texts, numbers, switches. Anchors, tags, duplicate keys
and texts beyond `MAX_BYTES` are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tuneopt.spec import InputError

MAX_BYTES = 64 * 1024
"""Largest file; the largest in this repository has some two thousand bytes."""

MAX_DEPTH = 12
"""Deepest nesting; a study needs five levels."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file: ``plain`` is a dict of `Node` by key, a list of `Node`, or a scalar; ``line`` counts from 1.

    ``keys`` holds the line of each key of a mapping.
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
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path}:1: a {what} file holds up to {MAX_BYTES // 1024} KiB, and this has {size} bytes")
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise InputError(f"there is no {what} file at {path}; {example} is an example") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:1: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a YAML file") from None
    return parse_yaml(text, str(path), example)


def parse_yaml(text: str, path: str, example: str) -> Node:
    """The one document of a text; ``path``, and an ``example`` of such a file, are named in errors."""
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """The safe loader, without aliases: a short text could otherwise stand for a huge one."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Refuse aliases where they appear."""
            if self.check_event(yaml.events.AliasEvent):
                mark = self.peek_event().start_mark
                raise InputError(f"{path}:{mark.line + 1}: anchors and aliases are not read here; write the value out")
            self.depth = getattr(self, "depth", 0) + 1
            if self.depth > MAX_DEPTH + 1:  # before any more of it is read: a thousand brackets cost seconds
                line = self.peek_event().start_mark.line + 1
                raise InputError(f"{path}:{line}: nested too deeply; {MAX_DEPTH} levels are read")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    try:
        loader = Loader(text)
    except yaml.YAMLError as error:  # control characters
        raise InputError(f"{path}:1: not YAML ({error})") from None
    try:
        root = loader.get_single_node()
        if root is None:
            raise InputError(f"{path}:1: the file is empty; {example} is an example")
        return _node(loader, root, path, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(str(error.problem or error.context).split())
        raise InputError(f"{path}:{mark.line + 1 if mark else 1}: not YAML ({what})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}:1: not YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise InputError(f"{path}:1: nested too deeply; {MAX_DEPTH} levels are read") from None
    finally:
        loader.dispose()


def _node(loader: Any, node: Any, path: str, depth: int) -> Node:
    import yaml

    line = node.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise InputError(f"{path}:{line}: nested too deeply; {MAX_DEPTH} levels are read")
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Node] = {}
        keys: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, here = str(key_node.value), key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{path}:{here}: a key must be a word")
            if key in entries:
                raise InputError(f"{path}:{here}: {key!r} is given twice, first in line {keys[key]}; keep one")
            entries[key], keys[key] = _node(loader, value_node, path, depth + 1), here
        return Node(entries, line, path, keys)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(loader, each, path, depth + 1) for each in node.value], line, path, {})
    return Node(_scalar(loader, node, path, line), line, path, {})


def _scalar(loader: Any, node: Any, path: str, line: int) -> Any:
    try:
        value = loader.construct_object(node)
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise InputError(f"{path}:{line}: {node.value[:40]!r} cannot be read ({error})") from None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{path}:{line}: {node.value!r} is read as a {type(value).__name__}; put it in quotes")
