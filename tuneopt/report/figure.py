"""What every figure of the report has: a title, one sentence on how to read it, its data, and a plotly drawing."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from tuneopt.report.drawing import Drawing

Cell = str | int | float | bool | None


class Info(Protocol):
    """The pure data of a figure; its drawer sees nothing else."""

    @property
    def title(self) -> str:
        """What is shown, in a few words."""

    @property
    def reading(self) -> str:
        """One sentence that says how to read the figure."""

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """The figure's data as column names, units included, and rows."""


@dataclass(frozen=True)
class Figure:
    """A figure as the page takes it in: texts, the drawing as plotly's plain data, and the data as CSV text."""

    key: str
    title: str
    reading: str
    plot: Mapping[str, Any]
    height: int
    csv: str

    kind: ClassVar[str] = "figure"

    @classmethod
    def of(cls, key: str, info: Info, drawing: Drawing) -> Figure:
        """A figure from its info and what its drawer made of it; ``key`` is unique on the page."""
        plain = drawing.plain()
        return cls(key, info.title, info.reading, plain, plain["layout"]["height"], csv_text(*info.data()))


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """CSV with a header. Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(cell) for cell in row] for row in rows])
    return sink.getvalue()


def _cell(cell: Cell) -> Cell:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return float(f"{cell:.7g}")
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
