"""Corpora to tokens: read text, split it by document, train a tokenizer, store token shards, hand out batches.

Names load on first use, so importing this package costs nothing and drags neither pyarrow nor tokenizers in.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.data.batches import SampleOrder, Windows, batch
    from tuneopt.data.corpus import Corpus, Epochs, TokenSplit, describe, load_corpus, open_corpus

__all__ = [
    "Corpus",
    "Epochs",
    "SampleOrder",
    "TokenSplit",
    "Windows",
    "batch",
    "describe",
    "load_corpus",
    "open_corpus",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "batches" if name in ("SampleOrder", "Windows", "batch") else "corpus"
    return getattr(import_module(f"{__name__}.{home}"), name)
