"""Where the noise between seeds comes from: variance components of a crossed design of weights and data orders.

    .venv/bin/python benchmarks/noise_components.py

Reads `noise_components.csv`: one run a row, with the seed of its initial weights and that of its data order, the final
losses, and the select loss at some fractions of training (on 32 sequences; the final losses are on 512). Every pair of
a weights seed and an order seed ran once, so for losses x of shape (weights, orders)

    x = mean + weights + order + rest,    rest: their interaction and what no seed explains

and the mean squares of the two-way layout give the variances. Intervals are 90%, by generalised pivotal quantities
(Weerahandi 1993): a mean square over its chi-square quantile is a draw of its expectation. Prints the tables of
docs/noise.md. A component's estimate may be 0 where its mean square is below the rest's.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

ROWS = Path(__file__).with_name("noise_components.csv")
FRACTIONS = ("0.1", "0.2", "0.4", "0.6", "0.8", "1.0")
DRAWS = 40_000

ONE_ROW = (3.941, 3.945, 3.945, 3.936, 3.939, 3.950)
"""SOAP, ratio 1, the weights of seed 0 under six other orders: the finding that the crossed design is to test."""
EQUAL_TOKENS = (("nano-65k", 1.0), ("nano-262k", 0.25))
"""Regimes of 1.3 million tokens each."""
SIX_SEEDS = {
    ("soap", 1.0): (3.935, 3.996, 3.994, 4.000, 3.960, 3.945),
    ("soap", 0.5): (4.214, 4.214, 4.213, 4.203, 4.212, 4.206),
}
"""Six seeds for weights and order together, seeds 0 to 5."""


def grids(column: str, scale: str = "nano-65k") -> dict[tuple[str, float], np.ndarray]:
    """Losses (weights, orders) at the starts, by optimizer and ratio, of the weights that ran with every order."""
    cells: dict[tuple[str, float], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    with ROWS.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["scale"] != scale or row["learning_rate"]:
                continue
            cells[row["optimizer"], float(row["ratio"])][int(row["weights"])][int(row["order"])] = float(row[column])
    found = {}
    for key, rows in cells.items():
        orders = sorted({order for row in rows.values() for order in row})
        found[key] = np.array([[row[o] for o in orders] for _, row in sorted(rows.items()) if len(row) == len(orders)])
    return found


def mean_squares(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean squares of weights, order and rest, and their degrees of freedom."""
    a, b = losses.shape
    mean, rows, columns = losses.mean(), losses.mean(1), losses.mean(0)
    rest = losses - rows[:, None] - columns + mean
    squares = np.array([b * ((rows - mean) ** 2).sum(), a * ((columns - mean) ** 2).sum(), (rest**2).sum()])
    freedoms = np.array([a - 1, b - 1, (a - 1) * (b - 1)])
    return squares / freedoms, freedoms


def components(*grids: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """Estimate and 90% interval of each standard deviation in nats.

    Several grids of one shape are taken to have equal components, and their mean squares are averaged. ``only weights``
    and ``only order`` are the spread when one changes and the other stays, ``both`` when both change.
    """
    a, b = grids[0].shape
    squares = np.mean([mean_squares(losses)[0] for losses in grids], axis=0)
    freedoms = len(grids) * mean_squares(grids[0])[1]
    rng = np.random.default_rng(0)
    draws = squares * freedoms / rng.chisquare(freedoms, (DRAWS, 3))
    parts = {}
    for rows in (squares[None], draws):
        weights, order = np.maximum(rows[:, 0] - rows[:, 2], 0) / b, np.maximum(rows[:, 1] - rows[:, 2], 0) / a
        rest = rows[:, 2]
        values = {
            "weights": weights, "order": order, "rest": rest,
            "only weights": weights + rest, "only order": order + rest, "both": weights + order + rest,
        }  # fmt: skip
        for name, value in values.items():
            parts.setdefault(name, []).append(np.sqrt(value))
    return {name: (float(one[0]), *np.quantile(many, [0.05, 0.95])) for name, (one, many) in parts.items()}


def tests(*grids: np.ndarray) -> tuple[float, float]:
    """P-values of F tests that weights explain nothing, and that the order explains nothing."""
    squares = np.mean([mean_squares(losses)[0] for losses in grids], axis=0)
    freedoms = len(grids) * mean_squares(grids[0])[1]
    one, other = (float(stats.f.sf(squares[k] / squares[2], freedoms[k], freedoms[2])) for k in (0, 1))
    return one, other


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def final_table(column: str = "select_loss") -> str:
    names = ("weights", "order", "rest", "only weights", "only order", "both")
    rows = []
    groups = [(optimizer, ratio, [losses]) for (optimizer, ratio), losses in grids(column).items()]
    groups.append(("all three", 1.0, [one[0] for _, ratio, one in groups if ratio == 1]))
    for optimizer, ratio, members in groups:
        found, p = components(*members), tests(*members)
        cells = [f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in (found[name] for name in names)]
        shape = f"{members[0].shape[0]} x {members[0].shape[1]}"
        rows.append((optimizer, f"{ratio:g}", shape, *cells, f"{p[0]:.2f}", f"{p[1]:.2f}"))
    return table(("optimizer", "ratio", "runs", *names, "p weights", "p order"), rows)


def curve_table() -> str:
    curves = {fraction: grids(f"at_{fraction}") for fraction in FRACTIONS}
    rows = []
    for key in curves["1.0"]:
        for name in ("weights", "order", "rest", "both"):
            values = [f"{components(curves[fraction][key])[name][0]:.3f}" for fraction in FRACTIONS]
            rows.append((key[0], f"{key[1]:g}", name, *values))
    return table(("optimizer", "ratio", "part", *(f"{float(f):.0%}" for f in FRACTIONS)), rows)


def spread_of_orders() -> str:
    """Standard deviation over the orders for each seed of the weights, and pooled over them."""
    rows = []
    for (optimizer, ratio), losses in grids("select_loss").items():
        spreads = losses.std(1, ddof=1)
        pooled = math.sqrt(float((spreads**2).mean()))
        listed = [f"{value:.3f}" for value in spreads] + [""] * (4 - len(spreads))
        rows.append((optimizer, f"{ratio:g}", *listed, f"{pooled:.3f}"))
    return table(("optimizer", "ratio", *(f"weights {k}" for k in range(4)), "pooled"), rows)


def against_earlier() -> str:
    """Earlier figures on fewer seeds next to the crossed design: F tests of equal variances."""
    full, lines = grids("select_loss"), []
    soap = full["soap", 1.0]
    rows = soap.shape[0] * (soap.shape[1] - 1)
    pooled, one_row = float(soap.var(1, ddof=1).mean()), float(np.var(ONE_ROW, ddof=1))
    own = float(soap[0].var(ddof=1))
    lines.append(
        f"SOAP, ratio 1, spread of orders: six orders of weights 0 {math.sqrt(one_row):.4f}; three more of weights 0 "
        f"{math.sqrt(own):.4f} (p = {stats.f.sf(own / one_row, 2, 5):.3f}); all four weights {math.sqrt(pooled):.4f} "
        f"(p = {stats.f.sf(pooled / one_row, rows, 5):.3f})"
    )
    for key, seeds in SIX_SEEDS.items():
        squares, _ = mean_squares(full[key])
        spread = components(full[key])["both"][0]
        a, b = full[key].shape
        # Satterthwaite: the sum of three mean squares with these weights is the variance of a fresh pair of seeds.
        parts = squares * np.array([1 / b, 1 / a, 1 - 1 / a - 1 / b])
        freedom = parts.sum() ** 2 / (parts**2 / mean_squares(full[key])[1]).sum()
        six = float(np.std(seeds, ddof=1))
        ratio = spread**2 / six**2
        p = 2 * min(stats.f.sf(ratio, freedom, 5), stats.f.cdf(ratio, freedom, 5))
        lines.append(
            f"{key[0].upper()}, ratio {key[1]:g}, both seeds change: six seeds {six:.4f}, crossed {spread:.4f} "
            f"with {freedom:.1f} degrees of freedom (two-sided p = {p:.3f})"
        )
    return "\n".join(f"- {line}" for line in lines)


def signal_table() -> str:
    """What one pair of runs tells at equal tokens: differences between optimizers and of half the rate, over noise."""
    losses: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with ROWS.open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["scale"], float(row["ratio"])) in EQUAL_TOKENS:
                losses[row["scale"], row["optimizer"], row["learning_rate"]].append(float(row["select_loss"]))
    rows = []
    for scale, _ in EQUAL_TOKENS:
        starts = {name: losses[scale, name, ""] for name in ("adamw", "soap", "muon")}
        noise = math.sqrt(sum(np.var(own, ddof=1) for own in starts.values()) / len(starts))
        halves = {name: own for (where, name, rate), own in losses.items() if where == scale and rate and len(own) > 3}
        cells = [f"{np.mean(starts['adamw']) - np.mean(starts[name]):.3f}" for name in ("soap", "muon")]
        gaps = [f"{name} {np.mean(own) - np.mean(starts[name]):.3f}" for name, own in sorted(halves.items())]
        ratio = (np.mean(starts["adamw"]) - np.mean(starts["soap"])) / (noise * math.sqrt(2))
        rows.append((scale, f"{noise:.3f}", *cells, ", ".join(gaps), f"{ratio:.1f}"))
    return table(("scale", "sigma", "adamw - soap", "adamw - muon", "half the rate", "one pair, in sigmas"), rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for part in (
        final_table(),
        final_table("report_loss"),
        curve_table(),
        spread_of_orders(),
        against_earlier(),
        signal_table(),
    ):
        print(part, end="\n\n")


if __name__ == "__main__":
    main()
