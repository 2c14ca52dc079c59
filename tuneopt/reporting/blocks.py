"""What a page is put together from: figures, tables, named values, prose, commands, folds and chapters.

An info is the pure data of a figure, and its drawer sees nothing else. `Figure.of` joins the two with the CSV that the
reader can download, so that picture and data cannot disagree. Each block knows its ``kind``, by which the template
finds the macro that writes it as HTML; nothing stands between the two.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ClassVar, TypeVar

from tuneopt.reporting.drawing import Drawing
from tuneopt.reporting.panels import WIDE, Panels

Cell = str | int | float | bool | None


class Info:
    """The pure data of a figure, a frozen dataclass; its drawer sees nothing else.

    A subclass states ``columns`` (the names of its data with units, such as ``loss_nats``), and writes the methods with
    an underscore. A title that is always the same may stand in the place of the property.
    """

    columns: ClassVar[tuple[str, ...]]

    @property
    def title(self) -> str:
        """What is shown, in a few words."""
        return self._title()

    @property
    def reading(self) -> str:
        """One sentence that says how to read the figure, by which rule it marks things, and what it leaves out."""
        return self._reading()

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """The figure's data: column names and rows, unrounded, with what the drawing leaves out as far as known."""
        return self.columns, self._rows()

    def _title(self) -> str:
        raise NotImplementedError

    def _reading(self) -> str:
        raise NotImplementedError

    def _rows(self) -> list[tuple[Cell, ...]]:
        raise NotImplementedError


InfoT = TypeVar("InfoT", bound=Info)


@dataclass(frozen=True)
class Figure:
    """A figure as the page takes it in: its texts, what is drawn, and the data as CSV text.

    On a screen it is ``width`` pixels wide.
    """

    key: str
    title: str
    reading: str
    drawn: Drawing | Panels
    csv: str
    width: int = WIDE

    kind: ClassVar[str] = "figure"

    @classmethod
    def of(cls, key: str, info: InfoT, draw: Callable[[InfoT], Drawing | Panels], width: int = WIDE) -> Figure:
        """A figure from its info and its drawer; ``key`` is unique on the page."""
        return cls(key, info.title, info.reading, draw(info), csv_text(*info.data()), width)

    def at(self, width: int) -> Mapping[str, Any]:
        """The drawing as plotly's plain data, laid out for a width in pixels."""
        return self.drawn.plain(width) if isinstance(self.drawn, Panels) else self.drawn.plain()

    @property
    def plot(self) -> Mapping[str, Any]:
        """The drawing as plotly's plain data, laid out for a screen."""
        return self.at(self.width)

    @classmethod
    def all(cls, key: str, infos: Sequence[InfoT | None], draw: Callable[[InfoT], Drawing | Panels]) -> list[Figure]:
        """The figures of the infos that there are; the second and later ones get a number behind ``key``."""
        known = [info for info in infos if info is not None]
        return [cls.of(f"{key}-{number}" if number else key, info, draw) for number, info in enumerate(known)]


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """CSV with a header. Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(cell) for cell in row] for row in rows])
    return sink.getvalue()


def _cell(cell: Cell) -> Cell:
    if type(cell) is int:  # as floats and texts below, most of what there is
        return cell
    if isinstance(cell, float):
        return float(f"{cell:.7g}")  # a loss is known to five digits; more would suggest otherwise and double the page
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


@dataclass(frozen=True)
class Table:
    """A table: its title, column heads, rows of texts, the columns set in figures, and a remark under it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""

    kind: ClassVar[str] = "table"

    def folded(self, most: int = 24) -> Block:
        """The table as it is while it is short, in a fold when it is longer than ``most`` rows, a screen's height."""
        return self if len(self.rows) <= most else Fold(f"{self.title}: all {len(self.rows):,} rows", (self,))


@dataclass(frozen=True)
class NamedValues:
    """Named values, one to a line."""

    title: str
    values: tuple[tuple[str, str], ...]
    note: str = ""

    kind: ClassVar[str] = "values"


@dataclass(frozen=True)
class Prose:
    """Sentences, one paragraph each."""

    sentences: tuple[str, ...]

    kind: ClassVar[str] = "prose"


@dataclass(frozen=True)
class Command:
    """A command line to copy, and what it does."""

    title: str
    text: str

    kind: ClassVar[str] = "command"


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens: long tables, and what is asked for rarely. Nothing that changes a conclusion."""

    title: str
    blocks: tuple[Block, ...]

    kind: ClassVar[str] = "fold"


@dataclass(frozen=True)
class Columns:
    """Blocks that stand next to each other where the screen is wide enough."""

    blocks: tuple[Block, ...]

    kind: ClassVar[str] = "columns"


Block = Figure | Table | NamedValues | Prose | Command | Fold | Columns


@dataclass(frozen=True)
class Chapter:
    """A part of the page: its title, what it finds in a few sentences (``lead``), and the blocks that show it.

    Without blocks, the lead says what would fill the chapter. ``anchor`` is the id that links lead to.
    """

    anchor: str
    title: str
    lead: tuple[str, ...]
    blocks: tuple[Block, ...] = ()

    @property
    def shown_first(self) -> tuple[Figure, ...]:
        """The figures that the chapter begins with: their titles are its findings, so its sentences come after."""
        return tuple(takewhile(lambda block: isinstance(block, Figure), self.blocks))  # type: ignore[arg-type]


def figures_of(blocks: Sequence[Block]) -> Iterator[Figure]:
    """Every figure among blocks, those in folds too, in reading order."""
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Fold | Columns):
            yield from figures_of(block.blocks)
