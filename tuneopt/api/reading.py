"""How results read: lines in a terminal, a table in a notebook, a pandas table, and the report's figures.

What a result says of itself is written once, as a headline and named values; ``repr``, the notebook's HTML and the
table follow from it. Figures are read from the records that a result rests on, never from memory of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api import plots
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

    from tuneopt.ledger import Ledger

MOST = 30
"""Rows of a table in a notebook; `Readable.to_pandas` has all."""


class Readable:
    """A result that reads well. Its three parts are what a subclass gives: headline, named values, rows."""

    def _headline(self) -> str:
        raise NotImplementedError

    def _facts(self) -> Mapping[str, str]:
        return {}

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        return ()

    def to_pandas(self) -> DataFrame:
        """The rows that the result rests on, as a pandas table; losses in nats per token, speedups in tokens."""
        import pandas

        return pandas.DataFrame(list(self._rows()))

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(map(len, facts), default=0)
        return "\n".join([self._headline(), *(f"  {name:<{width}}  {text}" for name, text in facts.items())])

    def _repr_html_(self) -> str:
        """What a notebook shows: the headline, the named values, and the first rows."""
        rows = list(self._rows())
        facts = "".join(f"<tr><th>{escape(name)}</th><td>{_linked(text)}</td></tr>"
                        for name, text in self._facts().items())  # fmt: skip
        return f"<p><b>{escape(self._headline())}</b></p><table>{facts}</table>{_table(rows)}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    heads = list(rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(row.get(name)))}</td>" for name in heads) + "</tr>" for row in rows[:MOST]
    )
    more = f"<p>{len(rows) - MOST} more rows are in <code>.to_pandas()</code></p>" if len(rows) > MOST else ""
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in heads)}</tr>{body}</table>{more}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.5g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _linked(text: str) -> str:
    """A local page as a link, everything else as text."""
    if text.endswith(".html") and Path(text).is_file():
        return f'<a href="{Path(text).resolve().as_uri()}">{escape(text)}</a>'
    return escape(text)


class Plotted:
    """A result whose records draw the report's figures, as plotly figures."""

    ledger: Ledger | None
    """Where its records are; None after a simulation, which leaves none."""

    @property
    def sweeps(self) -> list[str]:
        """Ids of the sweeps that the figures are about."""
        raise NotImplementedError

    @property
    def baseline(self) -> str | None:
        """Whom speedups are measured against; None for AdamW."""
        return None

    def plot_speedups(self, by: str = "ratio") -> Figure:
        """Speedups over the baseline, as `tuneopt.plot_speedups`."""
        return plots.plot_speedups(self._records(), sweeps=self.sweeps, baseline=self.baseline, by=by)

    def plot_flips(self, by: str = "ratio") -> Figure:
        """The order of the optimizers and where it changes, as `tuneopt.plot_flips`."""
        return plots.plot_flips(self._records(), sweeps=self.sweeps, baseline=self.baseline, by=by)

    def plot_curves(self) -> Figure:
        """Loss curves that cross, as `tuneopt.plot_curves`; of one optimizer alone, the curves of its sweep."""
        return plots.plot_curves(self._records(), sweeps=self.sweeps, baseline=self.baseline)

    def plot_star(self, optimizer: str | None = None) -> Figure:
        """What each single change of the best configuration costs, as `tuneopt.plot_star`."""
        return plots.plot_star(self._records(), sweeps=self.sweeps, optimizer=optimizer)

    def _records(self) -> Ledger:
        if self.ledger is None:
            raise InputError("a simulation leaves no records to draw; simulate with a report, or run it")
        return self.ledger
