"""Reports of ledgers, of tables from elsewhere and of the published study (`tuneopt.reporting` writes them).

Here addresses and paths become what the report's floor takes, and what is not there is an error before anything is
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.paths import expanded
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger


def report(
    ledger: Ledger | str | None,
    path: Path | str,
    sweeps: Sequence[str] | None = None,
    *,
    results: Path | str | None = None,
    published: bool = False,
    columns: Mapping[str, str] | None = None,
    sigma: float | None = None,
    baseline: str | None = None,
    targets: Sequence[float] = (),
    figures: Path | str | None = None,
    formats: Sequence[str] = ("svg",),
    latex: bool = False,
) -> dict[str, Any]:
    """Write the one-file HTML report and return what ``report --json`` prints.

    ``ledger`` brings its sweeps (or those named in ``sweeps``), ``results`` a CSV, JSON or Parquet table, ``published``
    the study of arXiv 2509.02046; they may be combined, and losses are compared where they name one corpus. ``sigma``
    (nats) replaces the measured noise between seeds, ``baseline`` is the optimizer that speedups are measured against
    (AdamW unless said otherwise), ``targets`` are losses (nats) that optimizers race to, and ``columns`` maps names of
    the table's columns, such as ``{"loss": "val/loss"}``. ``figures`` is a folder for the figures in each of
    ``formats`` (svg, pdf, png; the last two need matplotlib) and the tables as CSV, with ``latex`` as LaTeX too. Raises
    `InputError` for no source, for one that cannot be read, and for a format that cannot be written.
    """
    from tuneopt.ledger import open_ledger
    from tuneopt.reporting import write_report
    from tuneopt.reporting.paper import Export

    if latex and figures is None:
        raise InputError("LaTeX tables are written beside the figures; name a folder with --figures")
    export = None if figures is None else Export(expanded(figures), tuple(formats), latex)
    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger
    table = None if results is None else expanded(results)
    return write_report(
        opened,
        expanded(path),
        sweeps,
        results=table,
        published=published,
        columns=columns,
        sigma=sigma,
        baseline=baseline,
        targets=targets,
        export=export,
    )
