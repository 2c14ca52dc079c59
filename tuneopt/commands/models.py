"""``tuneopt model show``, a model of a user's own before it is trained; and ``tuneopt export``, one that was trained.

The latter is named apart from ``ledger export``, which writes what is known of all trials and no weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tuneopt.commands.options import (
    Json,
    LedgerUri,
    ModelSet,
    Optimizer,
    Route,
    Space,
    group,
    parse_routes,
    parse_values,
    show,
)

app = group("Look at models of your own.")


@app.command("show")
def model_show(
    model: Annotated[str, typer.Argument(help="PATH.py:build, or a YAML file that names one.")],
    optimizer: Optimizer = "muon",
    space: Space = None,
    model_set: ModelSet = None,
    route: Route = None,
    json_: Json = False,
) -> int:
    """Show a model of your own: parameters, tokens of one budget, and which rule takes which parameter."""
    from tuneopt import api

    arguments, roles = parse_values(model_set or [], "--model-set"), parse_routes(route or [])
    facts = api.model_facts(model, optimizer, space, arguments, roles)
    return show(facts.to_dict(), json_, _print_model)


def _print_model(plain: Any) -> None:
    """The routing table, and what the model is; what it cannot have goes to stderr, as all remarks do."""
    from tuneopt.console import out, pairs, say, table

    table(
        ("parameter", "number", "shape", "role", "rule", "decay", "why"),
        [
            (
                row["parameter"],
                row["count"],
                "x".join(map(str, row["shape"])) or "scalar",
                row["role"] if row["pieces"] == 1 else f"{row['role']}*{row['pieces']}",
                row["rule"],
                "yes" if row["decay"] else "no",
                row["reason"],
            )
            for row in plain["routing"]
        ],
    )
    out.print()
    scale = plain["scale"]
    pairs(
        {
            "model": f"{scale['name']} from {scale['model']}, sequences of {scale['seq_len']} tokens",
            "parameters": f"{plain['parameters']:,} in matrices (N), {plain['total_parameters']:,} in all with a "
            f"vocabulary of {plain['vocabulary']:,}",
            "tokens of ratio 1": f"{plain['tokens']:,}",
            "FLOPs per token": f"{plain['flops_per_token']:.3e}, attention not counted",
            "grids and starts": f"of the ladder {scale['ladder']}",
        }
    )
    for note in plain["notes"]:
        say(note)


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
