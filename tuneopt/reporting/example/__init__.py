"""The example in the box: real trials of AdamW, Muon and SOAP on the embedded text, as a ledger to read.

What it shows, and the commands that made it, stand in docs/example.md. It travels packed (`tuneopt.ledger.packed`).
"""

from __future__ import annotations

from pathlib import Path

from tuneopt.ledger.store import Ledger, open_ledger

FILE = Path(__file__).with_name("ledger.parquet")
"""The packed ledger."""


def example_ledger() -> Ledger:
    """The example, unfolded into the cache; raises `InputError` where the packed file is damaged."""
    return open_ledger(FILE, must_exist=True)
