"""``tuneopt predict``."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneopt.commands.options import Json, Optimizer, Space, show


def predict(
    optimizer: Optimizer,
    params: Annotated[float, typer.Option("--params", help="Non-embedding parameters, such as 1.2e9.")],
    ratio: Annotated[float, typer.Option("--ratio", help="Tokens over the Chinchilla optimum (20 per parameter).")],
    ledger: Annotated[
        str | None, typer.Option("--ledger", help="Certified sweeps to learn from; default: the published points.")
    ] = None,
    space: Space = None,
    json_: Json = False,
) -> int:
    """Predict hyperparameters, with intervals, for a scale and ratio that nobody tuned."""
    from tuneopt import api, console

    return show(api.predict(optimizer, params, ratio, ledger, space=space), json_, console.prediction)
