"""Corpora for people: what one holds, and how far its preparation is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tuneopt.console.plain import number, out, pairs, say, span, table

if TYPE_CHECKING:
    from tuneopt.data.recipe.run import Progress

_ELSEWHERE = ("splits", "warning", "mixture", "guard", "samples", "ended")


def preparing(progress: Progress) -> None:
    """A line about a preparation that runs, on stderr."""
    rate = progress.new_tokens / progress.seconds if progress.seconds else 0.0
    share = ""
    if progress.limit:
        left = (progress.limit - progress.tokens) / rate if rate else 0.0
        share = f" of {number(progress.limit)} ({progress.tokens / progress.limit:.0%}), {span(left)} left"
    say(f"{progress.phase}: {number(progress.tokens)} tokens{share}, {number(rate)} tokens/s")


def corpus(plain: Mapping[str, Any]) -> None:
    """Show a prepared corpus."""
    pairs({name: value for name, value in plain.items() if name not in _ELSEWHERE})
    out.print()
    table(
        ("split", "documents", "tokens", "bytes", "bytes/token", "shards"),
        [
            (split["split"], number(split["documents"]), number(split["tokens"]), number(split["bytes"]),
             f"{split['bytes'] / max(1, split['tokens']):.3f}", split["shards"])
            for split in plain["splits"]
        ],
    )  # fmt: skip
    if plain["mixture"]:
        _mixture(plain)
    if plain["guard"]:
        _guard(plain["guard"])
    for sample in plain.get("samples", ()):
        out.print()
        source = f", source {sample['source']}" if sample["source"] else ""
        out.print(f"{sample['split']}{source}, {number(sample['tokens'])} tokens: {sample['text']!r}", markup=False)
    if plain.get("warning"):
        say(f"warning: {plain['warning']}")


def _mixture(plain: Mapping[str, Any]) -> None:
    out.print()
    table(
        ("source", "for", "asked", "got", "documents", "tokens", "bytes/token", "epochs", "kept out", "from"),
        [_source(row) for row in plain["mixture"]],
    )
    for phase, why in plain["ended"].items():
        out.print(f"{phase} ended: {why}", markup=False)


def _source(row: Mapping[str, Any]) -> tuple[Any, ...]:
    train = row["phase"] == "train"
    held = [row["splits"]["train"]] if train else [row["splits"][name] for name in ("select", "report")]
    documents, tokens, size = (sum(each[name] for each in held) for name in ("documents", "tokens", "bytes"))
    return (
        row["source"], row["phase"], f"{row['weight']:.2%}" if train else "", f"{row['share']:.2%}" if train else "",
        number(documents), number(tokens), f"{size / tokens:.3f}" if tokens else "-", row["epochs"],
        number(sum(each["documents"] for each in row["kept_out"].values())), row["origin"],
    )  # fmt: skip


def _guard(guard: Mapping[str, Any]) -> None:
    if not guard["evaluation_documents"]:
        out.print("guard: equal documents share a split; runs of words are not compared", markup=False)
        return
    runs = f", {number(guard['evaluation_runs'])} runs of {guard['ngram']} words" if guard["ngram"] else ""
    out.print(
        f"guard: {number(guard['evaluation_documents'])} evaluation documents{runs}; kept out of training: "
        f"{number(guard['kept_out_equal'])} equal, {number(guard['kept_out_shared'])} sharing a run",
        markup=False,
    )
