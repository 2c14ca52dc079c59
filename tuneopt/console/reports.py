"""The first figures of a report, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import out, say, table


def report_summary(summary: Mapping[str, Any], path: Any) -> None:
    """Show the rankings and speedups of a report, and where it is."""
    for ranking in summary["rankings"]:
        out.print(f"{ranking['scale']}, ratio {ranking['ratio']:g}: {' < '.join(ranking['order'])}", markup=False)
    table(
        ("optimizer", "scale", "ratio", "speedup", "low", "high", "tie group"),
        [
            (
                row["optimizer"],
                row["scale"],
                f"{row['ratio']:g}",
                *(_times(row[key]) for key in ("speedup", "low", "high")),
                row["tie_group"],
            )
            for row in summary["speedups"]
        ],
    )
    for warning in summary["warnings"]:
        say(f"warning: {warning}")
    out.print(f"report: {path}", markup=False)


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"
