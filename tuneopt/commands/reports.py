"""``tuneopt report``: the HTML page of what is there, and its first screen in the terminal.

The terminal shows the sentences and tables that the page begins with, from the same document that ``--json`` prints, so
the three never disagree. Nothing is trained and no network is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneopt.commands.options import Json, parse_assignments, show

MOST = 40
"""Regimes and speedups that the terminal shows; the report has all."""

Uri = Annotated[
    str | None,
    typer.Option("--ledger", help="Sweeps of a ledger: a folder, s3:// or gs://; default: `ledger`, if alone."),
]
Results = Annotated[
    Path | None, typer.Option("--results", help="A table of finished runs: .csv, .json, .jsonl or .parquet.")
]
Published = Annotated[bool, typer.Option("--published", help="The study of arXiv 2509.02046; needs no training.")]
Example = Annotated[
    bool, typer.Option("--example", help="A ledger of real trials that ships with tuneopt; needs no training.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns", metavar="NAME=COLUMN", help="Which column of the table is what: loss=val/loss, drop=*; repeatable."
    ),
]
Baseline = Annotated[str | None, typer.Option("--baseline", help="Whom speedups are over; default: adamw.")]
Targets = Annotated[
    list[float] | None, typer.Option("--target", help="Loss (nats) to reach: steps, tokens, seconds; repeatable.")
]
Figures = Annotated[
    Path | None, typer.Option("--figures", metavar="DIR", help="Folder for figures and CSV tables for a paper.")
]
Formats = Annotated[str, typer.Option("--format", help="Formats of --figures: svg, pdf, png (pdf, png: matplotlib).")]
Latex = Annotated[bool, typer.Option("--latex", help="With --figures: every table as LaTeX too.")]
Sigma = Annotated[float | None, typer.Option("--sigma", help="Noise between seeds in nats; default: measured.")]


def report(
    ledger: Uri = None,
    results: Results = None,
    published: Published = False,
    example: Example = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("reports/report.html"),
    columns: Columns = None,
    baseline: Baseline = None,
    target: Targets = None,
    sigma: Sigma = None,
    figures: Figures = None,
    formats: Formats = "svg",
    latex: Latex = False,
    json_: Json = False,
) -> int:
    """Write the one-file HTML report of a ledger, of a table from elsewhere, of the published study, or of several."""
    from tuneopt import api

    # The default ledger only where nothing else was named: a table alone must not bring in whatever lies in the folder.
    source = "ledger" if ledger is None and results is None and not published and not example else ledger
    document = api.report(
        source,
        output,
        results=results,
        published=published,
        example=example,
        columns=parse_assignments(columns or [], "--columns"),
        sigma=sigma,
        baseline=baseline,
        targets=tuple(target or ()),
        figures=figures,
        formats=tuple(name.strip().lower() for name in formats.split(",") if name.strip()),
        latex=latex,
    )
    return show(document, json_, lambda summary: print_summary(summary, summary["path"]))


def print_summary(summary: Mapping[str, Any], path: Path | str) -> None:
    """What the report's first screen says, the speedups with their tie groups, and where the report is."""
    from tuneopt.console import out, pairs, report_lines, say, table

    answer = summary["answer"]
    for sentence in (answer["headline"], *answer["sentences"]):
        out.print(sentence, markup=False)
    groups = answer["places"][:MOST]
    if groups:
        table(
            ("regime", "best group", "speedup", "interval"),
            [
                (
                    f"{place['corpus']} {place['scale']}/{place['ratio']:g}x".strip(),
                    ", ".join(place["leaders"]) or f"{', '.join(place['equals'])} (noise unknown)",
                    place["speedup"],
                    place["interval"],
                )
                for place in groups
            ],
        )
    # The baseline's own speedup is 1 by definition, and says nothing.
    rows = [row for row in summary["speedups"] if row["optimizer"] != summary["baseline"]]

    def times(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}x"

    corpora = ("corpus",) if len({row["corpus"] for row in rows}) > 1 else ()
    if rows:
        table(
            ("optimizer", *corpora, "scale", "ratio", "speedup", "low", "high", "tie group", "remarks"),
            [
                (
                    row["optimizer"],
                    *(row[name] for name in corpora),
                    row["scale"],
                    f"{row['ratio']:g}",
                    *(times(row[key]) for key in ("speedup", "low", "high")),
                    row["tie_group"],
                    ", ".join(row["flags"]),
                )
                for row in rows[:MOST]
            ],
        )
    if len(rows) > MOST:
        say(f"{len(rows) - MOST} more speedups are in the report")
    for warning in summary["warnings"]:
        say(f"warning: {warning}")
    pairs(report_lines(str(path)))
