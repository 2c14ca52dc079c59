"""``tuneopt export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneopt.commands.options import Json, LedgerUri, show


def export(
    trial: Annotated[str, typer.Argument(help="Trial id, or enough of its beginning.")],
    folder: Annotated[Path, typer.Argument(help="New folder for the model.")],
    to: Annotated[str, typer.Option("--to", help="hf: safetensors for transformers, with tokenizer.")] = "hf",
    ledger: LedgerUri = "ledger",
    retrain: Annotated[bool, typer.Option("--retrain", help="Train it again here if no weights were kept.")] = False,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="With --retrain: its text; default: as the ledger says.")
    ] = None,
    json_: Json = False,
) -> int:
    """Export the final model of a trial for other programs."""
    from tuneopt import api, console

    done = api.export_model(trial, folder, ledger, to=to, retrain=retrain, corpus=corpus)
    return show(done, json_, console.exported_model)
