"""What a recipe says: sources with weights, a tokenizer, evaluation text, and how much of it all.

`file` reads these values from YAML and checks them; everything else takes them as they are. A corpus is a function of
its recipe, of the recipe's files or revisions, and of nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

STOP, REPEAT, LEAVE = "stop", "repeat", "leave"
EXHAUSTED = (STOP, REPEAT, LEAVE)
"""When a source runs out: the mixture ends there; or the source begins again; or the others go on without it."""

SHARD_TOKENS = 1 << 27
"""Tokens of a shard, and what a killed preparation loses at most: 256 MiB of uint16, 512 MiB of uint32."""

HELD_OUT = 0.02
"""Share of the documents in each evaluation split, where a recipe names no evaluation text of its own."""

NGRAM = 13
"""Words that a training document may not share in a row with an evaluation document (Brown et al., 2020, app. C)."""

TRAINING_BYTES = 1 << 28
"""Bytes of text that a tokenizer learns from at most: more text changes its entries little and costs minutes."""

FORMATS = ("arrow", "csv", "json", "parquet", "text", "webdataset")
"""Formats of `datasets` that files of text are read by."""


@dataclass(frozen=True, slots=True)
class Hub:
    """What `datasets` streams: a data set of the Hugging Face hub, a folder of one, or a format with ``data_files``.

    ``format`` reads the ``data_files`` of a data set, whatever the data set itself says about them.
    """

    name: str
    """``OWNER/NAME``, a path, or one of `FORMATS`."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    data_files: tuple[str, ...] = ()
    format: str | None = None
    folder: Path | None = None
    """The data set's folder, or the one that a format's ``data_files`` are relative to; None on the hub."""


@dataclass(frozen=True, slots=True)
class SourceRecipe:
    """One source: files here, or a data set of the hub. ``weight`` is its share of the tokens, in any unit."""

    name: str
    weight: Fraction = Fraction(1)
    text: str | None = None
    """The column of the text; None is ``text``, or the only column of strings."""
    files: tuple[Path, ...] = ()
    hub: Hub | None = None
    """With ``files`` as well, the data set that they stand for: they are read in its place."""

    @property
    def origin(self) -> str:
        """Where the text is from, in words that are the same on every machine."""
        if self.hub is None or self.files:
            return f"{len(self.files)} files" + (f", in place of {self.hub.name}" if self.hub else "")
        hub = self.hub
        parts = (hub.name, hub.config, hub.split, ", ".join(hub.data_files), hub.format and f"as {hub.format}")
        return " ".join(part for part in parts if part) + (f" at {hub.revision}" if hub.revision else "")


@dataclass(frozen=True, slots=True)
class TokenizerRecipe:
    """A tokenizer: its file, its name on the hub, or the size of a vocabulary to train on the sources; one of them."""

    file: Path | None = None
    hub: str | None = None
    revision: str | None = None
    train: int | None = None
    end_of_text: str | None = None
    """The token that ends a document, as the tokenizer spells it; None looks for one of the usual names."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A corpus to be prepared. Counts are tokens; ``held_out`` is the share of documents in each evaluation split."""

    name: str
    sources: tuple[SourceRecipe, ...]
    tokenizer: TokenizerRecipe
    tokens: int | None = None
    """Of the train split; None is all there is."""
    when_exhausted: str = STOP
    evaluation: tuple[SourceRecipe, ...] = ()
    """Text to evaluate on; without any, ``held_out`` of the sources' documents is."""
    evaluation_tokens: int | None = None
    """Of both evaluation splits; None is all there is."""
    held_out: float = HELD_OUT
    ngram: int = NGRAM
    """Words in a row that training and evaluation text may not share; 0 compares whole documents alone."""
    shard_tokens: int = SHARD_TOKENS
    shuffle: bool = True
    """Whether units are read in an order that ``seed`` determines; False reads them as they are listed."""
    seed: int = 0

    def describe(self) -> dict[str, Any]:
        """All that the tokens depend on, as plain data; files by number only (`units.stamp` tells them apart)."""
        return {
            "sources": [_described(source) for source in self.sources],
            "evaluation": [_described(source) for source in self.evaluation],
            "evaluation_tokens": self.evaluation_tokens or "all",
            "held_out": self.held_out if not self.evaluation else 0,
            "tokens": self.tokens or "all",
            "when_exhausted": self.when_exhausted,
            "ngram": self.ngram,
            "shard_tokens": self.shard_tokens,
            "shuffle": self.shuffle,
            "seed": self.seed,
        }


def _described(source: SourceRecipe) -> dict[str, Any]:
    """A source as plain data; its weight as a fraction, exactly."""
    return {
        "name": source.name,
        "weight": str(source.weight),
        "origin": source.origin,
        "text": source.text or "text, or the only column of strings",
    }
