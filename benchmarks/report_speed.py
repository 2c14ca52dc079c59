"""What a report of ten thousand trials costs: from a ledger, or from one that is made for it, to HTML.

    .venv/bin/python benchmarks/report_speed.py [--trials 10000] [--ledger FOLDER] [--goal 10]

Without ``--ledger`` one is made from smooth losses: nine optimizers at the nano scales and five ratios or more, with
curves of 20 points. Making it takes longer than reading it. Seconds are by the clock, as somebody waits for them: the
work for each sweep is shared out over the cores. Exit code 1 above ``--goal`` seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "reporting"))

from report_samples import make_sweep, run_sweep

from tuneopt.ledger import Ledger
from tuneopt.parallel import processors, uncollected
from tuneopt.reporting import html
from tuneopt.reporting.compare import compare
from tuneopt.reporting.page import build_page
from tuneopt.reporting.palette import ranked
from tuneopt.reporting.sources import gather

OPTIMIZERS = ("adamw", "nadamw", "mars", "cautious", "lion", "muon", "scion", "kron", "soap")
SCALES = ("nano-65k", "nano-147k", "nano-262k", "nano-590k", "nano-1m")


def fill(ledger: Ledger, trials: int) -> None:
    """Sweeps, a ratio at a time over all scales and optimizers, until the ledger holds ``trials``."""
    ratio = 1.0
    while len(ledger.ids()) < trials:
        for scale in SCALES:
            for optimizer in OPTIMIZERS:
                run_sweep(ledger, make_sweep(optimizer, ratio=ratio, scale=scale))
        ratio *= 2**0.5


def measured(ledger: Ledger) -> tuple[dict[str, float], int]:
    """Seconds of each part, and the bytes of the page."""
    spent, before = {}, time.perf_counter()

    def part(name: str) -> None:
        nonlocal before
        spent[name], before = time.perf_counter() - before, time.perf_counter()

    material = gather(ledger)
    part("read, check, replay")
    comparison = compare(material)
    part("analyse")
    with ranked(comparison.best_first, comparison.analysis.baseline):
        page = build_page(material, comparison)
        part("page")
        text = html.render(page)
        part("HTML")
    return spent, len(text.encode())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--ledger", help="one that is there already")
    parser.add_argument("--goal", type=float, default=10.0, help="seconds")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(asked.ledger or folder)
        if not asked.ledger:
            fill(ledger, asked.trials)
        with uncollected():
            spent, size = measured(ledger)
        trials, sweeps = len(ledger.ids()), len(ledger.sweeps())
        print(f"{trials:,} trials in {sweeps} sweeps: {size / 1e6:.1f} MB, {processors()} cores")
    for name, seconds in spent.items():
        print(f"{seconds:6.1f} s  {name}")
    print(f"{sum(spent.values()):6.1f} s  all")
    return int(sum(spent.values()) > asked.goal)


if __name__ == "__main__":
    sys.exit(main())
