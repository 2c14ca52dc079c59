"""``tuneopt ledger ls|show|export|verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneopt.commands.options import BAD_INPUT, DONE, Json, LedgerUri, group, show

app = group("Look into recorded trials.")


@app.command("ls")
def ledger_ls(ledger: LedgerUri = "ledger", json_: Json = False) -> int:
    """List the recorded trials."""
    from tuneopt import console
    from tuneopt.ledger import open_ledger, short_rows

    return show(short_rows(open_ledger(ledger, must_exist=True)), json_, console.trials)


@app.command("show")
def ledger_show(
    trial: Annotated[str, typer.Argument(help="Trial id, or enough of its beginning.")],
    ledger: LedgerUri = "ledger",
    json_: Json = False,
) -> int:
    """Show one trial: configuration, losses, cost, proof and routing."""
    from tuneopt import console
    from tuneopt.ledger import find_record, open_ledger

    return show(find_record(open_ledger(ledger, must_exist=True), trial).to_dict(), json_, console.record)


@app.command("export")
def ledger_export(
    path: Annotated[Path, typer.Argument(help="File to write: .parquet, .csv, or .db for optuna-dashboard.")],
    ledger: LedgerUri = "ledger",
    json_: Json = False,
) -> int:
    """Export all trials as one table, a row each, or all sweeps as the studies of an Optuna storage."""
    from tuneopt import api, console
    from tuneopt.ledger import open_ledger

    return show(api.export(open_ledger(ledger, must_exist=True), path), json_, console.exported)


@app.command("verify")
def ledger_verify(ledger: LedgerUri = "ledger", json_: Json = False) -> int:
    """Check every record of a ledger; exit code 2 when something is damaged."""
    from tuneopt import console
    from tuneopt.ledger import open_ledger

    problems = open_ledger(ledger, must_exist=True).verify()
    show(problems, json_, lambda found: console.say("\n".join(found) or "every record is whole"))
    return BAD_INPUT if problems else DONE
