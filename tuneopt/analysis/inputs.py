"""What an analysis starts from: every run of a source, its learning curves, and what a reader must know of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.analysis.runs import Rows, Run, read_runs

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class Inputs:
    """Runs of all statuses, and their curves with the columns trial, fraction, select_loss and report_loss.

    ``source`` names where they come from; ``notes`` are sentences on what the source does not say.
    """

    runs: tuple[Run, ...]
    curves: pa.Table | None
    source: str
    notes: tuple[str, ...] = ()


def from_ledger(table: pa.Table, curves: pa.Table | None = None) -> Inputs:
    """A ledger's table (`Ledger.table`) and curves (`Ledger.curves`)."""
    return Inputs(read_runs(table), curves, "ledger")


def from_rows(
    rows: pa.Table | Rows | Iterable[Run],
    source: str = "rows",
    curves: pa.Table | None = None,
    notes: Iterable[str] = (),
) -> Inputs:
    """Any table, rows, or runs that were read before; raises `InputError` for rows that are no results."""
    runs = read_runs(rows)
    return Inputs(runs, curves if curves is not None else curves_of(runs), source, tuple(notes))


def as_inputs(source: Inputs | pa.Table | Rows | Iterable[Run], curves: pa.Table | None = None) -> Inputs:
    """Whatever the functions of this package take, as `Inputs`."""
    return source if isinstance(source, Inputs) else from_rows(source, curves=curves)


def curves_of(runs: Iterable[Run]) -> pa.Table | None:
    """The curves that came with rows, as a table; None where no row brought one."""
    import pyarrow as pa

    points = [(run.trial, *point) for run in runs for point in run.curve]
    if not points:
        return None
    trials, fractions, losses = zip(*points, strict=True)
    columns = {"trial": trials, "fraction": fractions, "select_loss": losses, "report_loss": losses}
    return pa.table({name: list(column) for name, column in columns.items()})
