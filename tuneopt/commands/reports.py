"""``tuneopt report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneopt.commands.options import Json, show

Uri = Annotated[
    str | None,
    typer.Option("--ledger", help="Sweeps of a ledger: a folder, s3:// or gs://; default: `ledger`, if alone."),
]
Results = Annotated[
    Path | None, typer.Option("--results", help="A table of finished runs: .csv, .json, .jsonl or .parquet.")
]
Published = Annotated[bool, typer.Option("--published", help="The study of arXiv 2509.02046; needs no training.")]
Sigma = Annotated[float | None, typer.Option("--sigma", help="Noise between seeds in nats; default: measured.")]


def report(
    ledger: Uri = None,
    results: Results = None,
    published: Published = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("reports/report.html"),
    sigma: Sigma = None,
    json_: Json = False,
) -> int:
    """Write the one-file HTML report of a ledger, of a table from elsewhere, of the published study, or of several."""
    from tuneopt import api, console

    source = "ledger" if ledger is None and results is None and not published else ledger
    document = api.report(source, output, results=results, published=published, sigma=sigma)
    return show(document, json_, lambda summary: console.report_summary(summary, output))
