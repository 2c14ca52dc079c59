"""A worker process for the durability tests: puts records as fast as it can.

Usage: ledger_writer.py LEDGER LOSS SEED_FROM SEED_TO START_FILE; prints each id that it was the first to write.
"""

import sys
import time
from pathlib import Path

from ledger_samples import make_record, make_spec

from tuneopt.ledger import Ledger

uri, loss, first, last, start = sys.argv[1:]
records = [make_record(make_spec(seed), float(loss), points=10) for seed in range(int(first), int(last))]
ledger = Ledger(uri)
Path(f"{start}.{loss}").touch()
while not Path(start).exists():
    time.sleep(0.001)
for record in records:
    if ledger.put(record):
        print(record.trial, flush=True)
