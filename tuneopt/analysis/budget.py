"""What each optimizer's tuning has cost, so that unequal tuning is visible at once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneopt.ledger.checks import SECONDS

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Budget:
    """The cost of one optimizer's trials, over all regimes or in one.

    ``scale`` and ``ratio`` are None for all regimes together. ``trials`` counts all; ``diverged`` and ``unproven``
    (completed without a passed proof) are among them. ``tokens`` and ``flops`` are what was trained, evaluation not
    counted; ``device_hours`` is the wall time of the trials, start-up and evaluation included, times their devices.
    """

    optimizer: str
    scale: str | None
    ratio: float | None
    trials: int
    diverged: int
    unproven: int
    tokens: int
    flops: float
    device_hours: float


def budgets(table: pa.Table, by_regime: bool = False) -> tuple[Budget, ...]:
    """The budget of each optimizer of a ledger's table, by name; with ``by_regime`` one per optimizer and regime."""
    columns = ["optimizer", "scale", "ratio", "parameters", "status", "comparable", "tokens", "flops", "devices"]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in table.select([*columns, *(f"seconds_{part}" for part in SECONDS)]).to_pylist():
        place = (row["parameters"], row["scale"], row["ratio"]) if by_regime else (0, "", 0.0)
        groups[row["optimizer"], *place].append(row)
    return tuple(
        Budget(
            optimizer=key[0],
            scale=key[2] if by_regime else None,
            ratio=key[3] if by_regime else None,
            trials=len(rows),
            diverged=sum(row["status"] == "diverged" for row in rows),
            unproven=sum(row["status"] == "completed" and not row["comparable"] for row in rows),
            tokens=sum(row["tokens"] for row in rows),
            flops=sum(row["flops"] for row in rows),
            device_hours=sum(row["devices"] * row[f"seconds_{part}"] for row in rows for part in SECONDS) / 3600,
        )
        for key, rows in sorted(groups.items())
    )
