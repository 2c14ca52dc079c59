"""The example in the box: real trials of AdamW, Muon and SOAP on the embedded text, as a ledger to read.

What it shows, and the commands that made it, stand in docs/example.md.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tuneopt.data.cache import cache_folder
from tuneopt.ledger import Ledger
from tuneopt.ledger.packed import unpack

FILE = Path(__file__).with_name("ledger.parquet")
"""The packed ledger (`tuneopt.ledger.packed`)."""


def example_ledger() -> Ledger:
    """The example, unfolded into the cache; raises `InputError` where the packed file is damaged."""
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]
    return unpack(FILE, cache_folder() / f"example-{digest}")
