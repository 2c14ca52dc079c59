"""Reading single values of a study file: scales and ratios, beside what every declared file holds."""

from __future__ import annotations

import math

from tuneopt.declared import Node, in_words, mapping, number, sequence, switch, value, whole, word
from tuneopt.spec import InputError, Regime, Scale, find_scale

__all__ = ["in_words", "label", "mapping", "number", "ratio", "scale", "sequence", "switch", "value", "whole", "word"]


def scale(node: Node, what: str = "scale", line: int | None = None, text: str | None = None) -> Scale:
    """A scale by its name, which is the node's own text or a key's."""
    name = node.plain if text is None else text
    if not isinstance(name, str):
        node.fail(f"{what} must be the name of a scale, not {in_words(node)}; try 130m or nano-65k")
    try:
        return find_scale(name)
    except InputError as error:
        node.fail(str(error), line)


def ratio(node: Node) -> float:
    """A data-to-model ratio."""
    value = number(node, "a ratio", least=-math.inf, example="1")
    if value <= 0:
        node.fail(f"a ratio must be a positive number of Chinchilla budgets, not {value:g}; try 1")
    return value


def label(regime: Regime) -> str:
    """A regime for messages."""
    return f"{regime.scale.name} at ratio {regime.ratio:g}"
