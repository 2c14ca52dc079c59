"""I have a table of runs from a tracker. What does it really show?

    python examples/table_from_a_tracker.py

A CSV, JSON or Parquet file with a row for each finished run is enough. Columns may have any names; `columns` says which
is what, and what is left over is dropped by name. Here the table is made up, with a noise of 0.004 nats between seeds,
so that the answer is known: `newopt` needs 1 / 1.25 of the tokens at every budget.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

import tuneopt as to

COLUMNS = {"loss": "val/loss", "optimizer": "config.opt", "scale": "config.model", "ratio": "config.ratio",
           "seed": "config.seed", "drop": "_runtime"}  # fmt: skip
FASTER, NOISE = 1.25, 0.004


def table(path: Path) -> Path:
    """Write an export as trackers make them: three seeds at four budgets for each optimizer."""
    dice = random.Random(0)
    rows = []
    for optimizer, gain in (("adamw", 1.0), ("newopt", FASTER)):
        for ratio in (1, 2, 4, 8):
            for seed in range(3):
                loss = 2.5 + 1.0 * (gain * ratio) ** -0.3 + dice.gauss(0, NOISE)
                rows.append([optimizer, "130m", ratio, seed, f"{loss:.5f}", dice.randint(900, 1100)])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([COLUMNS[name] for name in ("optimizer", "scale", "ratio", "seed", "loss", "drop")])
        writer.writerows(rows)
    return path


def main(folder: str = "tracker-example") -> to.api.Report:
    """Report on the table, and print its speedups."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    page = to.report(results=table(home / "runs.csv"), path=home / "report.html", columns=COLUMNS)
    print(page)
    print(page.to_pandas()[["optimizer", "ratio", "speedup", "low", "high", "tie_group"]])
    return page


if __name__ == "__main__":
    main()
