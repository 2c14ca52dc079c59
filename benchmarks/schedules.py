"""Deterministic simulation: many seeded schedules of faults over the real driver, searcher and ledger, in one process.

    python benchmarks/schedules.py --schedules 100000 --first 0
    python benchmarks/schedules.py --only 4711
    python benchmarks/schedules.py --bugs --schedules 3000

Each schedule follows from its seed alone: drivers that die and come back, a second driver, doubled and orphaned
workers, wrong clocks, pauses, and a store that fails, loses writes, shows them late, lists in part, and rots. What must
hold at the end of each: every run ends, one certificate, and no record lost, doubled or changed
(`simulation.schedule.play`). A schedule that breaks something is shrunk and printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from simulation.bugs import BUGS, planted
from simulation.drawing import drawn
from simulation.schedule import play, shrunk


def find_bugs(seeds: range) -> int:
    """Print after how many schedules each planted bug is found, and by what; 1 where one is not."""
    missed = 0
    for name in BUGS:
        with planted(name):
            broken = ((count, play(drawn(seed))[0]) for count, seed in enumerate(seeds, start=1))
            count, why = next(((count, why) for count, why in broken if why), (0, ["not found"]))
        missed += not count
        print(f"| {name} | {count or '-'} | {why[0]} |", flush=True)
    return bool(missed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--only", type=int, help="one seed, with what happened")
    parser.add_argument("--most", type=int, default=3, help="broken schedules to shrink and show")
    parser.add_argument("--bugs", action="store_true", help="plant known bugs: when is each found?")
    given = parser.parse_args()
    if given.only is not None:
        broken, scene = play(drawn(given.only))
        print(drawn(given.only), *scene.ends, *broken, f"{scene.world.events} events", sep="\n")
        return bool(broken)
    logging.disable(logging.CRITICAL)
    if given.bugs:
        return find_bugs(range(given.first, given.first + given.schedules))
    gc.collect()
    gc.freeze()  # what is imported stays: to look through it again and again is a fifteenth of the time
    began, counts, failures = time.process_time(), Counter[str](), []
    for seed in range(given.first, given.first + given.schedules):
        schedule = drawn(seed)
        broken, scene = play(schedule)
        counts["schedules"] += 1
        counts["faults"] += len(schedule.faults) + len(schedule.twins) + sum(map(bool, schedule.clocks_off))
        counts["store operations"] += scene.store.operations
        counts["driver lives"] += sum("worker" not in process.name for process in scene.world.processes)
        counts["worker lives"] += len(scene.workers)
        counts["with two drivers"] += len(schedule.starts) > 1
        if broken:
            failures.append(seed)
            if len(failures) <= given.most:
                small = shrunk(schedule)
                print(f"seed {seed}: {broken}\n  shrunk to {small}\n  which gives {play(small)[0]}", flush=True)
    seconds = time.process_time() - began
    print(json.dumps({**counts, "broken": len(failures), "seeds": failures[:20], "cpu_seconds": round(seconds, 1)}))
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
