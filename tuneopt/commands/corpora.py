"""``tuneopt data inspect``."""

from __future__ import annotations

from tuneopt.commands.options import CorpusName, Json, Ratio, ScaleName, group, show

app = group("Prepare and inspect corpora.")


@app.command("inspect")
def data_inspect(
    corpus: CorpusName = "embedded",
    scale: ScaleName = "nano-65k",
    ratio: Ratio = 1.0,
    json_: Json = False,
) -> int:
    """Show a corpus: documents, tokens, bytes per token, splits, and the epochs that a budget takes."""
    from tuneopt import api, console

    return show(api.inspect_corpus(corpus, scale, ratio), json_, console.corpus)
