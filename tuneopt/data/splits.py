"""Which documents train, which choose a configuration (``select``) and which report its loss (``report``).

The text of a document alone decides: the first two bytes of its SHA-256 name one of 65,536 buckets, and a split is a
range of buckets. Identical documents share a bucket, so none can land in two splits, and neither the order of the
documents nor their files matter.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuneopt.spec import InputError

SPLITS = ("train", "select", "report")
"""Names of the splits. Recipes number the fates of documents in this order (`recipe.units`)."""

BUCKETS = 1 << 16
"""Values of two bytes: with 2% of them for a split, its share is set to one part in 1,300."""

EVALUATION_SHARE = 50
"""One part in 50 (2%) of the bytes goes to each evaluation split, or more where that is too little."""

ENOUGH_BYTES = 512 * 129 * 4
"""What an evaluation split should hold: 512 windows of 129 tokens at 4 bytes a token."""

LARGEST_SHARE = 10
"""No more than one part in 10 is asked for an evaluation split, however small the corpus."""

SMALLEST_BYTES = 1 << 16
"""A corpus below this many bytes gives no evaluation that means anything."""


def bucket(text: str) -> int:
    """Bucket of a document, 0 to 65,535, from its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:2], "big")


@dataclass(frozen=True, slots=True)
class SplitRule:
    """Buckets below ``select_end`` are select, those from there to below ``report_end`` report, the others train."""

    select_end: int
    report_end: int

    def split(self, text: str) -> str:
        """Name of the split that a document belongs to."""
        number = bucket(text)
        return "select" if number < self.select_end else "report" if number < self.report_end else "train"

    def describe(self) -> str:
        """The rule as a sentence."""
        return (
            "a document's bucket is the first two bytes of the SHA-256 of its UTF-8 text (big-endian); "
            f"select: below {self.select_end}, report: from there to below {self.report_end}, train: all others"
        )


def common_share(bytes_per_bucket: NDArray[np.int64], usual: float, name: str) -> float:
    """The share of the buckets for each evaluation split of a recipe: ``usual``, or more where documents are few.

    ``bytes_per_bucket`` has shape (65536,). The usual range may by chance hold next to no text; where a split has less
    than half of what `EVALUATION_SHARE` asks, it is the narrowest that gives both what `choose_rule` gives. Raises
    `InputError`, naming the corpus ``name``, where there is none.
    """
    up_to = np.concatenate(([0], np.cumsum(bytes_per_bucket)))  # (65537,), bytes before a bucket
    widths = np.arange(1, BUCKETS // 4 + 1)
    # (16384,), bytes of the smaller split at each width
    smaller = np.minimum(up_to[widths], up_to[2 * widths] - up_to[widths])
    if 2 * EVALUATION_SHARE * smaller[round(usual * BUCKETS) - 1] >= up_to[-1]:
        return usual
    enough = widths[smaller >= _target(int(up_to[-1]), name)]
    if not enough.size:
        raise _too_few(name)
    return float(enough[0] / BUCKETS)


def choose_rule(bytes_per_bucket: NDArray[np.int64], name: str) -> SplitRule:
    """The narrowest bucket ranges that give both evaluation splits their share of the bytes.

    ``bytes_per_bucket`` has shape (65536,). Raises `InputError`, naming the corpus ``name``, when the text is too
    little, or comes in too few documents to leave at least half of it for training.
    """
    total = int(bytes_per_bucket.sum())
    target = _target(total, name)
    up_to = np.cumsum(bytes_per_bucket)  # (65536,), bytes in a bucket and all before it
    select_end = int(np.searchsorted(up_to, target)) + 1
    taken = int(up_to[select_end - 1])
    report_end = int(np.searchsorted(up_to, taken + target)) + 1
    if report_end > BUCKETS or 2 * int(up_to[report_end - 1]) > total:
        raise _too_few(name)
    return SplitRule(select_end, report_end)


def _target(total: int, name: str) -> int:
    """Bytes that an evaluation split of a corpus of ``total`` bytes should hold; raises `InputError` for too few."""
    if total < SMALLEST_BYTES:
        raise InputError(
            f"corpus {name!r} holds {total} bytes of text, too little for its train, select and report splits; "
            f"give at least {SMALLEST_BYTES} bytes"
        )
    return max(-(-total // EVALUATION_SHARE), min(ENOUGH_BYTES, total // LARGEST_SHARE))


def _too_few(name: str) -> InputError:
    return InputError(
        f"corpus {name!r} has too few documents to split into train, select and report; "
        "put a line <|endoftext|> between the documents of a text file, or give more files"
    )
