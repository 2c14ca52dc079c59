"""How many tokens are computed at once; imports no torch, so that plans of memory can ask too.

The rules depend on shapes alone, never on the machine: chunks order floating-point sums, and a trial is to give the
same loss wherever it runs.
"""

from __future__ import annotations

CHUNKED_VOCABULARY = 2**14
"""From this many entries on, logits are computed in chunks; smaller ones, of the nano ladder, stay whole."""

LEAST_CHUNKS = 4
"""Chunks of a pass at least: with fewer, logits would still be the largest tensor of a step."""

CHUNK_ELEMENTS = 2**29
"""Logits of one chunk at most: 1 GiB in bf16. Each chunk reads and writes the head's gradient in fp32 once, so that
twice as large a chunk halves that. From here on it is a fifth of the head's bytes, and memory would be dearer."""

ATTENTION_ROWS = 256
"""Queries of a block where attention is differentiated twice. Sequences of one block, as on the nano ladder, take
torch's plain products (`tuneopt.training.second_order.hessian`)."""

ATTENTION_ELEMENTS = 2**23
"""Numbers of one matrix of such a block at most, 32 MiB in fp32, of which five are alive at once."""


def chunk_tokens(tokens: int, vocab_size: int) -> int | None:
    """Tokens of a forward pass over ``tokens`` whose logits exist at once; None where all of them do.

    A power of two, so that passes over whole sequences divide into equal chunks: at most a quarter of the pass, and
    `CHUNK_ELEMENTS` logits.
    """
    if vocab_size < CHUNKED_VOCABULARY:
        return None
    most = max(1, min(-(-tokens // LEAST_CHUNKS), CHUNK_ELEMENTS // vocab_size))
    return int(1 << (most.bit_length() - 1))
