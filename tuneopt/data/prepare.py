"""From text to a folder of token shards, in three passes over the documents and constant memory.

Pass 1 weighs the documents and fixes the split rule; pass 2 trains the tokenizer on the train split; pass 3 encodes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tuneopt.data.manifest import TOKENIZER_FILE, Manifest, SplitEntry, TokenizerEntry, file_sha256
from tuneopt.data.shards import ShardWriter
from tuneopt.data.sources import Source
from tuneopt.data.splits import BUCKETS, SPLITS, SplitRule, bucket, choose_rule
from tuneopt.data.tokenizer import check_vocab_size, content_sha256, encode, token_dtype, train_tokenizer
from tuneopt.spec import InputError

TRAINING_BYTES = 1 << 28
"""The tokenizer learns from about 256 MiB at most: more text changes its entries little and costs minutes."""

_log = logging.getLogger(__name__)


def prepare(source: Source, vocab_size: int, folder: Path, training_bytes: int = TRAINING_BYTES) -> Manifest:
    """Write shards, ``tokenizer.json`` and ``manifest.json`` into an empty folder.

    Raises `InputError` for text that cannot be read, is too little, or changes meanwhile.
    """
    check_vocab_size(vocab_size)
    _log.info("preparing corpus %s with a vocabulary of %d", source.name, vocab_size)
    weights = weigh(source)
    rule = choose_rule(weights, source.name)
    chosen = _training_buckets(weights, rule, training_bytes)
    tokenizer = train_tokenizer((text for text in source.documents() if chosen[bucket(text)]), vocab_size)
    tokenizer.save(str(folder / TOKENIZER_FILE))
    splits = _encode_splits(source, tokenizer, rule, folder, vocab_size)
    if sum(entry.bytes for entry in splits.values()) != int(weights.sum()):
        raise InputError(f"corpus {source.name!r} changed while it was prepared; run the command again")
    manifest = Manifest(
        corpus=source.name,
        vocab_size=vocab_size,
        split_rule=rule.describe(),
        tokenizer=TokenizerEntry(
            sha256=file_sha256(folder / TOKENIZER_FILE),
            content_sha256=content_sha256(tokenizer),
            training_bytes=int(weights[chosen].sum()),
        ),
        splits=splits,
        versions={name: version(name) for name in ("pyarrow", "tokenizers")},
    )
    manifest.write(folder)
    return manifest


def weigh(source: Source) -> NDArray[np.int64]:
    """UTF-8 bytes of the documents in each bucket, shape (65536,)."""
    weights = np.zeros(BUCKETS, np.int64)
    for text in source.documents():
        weights[bucket(text)] += len(text.encode())
    return weights


def _training_buckets(weights: NDArray[np.int64], rule: SplitRule, limit: int) -> NDArray[np.bool_]:
    """Train buckets the tokenizer learns from: all, or the first ones that hold ``limit`` bytes; shape (65536,)."""
    train = np.arange(BUCKETS) >= rule.report_end
    before = np.cumsum(np.where(train, weights, 0)) - np.where(train, weights, 0)
    chosen: NDArray[np.bool_] = train & (before < limit)
    return chosen


def _encode_splits(
    source: Source, tokenizer: Tokenizer, rule: SplitRule, folder: Path, vocab_size: int
) -> dict[str, SplitEntry]:
    documents: Counter[str] = Counter()
    sizes: Counter[str] = Counter()

    def routed() -> Iterator[tuple[str, str]]:
        for text in source.documents():
            split = rule.split(text)
            documents[split] += 1
            sizes[split] += len(text.encode())
            yield split, text

    dtype = token_dtype(vocab_size)
    with ExitStack() as stack:
        writers = {name: stack.enter_context(ShardWriter(folder, name, dtype)) for name in SPLITS}
        for split, tokens in encode(tokenizer, routed(), dtype):
            writers[split].append(tokens)
        entries = {}
        for name, writer in writers.items():
            checksum, shards = writer.finish()
            entries[name] = SplitEntry(documents[name], sizes[name], writer.tokens, checksum, shards)
    return entries
