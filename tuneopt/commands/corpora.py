"""``tuneopt data prepare|inspect``.

Preparing takes hours for a large corpus, so it tells of itself on stderr while it runs, and the same command goes on
after a kill. Inspecting reads a manifest and a few documents; only a folder of plain text is tokenized first, once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneopt.commands.options import CorpusName, Json, Ratio, ScaleName, TokenizerFile, Tokens, group, parse_count, show

if TYPE_CHECKING:
    from tuneopt.api.corpora import CorpusAccount, CorpusLook
    from tuneopt.data.recipe.run import PreparationProgress

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
    from tuneopt import api

    began = time.monotonic()
    prepared = api.prepare_corpus(
        recipe, out, changes=changes or (), workers=workers, address=address, progress=_progress_line
    )
    account = api.CorpusAccount.of(prepared.corpus)
    cost = {"reused": prepared.reused, "seconds": round(time.monotonic() - began, 1)}
    return show({**account.to_dict(), **cost}, json_, lambda plain: _print_account(account, cost))


@app.command("inspect")
def data_inspect(
    path: Annotated[str | None, typer.Argument(help="A prepared corpus, a folder of text, or `embedded`.")] = None,
    corpus: CorpusName = "embedded",
    tokenizer: TokenizerFile = None,
    scale: ScaleName = "nano-65k",
    ratio: Ratio = None,
    tokens: Tokens = None,
    json_: Json = False,
) -> int:
    """Show a corpus: sources, documents, tokens, splits, samples, and the epochs that a budget takes."""
    from tuneopt import api

    look = api.inspect_corpus(
        api.encoded_corpus(corpus if path is None else path, tokenizer),
        scale,
        ratio,
        tokens=parse_count(tokens, "--tokens"),
    )
    return show(look.to_dict(), json_, lambda plain: _print_look(look))


def _progress_line(progress: PreparationProgress) -> None:
    """One line on stderr about a preparation under way; the time left is at the rate of this run alone."""
    from tuneopt.console import number, say, span

    # Tokens of earlier runs count towards the limit and not towards the rate: they took no time of this run.
    rate = progress.new_tokens / progress.seconds if progress.seconds else 0.0
    share = ""
    if progress.limit:  # without one the sources decide the end, and nobody knows how much is left of them
        left = (progress.limit - progress.tokens) / rate if rate else 0.0
        share = f" of {number(progress.limit)} ({progress.tokens / progress.limit:.0%}), {span(left)} left"
    say(f"{progress.phase}: {number(progress.tokens)} tokens{share}, {number(rate)} tokens/s")


def _print_look(look: CorpusLook) -> None:
    from tuneopt.console import number, out, say

    # Epochs stand among the facts and their warning on stderr: whoever pipes the facts on still sees it.
    _print_account(look.account, {"budget_tokens": look.budget_tokens, "epochs": round(look.epochs, 4)})
    for sample in look.samples:
        out.print()
        source = f", source {sample.source}" if sample.source else ""
        # As a Python literal: line ends and control characters of the text would break the line or steer the terminal.
        out.print(f"{sample.split}{source}, {number(sample.tokens)} tokens: {sample.text!r}", markup=False)
    if look.warning:
        say(f"warning: {look.warning}")


def _print_account(account: CorpusAccount, more: Mapping[str, Any]) -> None:
    """The account as pairs and tables on stdout; ``more`` are further pairs."""
    from tuneopt.console import number, out, pairs, table

    tables = ("splits", "mixture", "ended", "guard")
    pairs({**{name: value for name, value in account.to_dict().items() if name not in tables}, **more})
    out.print()
    table(
        ("split", "documents", "tokens", "bytes", "bytes/token", "shards"),
        [
            (split.split, number(split.documents), number(split.tokens), number(split.bytes),
             f"{split.bytes / max(1, split.tokens):.3f}", split.shards)
            for split in account.splits
        ],
    )  # fmt: skip
    if account.mixture:
        out.print()
        table(
            ("source", "for", "asked", "got", "documents", "tokens", "bytes/token", "epochs", "kept out", "from"),
            [_mixture_row(row) for row in account.mixture],
        )
        for phase, why in account.ended.items():
            out.print(f"{phase} ended: {why}", markup=False)
    if account.guard:
        out.print(_guard_line(account.guard), markup=False)


def _mixture_row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """One source of a recipe; shares are of training tokens, so a source for evaluation alone has none."""
    from tuneopt.console import number

    train = row["phase"] == "train"
    counts = [row["splits"]["train"]] if train else [row["splits"][name] for name in ("select", "report")]
    documents, tokens, size = (sum(split[name] for split in counts) for name in ("documents", "tokens", "bytes"))
    return (
        row["source"], row["phase"], f"{row['weight']:.2%}" if train else "", f"{row['share']:.2%}" if train else "",
        number(documents), number(tokens), f"{size / tokens:.3f}" if tokens else "-", row["epochs"],
        number(sum(kept["documents"] for kept in row["kept_out"].values())), row["origin"],
    )  # fmt: skip


def _guard_line(guard: Mapping[str, Any]) -> str:
    """What kept evaluation text out of training. Without evaluation sources there was nothing to compare with."""
    from tuneopt.console import number

    if not guard["evaluation_documents"]:
        return "guard: equal documents share a split; runs of words are not compared"
    runs = f", {number(guard['evaluation_runs'])} runs of {guard['ngram']} words" if guard["ngram"] else ""
    return (
        f"guard: {number(guard['evaluation_documents'])} evaluation documents{runs}; kept out of training: "
        f"{number(guard['kept_out_equal'])} equal, {number(guard['kept_out_shared'])} sharing a run"
    )
