"""``tuneopt data prepare|inspect``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from tuneopt.commands.options import CorpusName, Json, Ratio, ScaleName, group, show

app = group("Prepare and inspect corpora.")


@app.command("prepare")
def data_prepare(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or a name that comes with tuneopt, such as paper.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the corpus; default: corpora/NAME.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Processes; default: the cores.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster that encodes.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe; repeatable.")
    ] = None,
    json_: Json = False,
) -> int:
    """Make token shards of a recipe's sources; the same command goes on after a kill."""
    from tuneopt import api, console

    began = time.monotonic()
    corpus, reused = api.prepare_corpus(
        recipe, out, changes=changes or (), workers=workers, address=address, progress=console.preparing
    )
    document = {
        **api.corpus_account(corpus),
        "reused": reused,
        "seconds": round(time.monotonic() - began, 1),
    }
    return show(document, json_, console.corpus)


@app.command("inspect")
def data_inspect(
    path: Annotated[str | None, typer.Argument(help="A prepared corpus, a folder of text, or `embedded`.")] = None,
    corpus: CorpusName = "embedded",
    scale: ScaleName = "nano-65k",
    ratio: Ratio = 1.0,
    json_: Json = False,
) -> int:
    """Show a corpus: sources, documents, tokens, splits, samples, and the epochs that a budget takes."""
    from tuneopt import api, console

    return show(api.inspect_corpus(corpus if path is None else path, scale, ratio), json_, console.corpus)
