"""Corpora by name or recipe: preparing them, a look into them, and their regimes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.data import Corpus, describe, load_corpus
from tuneopt.spec import CorpusId, InputError, Regime, find_scale

if TYPE_CHECKING:
    from tuneopt.data.recipe.run import Progress

VOCAB_SIZES = {"nano": 1024, "paper": 32_768}
"""Entries of the tokenizer trained for a corpus that brings none; 1024 was measured (docs/lab-notebook.md)."""

SAMPLES = 2
"""Documents of each split that are shown, and the characters of each."""
SAMPLE_CHARACTERS = 200


def prepare_corpus(
    recipe: str | Path,
    out: str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    workers: int | None = None,
    address: str | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Corpus, bool]:
    """Prepare the corpus of a recipe; the corpus, and whether it was there already.

    ``recipe`` is a file, or the name of one that ships with tuneopt; ``changes`` are as `read_recipe` takes them.
    ``out`` defaults to ``corpora/NAME``. ``workers`` processes encode (default: one for each core), or with ``address``
    a Ray cluster does. The bytes are the same. Raises `InputError`.
    """
    from tuneopt.data.recipe.file import find_recipe, read_recipe
    from tuneopt.data.recipe.run import local_pool, prepare_recipe

    read = read_recipe(find_recipe(str(recipe)), changes)
    folder = Path(out) if out is not None else Path("corpora") / read.name
    if address is None:
        count = len(os.sched_getaffinity(0)) if workers is None else workers
        if count < 0:
            raise InputError(f"workers must be at least 0, not {count}; 0 is this process alone")
        return prepare_recipe(read, folder, local_pool(count), progress)
    from tuneopt.cluster.session import connect

    with connect(address):
        from tuneopt.cluster.preparation import RayPool

        return prepare_recipe(read, folder, RayPool, progress)


def inspect_corpus(corpus: str, scale: str, ratio: float) -> dict[str, Any]:
    """Counts of a corpus, its splits and sources, samples, and the epochs that the budget of a regime takes."""
    regime, loaded = regime_on(scale, ratio, corpus)
    epochs = describe(loaded, regime.tokens)
    return {
        **corpus_account(loaded),
        "budget_tokens": epochs.budget_tokens,
        "epochs": round(epochs.epochs, 4),
        "warning": epochs.warning,
        "samples": _samples(loaded),
    }


def corpus_account(corpus: Corpus) -> dict[str, Any]:
    """What a prepared corpus holds: counts of its splits, and of its sources where it is from a recipe."""
    recipe = corpus.manifest.recipe or {}
    return {
        "corpus": corpus.id.name,
        "fingerprint": corpus.id.fingerprint,
        "vocabulary": corpus.id.vocab_size,
        "bytes_per_token": round(corpus.bytes_per_token, 4),
        "tokens_per_byte": round(1 / corpus.bytes_per_token, 4),
        "folder": str(corpus.folder.absolute()),
        "split_rule": corpus.manifest.split_rule,
        "splits": [
            {
                "split": split.name,
                "documents": split.documents,
                "tokens": split.tokens,
                "bytes": split.bytes,
                "shards": len(corpus.manifest.splits[split.name].shards),
            }
            for split in map(corpus.split, ("train", "select", "report"))
        ],
        "mixture": recipe.get("mixture", []),
        "ended": recipe.get("ended", {}),
        "guard": recipe.get("guard"),
    }


def _samples(corpus: Corpus) -> list[dict[str, Any]]:
    """The first documents of each split, as far as they are kept apart; else the begin of its text."""
    tokenizer = corpus.tokenizer
    found = []
    texts: list[tuple[str | None, int, Any]]
    for name in ("train", "select", "report"):
        split = corpus.split(name)
        if corpus.manifest.recipe is None:
            head = split.windows(1).take(range(min(SAMPLE_CHARACTERS, split.tokens - 1)))[:, 0]
            texts = [(None, len(head), head)]
        else:
            documents = split.documents_of()
            sources = [row["source"] for row in corpus.manifest.recipe["mixture"]]
            texts = [
                (sources[documents.source(number)], len(documents.tokens(number)), documents.tokens(number))
                for number in range(min(SAMPLES, len(documents)))
            ]
        for source, count, tokens in texts:
            text = tokenizer.decode(tokens[:SAMPLE_CHARACTERS].tolist())[:SAMPLE_CHARACTERS]
            found.append({"split": name, "source": source, "tokens": count, "text": text})
    return found


def regime_on(scale: str, ratio: float, corpus: str) -> tuple[Regime, Corpus]:
    """A regime by its names, with the prepared corpus it runs on; raises `InputError` for what there is not."""
    shape = find_scale(scale)
    Regime(shape, ratio, CorpusId("unread", "", 0))  # a bad ratio is answered before any text is tokenized
    loaded = load_corpus(corpus, vocab_size=VOCAB_SIZES[shape.ladder])
    return Regime(shape, ratio, loaded.id), loaded
