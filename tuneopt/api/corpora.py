"""Corpora by name: their regimes, and a look into them."""

from __future__ import annotations

from typing import Any

from tuneopt.data import Corpus, describe, load_corpus
from tuneopt.spec import CorpusId, Regime, find_scale

VOCAB_SIZES = {"nano": 1024, "paper": 32_768}

"""Entries of the tokenizer trained for a corpus that brings none; 1024 was measured (docs/lab-notebook.md)."""


def inspect_corpus(corpus: str, scale: str, ratio: float) -> dict[str, Any]:
    """Counts of a corpus and its splits, and the epochs that the budget of a regime takes."""
    regime, loaded = regime_on(scale, ratio, corpus)
    epochs = describe(loaded, regime.tokens)
    return {
        "corpus": loaded.id.name,
        "fingerprint": loaded.id.fingerprint,
        "vocabulary": loaded.id.vocab_size,
        "bytes_per_token": round(loaded.bytes_per_token, 4),
        "folder": str(loaded.folder),
        "budget_tokens": epochs.budget_tokens,
        "epochs": round(epochs.epochs, 4),
        "warning": epochs.warning,
        "splits": [
            {"split": split.name, "documents": split.documents, "tokens": split.tokens, "bytes": split.bytes}
            for split in map(loaded.split, ("train", "select", "report"))
        ],
    }


def regime_on(scale: str, ratio: float, corpus: str) -> tuple[Regime, Corpus]:
    """A regime by its names, with the prepared corpus it runs on; raises `InputError` for what there is not."""
    shape = find_scale(scale)
    Regime(shape, ratio, CorpusId("unread", "", 0))  # a bad ratio is answered before any text is tokenized
    loaded = load_corpus(corpus, vocab_size=VOCAB_SIZES[shape.ladder])
    return Regime(shape, ratio, loaded.id), loaded
