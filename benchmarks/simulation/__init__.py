"""Driver, searcher, ledger and store on a virtual clock, under seeded faults (benchmarks/schedules.py)."""
