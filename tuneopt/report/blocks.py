"""What a page is put together from, besides figures: tables, facts, prose, commands, folds and chapters.

Each knows its ``kind``, by which the template finds the macro that draws it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tuneopt.report.figure import Figure


@dataclass(frozen=True)
class Table:
    """A table: its title, column heads, rows of texts, the columns set in figures, and a remark under it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""

    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class NamedValues:
    """Named values, one to a line."""

    title: str
    facts: tuple[tuple[str, str], ...]
    note: str = ""

    kind: ClassVar[str] = "facts"


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
    """Blocks that a reader opens."""

    title: str
    blocks: tuple[Block, ...]

    kind: ClassVar[str] = "fold"


Block = Figure | Table | NamedValues | Prose | Command | Fold


@dataclass(frozen=True)
class Chapter:
    """A part of the page: its title, what it finds in a few sentences, and the blocks that show it."""

    anchor: str
    title: str
    lead: tuple[str, ...]
    blocks: tuple[Block, ...] = ()


def figures_of(blocks: Sequence[Block]) -> Iterator[Figure]:
    """Every figure among blocks, those in folds too, in reading order."""
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Fold):
            yield from figures_of(block.blocks)


def table_or_fold(table: Table, most: int = 24) -> Block:
    """A table as it is while it is short, folded when it is longer than ``most`` rows."""
    return table if len(table.rows) <= most else Fold(f"{table.title}: all {len(table.rows):,} rows", (table,))
