"""From text to a folder of token shards, in three passes over the documents and constant memory.

Pass 1 weighs the documents and fixes the split rule; pass 2 trains the tokenizer on the train split; pass 3 encodes.
Text is read three times rather than kept: what a document belongs to follows from its own bytes (`splits`), so the
passes need nothing of each other but the rule. The folder holds, at the end,

    train-00000.arrow, ...      token shards of each split (`shards`)
    tokenizer.json              in the format of the tokenizers library
    manifest.json               written last: counts, checksums, the fingerprint (`manifest`)

This is the way of text folders and of the embedded text, whose fingerprints stand in trial ids: the bytes must not
change. Recipes have a way of their own (`recipe.run`), which is parallel.
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

from tuneopt.data.cache import write_whole
from tuneopt.data.manifest import TOKENIZER_FILE, Manifest, SplitEntry, TokenizerEntry, file_sha256
from tuneopt.data.recipe.recipe import TRAINING_BYTES
from tuneopt.data.shards import ShardWriter
from tuneopt.data.sources import Source
from tuneopt.data.splits import BUCKETS, SPLITS, SplitRule, bucket, choose_rule
from tuneopt.data.tokenizer import check_vocab_size, content_sha256, encode, token_dtype, train_tokenizer
from tuneopt.spec import InputError

_log = logging.getLogger(__name__)


def prepare(source: Source, vocab_size: int, folder: Path, training_bytes: int = TRAINING_BYTES) -> Manifest:
    """Write shards, ``tokenizer.json`` and ``manifest.json`` into an empty folder.

    Raises `InputError` for text that cannot be read, is too little, or changes meanwhile.
    """
    check_vocab_size(vocab_size)
    _log.info("preparing corpus %s with a vocabulary of %d", source.name, vocab_size)
    weights = weigh(source)
    rule = choose_rule(weights, source.name)
    # The tokenizer learns from the train buckets, or from the first ones that hold `training_bytes`. Buckets are in the
    # order of a hash, so this is a sample, and the same one whatever the order of the files.
    train = np.where(np.arange(BUCKETS) >= rule.report_end, weights, 0)  # (65536,)
    chosen = (train > 0) & (np.cumsum(train) - train < training_bytes)
    tokenizer = train_tokenizer((text for text in source.documents() if chosen[bucket(text)]), vocab_size)
    # Not by `save`, whose errors, of a full disk say, are bare exceptions of Rust.
    write_whole(folder / TOKENIZER_FILE, tokenizer.to_str(pretty=True))
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


def _encode_splits(
    source: Source, tokenizer: Tokenizer, rule: SplitRule, folder: Path, vocab_size: int
) -> dict[str, SplitEntry]:
    """Pass 3: one stream of documents into three writers; the entries of the manifest."""
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
