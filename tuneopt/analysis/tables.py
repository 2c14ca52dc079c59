"""Analysis values as pyarrow tables, for notebooks and downloads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from tuneopt.analysis.runs import RegimeKey

if TYPE_CHECKING:
    import pyarrow as pa


def as_table(values: Iterable[Any]) -> pa.Table:
    """One row per value, for the frozen dataclasses of this package (such as `Speedup`, `Budget` or `Flip`).

    A regime becomes the columns corpus, scale and ratio; other nested values become text. ``.to_pandas()`` of the
    result is a data frame.
    """
    import pyarrow as pa

    return pa.Table.from_pylist([_row(value) for value in values])


def _row(value: Any) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, RegimeKey):
            row |= {"corpus": part.corpus, "scale": part.scale, "ratio": part.ratio}
        elif is_dataclass(part) or isinstance(part, tuple):
            row[field.name] = _text(part)
        else:
            row[field.name] = part
    return row


def _text(part: Any) -> str:
    if isinstance(part, tuple):
        return " ".join(_text(item) for item in part)
    if is_dataclass(part) and not isinstance(part, type):
        return " ".join(f"{field.name}={_text(getattr(part, field.name))}" for field in fields(part))
    return str(part)
