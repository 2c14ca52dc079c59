"""Reports of ledgers, of tables from elsewhere and of the published study (`tuneopt.reporting` writes them).

Here addresses and paths become what the report's floor takes, and what is not there is an error before anything is
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api import plots
from tuneopt.api.reading import Readable
from tuneopt.paths import expanded
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from tuneopt.ledger import Ledger


class Report(Readable, dict[str, Any]):
    """What ``report --json`` prints, as a mapping, with the page's first screen as its text and its figures to draw."""

    def __init__(self, document: Mapping[str, Any], **source: Any) -> None:
        super().__init__(document)
        self.source = source
        """Where it was read from, as the figures take it."""

    def _headline(self) -> str:
        return str(self["answer"]["headline"])

    def _facts(self) -> Mapping[str, str]:
        sentences = {str(number): text for number, text in enumerate(self["answer"]["sentences"], 1)}
        return {**sentences, "report": str(self["path"])}

    def _rows(self) -> Sequence[Mapping[str, Any]]:
        """The speedups, a row for each optimizer and regime."""
        return list(self["speedups"])

    def plot_speedups(self, by: str = "ratio") -> Figure:
        """Speedups over the baseline, as `tuneopt.plot_speedups`."""
        return plots.plot_speedups(**self.source, by=by)

    def plot_flips(self, by: str = "ratio") -> Figure:
        """The order of the optimizers and where it changes, as `tuneopt.plot_flips`."""
        return plots.plot_flips(**self.source, by=by)

    def plot_curves(self) -> Figure:
        """Loss curves that cross, as `tuneopt.plot_curves`."""
        return plots.plot_curves(**{name: value for name, value in self.source.items() if name != "published"})

    def plot_star(self, optimizer: str | None = None) -> Figure:
        """What each single change of a best configuration costs, as `tuneopt.plot_star`."""
        if self.source["ledger"] is None:
            raise InputError("a star is one of a sweep, and no ledger was read; name one")
        return plots.plot_star(self.source["ledger"], sweeps=self.source["sweeps"], optimizer=optimizer)


def report(
    ledger: Ledger | Path | str | None = None,
    path: Path | str = "reports/report.html",
    sweeps: Sequence[str] | None = None,
    *,
    results: Path | str | None = None,
    published: bool = False,
    example: bool = False,
    columns: Mapping[str, str] | None = None,
    sigma: float | None = None,
    baseline: str | None = None,
    targets: Sequence[float] = (),
    figures: Path | str | None = None,
    formats: Sequence[str] = ("svg",),
    latex: bool = False,
) -> Report:
    """Write the one-file HTML report and return what ``report --json`` prints.

    ``ledger`` brings its sweeps (or those named in ``sweeps``), ``results`` a CSV, JSON or Parquet table, ``published``
    the study of arXiv 2509.02046, ``example`` the ledger that ships with tuneopt. They may be combined, and losses are
    compared where they name one corpus. ``sigma`` (nats) replaces the measured noise between seeds, ``baseline`` is the
    optimizer that speedups are measured against (AdamW unless said otherwise), ``targets`` are losses (nats) that
    optimizers race to, and ``columns`` maps names of the table's columns, such as ``{"loss": "val/loss"}``.
    ``figures`` is a folder for the figures in each of ``formats`` (svg, pdf, png; the last two need matplotlib) and the
    tables as CSV, with ``latex`` as LaTeX too. Raises
    `InputError` for no source, for one that cannot be read, and for a format that cannot be written.
    """
    from tuneopt.ledger import open_ledger
    from tuneopt.reporting import write_report
    from tuneopt.reporting.example import example_ledger
    from tuneopt.reporting.paper import Export

    if latex and figures is None:
        raise InputError("LaTeX tables are written beside the figures; name a folder with --figures")
    if columns and results is None:
        raise InputError("--columns maps the columns of a table; name it with --results, or leave --columns out")
    if tuple(formats) != ("svg",) and figures is None:
        raise InputError("--format is of the figures for a paper; name a folder with --figures")
    export = None if figures is None else Export(expanded(figures), tuple(formats), latex)
    if example:
        if ledger is not None:
            raise InputError("the example is a ledger of its own; leave out --ledger, or --example")
        ledger = example_ledger()
    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, Path | str) else ledger
    table = None if results is None else expanded(results)
    document = write_report(
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
        example=example,
    )
    source = {"ledger": opened, "sweeps": sweeps, "results": table, "published": published, "columns": columns}
    return Report(document, **source, sigma=sigma, baseline=baseline)
