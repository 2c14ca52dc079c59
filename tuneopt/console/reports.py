"""The first figures of a report, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import out, say, table

MOST = 40
"""Speedups that the terminal shows; the report has all."""


def report_summary(summary: Mapping[str, Any], path: Any) -> None:
    """Show what the report's first screen says, the speedups with their tie groups, and where the report is."""
    answer = summary["answer"]
    out.print(answer["headline"], markup=False)
    for sentence in answer["sentences"]:
        out.print(sentence, markup=False)
    table(
        ("regime", "best group", "speedup", "interval"),
        [
            (
                f"{place['corpus']} {place['scale']}/{place['ratio']:g}x".strip(),
                ", ".join(place["leaders"]) or f"{place['lowest']} (noise unknown)",
                place["speedup"],
                place["interval"],
            )
            for place in answer["places"][:MOST]
        ],
    )
    rows = [row for row in summary["speedups"] if row["optimizer"] != summary["baseline"]]
    table(
        ("optimizer", "scale", "ratio", "speedup", "low", "high", "tie group", "remarks"),
        [
            (
                row["optimizer"],
                row["scale"],
                f"{row['ratio']:g}",
                *(_times(row[key]) for key in ("speedup", "low", "high")),
                row["tie_group"],
                ", ".join(row["flags"]),
            )
            for row in rows[:MOST]
        ],
    )
    if len(rows) > MOST:
        say(f"{len(rows) - MOST} more speedups are in the report")
    for warning in summary["warnings"]:
        say(f"warning: {warning}")
    out.print(f"report: {path}", markup=False)


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"
