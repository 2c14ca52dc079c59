"""Tables on stdout, notes on stderr, and the form of figures for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuneopt.errors import visible
from tuneopt.streams import results


class PlainConsole(Console):
    """A console that passes no control character of a text on to the terminal: names come from files of others."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Text as rich renders it, with what would steer a terminal spelt out."""
        return super().render_str(visible(text, keep="\n"), **how)

    def on_broken_pipe(self) -> None:
        """Let the error out, which ends a command well: rich would silence stderr and end it with an exit code."""
        raise


class ResultConsole(PlainConsole):
    """A console on the stream of results, which is not ``sys.stdout`` while a command runs (`tuneopt.streams`)."""

    @property
    def file(self) -> IO[str]:
        """Where results go now."""
        return results()

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        """Nothing: the stream is that of the process."""


out = ResultConsole(highlight=False, soft_wrap=True)

err = PlainConsole(stderr=True, highlight=False, soft_wrap=True)

_wide = ResultConsole(highlight=False, width=10_000)  # never cuts a cell; a narrow terminal wraps the lines itself


def say(text: str) -> None:
    """A note on stderr."""
    err.print(text, markup=False)


def number(value: float, unit: str = "") -> str:
    """A count in the form people read: 1,310,720 below a million or so, 2.68e+09 beyond."""
    text = f"{value:,.0f}" if abs(value) < 1e8 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def span(seconds: float) -> str:
    """A duration such as 42 s, 7 min 30 s, 3 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def report_lines(path: str) -> dict[str, str]:
    """Where a report is, and its address for a browser: terminals open it at a click."""
    local = path and "://" not in path
    return {"report": path or "none", **({"open": Path(path).resolve().as_uri()} if local else {})}


def loss(value: float | None) -> str:
    """A loss in nats per token, four decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a plain table at its full width: nothing is cut, a narrow terminal wraps the lines."""
    grid = Table(*headings, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*("" if cell is None else str(cell) for cell in row))
    _wide.print(grid, markup=False)


def pairs(mapping: Mapping[str, Any]) -> None:
    """Print names and values in two columns; no line is longer than what stands in it."""
    width = max(map(len, mapping), default=0)
    for name, value in mapping.items():
        _wide.print(f"{name:<{width}}  {value}", markup=False, emoji=False)
