"""``tuneopt export``: the trained model of one trial, for other programs.

Named apart from ``ledger export``, which writes what is known of all trials and no weights.
"""

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
    from tuneopt import api
    from tuneopt.console import say

    done = api.export_model(trial, folder, ledger, to=to, retrain=retrain, corpus=corpus)

    def print_export(plain: object) -> None:
        say(f"the model of trial {done.trial} is in {done.path} ({done.bytes / 2**20:.1f} MiB)")
        # Trained again it is another run: on another machine its loss differs in the last digits, and that is said.
        again = done.retrained_select_loss
        if again is not None:
            same = "as recorded" if again == done.select_loss else f"recorded {done.select_loss:.6f}"
            say(f"trained again: select loss {again:.6f}, {same}")
        say(f"load it with: transformers.AutoModelForCausalLM.from_pretrained({done.path!r})")

    return show(done.to_dict(), json_, print_export)
