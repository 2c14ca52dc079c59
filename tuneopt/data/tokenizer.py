"""Byte-level BPE: trained on the train split alone, deterministic, and applied in bounded memory.

Every byte is an entry, so any text can be encoded and nothing is unknown. Entry 0 is ``<|endoftext|>``, which follows
every document. A document that spells this word out gets ordinary entries for it: text cannot forge a separator.

Files from outside are read without truncation, padding and special tokens inside a text: a corpus must not depend on
what a tokenizer was last used for.

Source: Sennrich et al., arXiv 1508.07909; bytes as the base alphabet after Radford et al., 2019 (GPT-2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from tuneopt.data.encoder import PIECE_CHARACTERS, Encoder
from tuneopt.data.manifest import LARGEST_TOKENIZER
from tuneopt.data.readers import END_OF_TEXT
from tuneopt.errors import of_system
from tuneopt.paths import read_plain
from tuneopt.spec import InputError, canonical_json

SMALLEST_VOCABULARY = 257
"""256 bytes and the end of text."""

BATCH_CHARACTERS = 1 << 20
"""Characters that are encoded at a time: this bounds memory, and is enough to keep the library's threads busy."""


def check_vocab_size(vocab_size: int) -> None:
    """Raise `InputError` for a vocabulary that cannot hold every byte."""
    if vocab_size < SMALLEST_VOCABULARY:
        raise InputError(
            f"vocab_size {vocab_size} is too small for a byte-level vocabulary; give at least {SMALLEST_VOCABULARY}"
        )


def train_tokenizer(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a tokenizer of exactly ``vocab_size`` entries; the order of the documents does not matter.

    Raises `InputError` when the text has too few different pairs for so many entries.
    """
    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(ByteLevel.alphabet()),  # the library lists it in an order that changes
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece for text in documents for piece in pieces(text)), trainer)
    size = tokenizer.get_vocab_size()
    if size < vocab_size:
        raise InputError(f"the text gives a vocabulary of only {size} entries of {vocab_size}; give more varied text")
    tokenizer.encode_special_tokens = True
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file; special tokens inside a text stay text. Raises `InputError` for another file."""
    return parse_tokenizer(read_tokenizer(path), str(path))


def read_tokenizer(path: Path) -> str:
    """The text of a tokenizer file; raises `InputError` for one that cannot be read or is too large."""
    try:
        return read_plain(path, LARGEST_TOKENIZER).decode()
    except FileNotFoundError:
        raise InputError(f"there is no tokenizer file at {path}; give a tokenizer.json") from None
    except OSError as error:
        raise of_system(error, path) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no tokenizer file (not UTF-8 text); give a tokenizer.json") from None


def parse_tokenizer(text: str, where: str) -> Tokenizer:
    """The tokenizer of a file's text, without truncation and padding; ``where`` is named in errors."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except BaseException as error:  # the library's own errors are plain Exceptions, its panics not even that
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{where} is no tokenizer file ({reason}); give a tokenizer.json") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def content_sha256(tokenizer: Tokenizer) -> str:
    """SHA-256 of entries and merges: equal for equal tokenizers, however a library version writes its file."""
    model = json.loads(tokenizer.to_str())["model"]  # a merge is a text in older versions, a pair in newer ones
    entries = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return hashlib.sha256(canonical_json({"entries": entries, "merges": merges}).encode()).hexdigest()


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Narrowest stored type: uint16 up to 65,536 entries, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def pieces(text: str, limit: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Cut a text into parts of at most ``limit`` characters, after a line break where there is one.

    The ids of a part may differ at a cut from those of the whole text. Trial ids hash the tokens of the embedded text
    and of text folders, which `encode` cuts like this; recipes cut with `Encoder.pieces`, where no id changes.
    """
    start = 0
    while len(text) - start > limit:
        end = text.rfind("\n", start, start + limit) + 1 or start + limit
        yield text[start:end]
        start = end
    yield text[start:]


def encode(
    tokenizer: Tokenizer, documents: Iterable[tuple[str, str]], dtype: DTypeLike
) -> Iterator[tuple[str, NDArray[np.unsignedinteger]]]:
    """Encode keyed documents in order, the end-of-text token after each; a long one arrives in several arrays."""
    end = tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        raise ValueError(f"the tokenizer has no {END_OF_TEXT}")
    encoder = Encoder(tokenizer)
    waiting: list[tuple[str, str, bool]] = []
    characters = 0
    for key, text in documents:
        parts = list(pieces(text))
        for number, part in enumerate(parts, 1):
            waiting.append((key, part, number == len(parts)))
            characters += len(part)
            if characters >= BATCH_CHARACTERS:
                yield from _encode_batch(encoder, waiting, end, dtype)
                waiting, characters = [], 0
    yield from _encode_batch(encoder, waiting, end, dtype)


def _encode_batch(
    encoder: Encoder, waiting: list[tuple[str, str, bool]], end: int, dtype: DTypeLike
) -> Iterator[tuple[str, NDArray[np.unsignedinteger]]]:
    """Tokens of some parts of documents, each with its key and whether it is the last of its document."""
    ids, ends = encoder.encode([part for _, part, _ in waiting])  # (tokens,), (parts,)
    for (key, _, last), tokens in zip(waiting, np.split(ids, ends[:-1]), strict=False):
        yield key, np.append(tokens, end).astype(dtype) if last else tokens.astype(dtype)
