"""``tuneopt report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneopt.commands.options import Json, LedgerUri, show


def report(
    ledger: LedgerUri = "ledger",
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("reports/report.html"),
    json_: Json = False,
) -> int:
    """Write the one-file HTML report of everything in a ledger."""
    from tuneopt import api, console

    return show(api.report(ledger, output), json_, lambda summary: console.report_summary(summary, output))
