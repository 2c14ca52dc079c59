"""Study files as YAML with lines; an example is named where a file is missing or empty."""

from __future__ import annotations

from pathlib import Path

from tuneopt import declared
from tuneopt.declared import MAX_BYTES, Node

__all__ = ["MAX_BYTES", "Node", "parse_yaml", "read_yaml"]

EXAMPLE = "studies/smoke.yaml"


def read_yaml(path: Path) -> Node:
    """The one document of a study file; raises `InputError` with the place of what is wrong."""
    return declared.read_yaml(path, "study", EXAMPLE)


def parse_yaml(text: str, path: str) -> Node:
    """The one document of a study's text; ``path`` is named in errors."""
    return declared.parse_yaml(text, path, EXAMPLE)
