"""What a cell of somebody's table means: numbers as people write them, and names as people spell them.

A number may carry a unit (``1.3B``), group its digits (``2,600,000``) or have a decimal comma (``3,53``), beside which
points group digits. Whether a comma is a decimal mark is decided once for a whole table, from the cells that leave no
doubt: read cell by cell, ``3,530`` would be 3.53 in one row and 3,530 in the next.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuneopt import checked
from tuneopt.spec import InputError

UNITS: Mapping[str, float] = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15}
"""Letters behind a count, in either case; B and G are both a billion."""

EMPTY = frozenset({"", "nan", "-nan", "na", "n/a", "#n/a", "null", "none", "nil"})
"""Words by which exports of tables write an empty cell, in lower case."""

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WITH_UNIT = re.compile(r"(.*\d\.?)\s*([a-z])", re.IGNORECASE)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d{1,3}((\.\d{3})*|\d*),\d+(e[+-]?\d+)?", re.IGNORECASE)
_GROUPED_BY_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_SPACES = re.compile(r"(?<=\d)[ \u00a0\u202f'](?=\d{3})")


class AmbiguousCommaError(ValueError):
    """A comma that may be a decimal mark or may group digits, in a table that says nowhere which."""


def is_empty(value: Any) -> bool:
    """Whether a cell of a numeric column says nothing."""
    return value is None or (isinstance(value, str) and value.strip().lower() in EMPTY)


def decimal_comma(texts: Iterable[str], usual: bool = False) -> bool | None:
    """Whether a comma is the decimal mark in the numbers of one table; None where they do not say.

    ``3,53`` and ``1.300.000`` say yes, ``3.53`` and ``1,300,000`` say no. ``3,530`` alone says nothing, and then
    ``usual`` stands if it is true: a table whose cells are parted by semicolons has them for the sake of its commas.
    Beside a ``5.000`` it does not stand, for one of the two groups digits. Raises `InputError` for a table that says
    both.
    """
    yes = no = ""
    points = False  # a point that may be a decimal mark or may group digits
    for text in texts:
        word = _SPACES.sub("", text.strip())
        if "," in word:
            if _GROUPED.fullmatch(word):
                no = no or (word if "." in word or word.count(",") > 1 else "")
            elif _DECIMAL_COMMA.fullmatch(word):
                yes = yes or word
        elif _GROUPED_BY_POINTS.fullmatch(word):
            points = True
            yes = yes or (word if word.count(".") > 1 else "")
        elif re.fullmatch(r"[+-]?\d*\.\d+", word):
            no = no or word
    if yes and no:
        raise InputError(
            f"the results write numbers in two ways, {checked.shown(yes)} and {checked.shown(no)}; use one decimal mark"
        )
    return True if yes else False if no else True if usual and not points else None


def may_be_grouped(text: str) -> bool:
    """Whether a number's points may group its digits, as in ``5.000``."""
    return _GROUPED_BY_POINTS.fullmatch(text.strip()) is not None


def number(text: str, comma: bool | None = None, units: bool = False) -> float:
    """The number that a text writes; ``comma`` is what `decimal_comma` says, ``units`` allows a letter behind it.

    Raises `ValueError` for a text that is no number (among them ``3_53``, which Python would read as 353), and
    `AmbiguousCommaError` for ``3,530`` where the table does not say what its commas mean.
    """
    word = _SPACES.sub("", text.strip())
    size = 1.0
    if units and not _PLAIN.fullmatch(word) and (match := _WITH_UNIT.fullmatch(word)):
        word, size = match[1].strip(), UNITS.get(match[2].lower(), math.nan)
        if math.isnan(size):
            raise ValueError(f"no unit {match[2]!r}")
    if "," in word:
        if comma and _DECIMAL_COMMA.fullmatch(word):
            word = word.replace(".", "").replace(",", ".")
        elif comma is False and _GROUPED.fullmatch(word):
            word = word.replace(",", "")
        elif comma is None and _GROUPED.fullmatch(word):
            raise AmbiguousCommaError("a comma that may be a decimal mark or may group digits")
    elif comma and _GROUPED_BY_POINTS.fullmatch(word):  # 5.000 steps are five thousand there
        word = word.replace(".", "")
    if word.lower().lstrip("+-") in ("inf", "infinity"):
        return math.copysign(math.inf, -1 if word.startswith("-") else 1)
    if not _PLAIN.fullmatch(word):
        raise ValueError("no number")
    return float(word) * size


def size_of(scale: str, comma: bool | None) -> float | None:
    """The parameters that a scale's own name gives, such as ``1.3B``; None for a name that is no size."""
    try:
        return number(scale, comma, units=True) if scale[-1:].lower() in UNITS else None
    except ValueError:
        return None


def value(text: str) -> Any:
    """A hyperparameter that came as text: a switch, a whole number, a number, else the text as it is."""
    word = text.strip()
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if re.fullmatch(r"[+-]?\d{1,15}", word):
        return int(word)
    return float(word) if _PLAIN.fullmatch(word) else text


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with its lists and objects as JSON text, and torch's pair ``betas`` as beta1 and beta2."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if (
            str(key).rpartition(".")[2] == "betas"  # in a group, too
            and isinstance(value, Sequence)
            and len(value) == 2
            and all(map(checked.is_number, value))
        ):
            flat |= {"beta1": value[0], "beta2": value[1]}
        else:
            flat[key] = json.dumps(value) if isinstance(value, Mapping | list) else value
    return flat


def points(curve: Any) -> list[tuple[float, float]]:
    """The points of a learning curve, fraction of the run and loss, in order; a list of them, or that as JSON text.

    Raises `TypeError`, `ValueError` or `KeyError` for what is no curve.
    """
    if curve is None or curve == "":
        return []
    listed = json.loads(curve) if isinstance(curve, str) else list(curve)
    pairs = [(one["fraction"], one["loss"]) if isinstance(one, Mapping) else tuple(one) for one in listed]
    return sorted((float(fraction), float(loss)) for fraction, loss in pairs if loss is not None)


def folded(name: str) -> str:
    """A name without case and separators, to compare spellings: ``Adam-W`` and ``adam_w`` are one.

    Between two digits separators count, all alike: ``1.2b`` is no ``12b``. So does what a number begins with, as in
    ``wd .1``, ``p=-0.5`` and ``1e-3``, and a raised or lowered digit is no plain one.
    """
    raised = (f"^{one}" if unicodedata.decomposition(one).startswith(("<super>", "<sub>")) else one for one in name)
    one = unicodedata.normalize("NFKC", "".join(raised))
    one = re.sub(r"(?<!\w)\.(?=\d)", "0,", one)
    one = re.sub(r"((?<!\w)|(?<=\d[eE]))-(?=\d)", "~", one)
    one = re.sub(r"(?<=\d)[\s_\-./:]+(?=\d)", ",", one)
    return re.sub(r"[\s_\-./:]+", "", one).lower()


def one_spelling(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """The spelling that each of ``names`` gets: that of ``known`` where one is meant, else its first in the table."""
    spelled = {folded(name): name for name in known}
    return {name: spelled.setdefault(folded(name) or name, name) for name in names}
