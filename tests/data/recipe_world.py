"""Small texts, tokenizers and recipes for the tests of `tuneopt.data.recipe`."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as Steps
from tokenizers.trainers import BpeTrainer

from tuneopt.data.encoder import LLAMA_3


def llama_like(prose: Sequence[str], entries: int = 400) -> Tokenizer:
    """A tokenizer in the form of Llama 3's: its cuts, its special tokens."""
    tokenizer = Tokenizer(BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = Steps(
        [Split(Regex(LLAMA_3), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=entries,
        special_tokens=["<|begin_of_text|>", "<|end_of_text|>"],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prose, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def jsonl(path: Path, texts: Sequence[str], column: str = "text", **more: Any) -> Path:
    """Write texts as JSON lines, compressed by the path's ending."""
    data = "".join(json.dumps({column: text, **more}) + "\n" for text in texts).encode()
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write(data)
    else:
        path.write_bytes(data)
    return path


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a corpus, which must not hold anything unfinished."""
    assert not (folder / ".preparing").exists()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def write_recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path
