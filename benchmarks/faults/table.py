"""The table of a finished run of benchmarks/chaos.py, in Markdown."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any


def markdown(document: dict[str, Any]) -> str:
    """A row for each kind of fault, and a sentence for the sum of them."""
    sweeps = [sweep for sweep in document["sweeps"] if "error" not in sweep]
    by_kind: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    costs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for sweep in sweeps:
        for fault in sweep["faults"]:
            key = (sweep["place"], fault["kind"])
            by_kind[key].append({**fault, "same": sweep["same answer"]})
        for cost in sweep["work lost"]:
            blamed = [fault for fault in sweep["faults"] if fault["began"] <= cost["at"] + 1.0]
            if blamed:
                costs[sweep["place"], blamed[-1]["kind"]].append(cost)
    lines = [
        "| where | fault | times | command ended and was run again | training again after (median, most) | "
        "steps trained again (median, most) | same answer |",
        "|---|---|---|---|---|---|---|",
    ]
    for (place, kind), faults in sorted(by_kind.items()):
        ended = sum(bool(fault["driver"]) for fault in faults)
        steps = [cost["steps"] for cost in costs[place, kind]]
        again = _two([fault["back_seconds"] for fault in faults], " s")
        same = sum(fault["same"] for fault in faults)
        lines.append(
            f"| {place} | {kind} | {len(faults)} | {ended} | {again} | {_two(steps, '')} | {same} of {len(faults)} |"
        )
    broken = len(document["sweeps"]) - len(sweeps)
    more = [f"{broken} sweeps could not be judged."] if broken else []
    return "\n".join([*lines, "", _sum(sweeps), *more]) + "\n"


def _two(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.0f}, {max(values):.0f}{unit}" if values else "-"


def _sum(sweeps: Sequence[dict[str, Any]]) -> str:
    faults = sum(len(sweep["faults"]) for sweep in sweeps)
    lost, doubled, different = (sum(len(sweep[name]) for sweep in sweeps) for name in ("lost", "doubled", "different"))
    costs = [cost for sweep in sweeps for cost in sweep["work lost"]]
    kills = [cost for cost in costs if not cost["excused"]]
    within, most = sum(cost["within"] for cost in kills), max((cost["seconds"] for cost in kills), default=0.0)
    same = sum(sweep["same answer"] for sweep in sweeps)
    return (
        f"{faults} faults in {len(sweeps)} sweeps: {lost} records lost, {doubled} written twice, {different} "
        f"different; the answer was that of the undisturbed run in {same} of {len(sweeps)} sweeps; {len(kills)} trials "
        f"went on after a kill, {within} of them with at most one checkpoint interval trained again, at most "
        f"{most:.1f} s."
    )
