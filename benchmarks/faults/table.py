"""The table of a finished run of benchmarks/chaos.py, in Markdown."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any


def markdown(*documents: dict[str, Any]) -> str:
    """A row for each kind of fault, and a sentence for the sum of them; a fault without a victim does not count."""
    everything = [sweep for document in documents for sweep in document["sweeps"]]
    sweeps = [
        {**sweep, "faults": [fault for fault in sweep["faults"] if fault["did"]]}
        for sweep in everything
        if "error" not in sweep
    ]
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
        "| where | fault | times | trials that went on after it | steps trained again (median, most) | same answer |",
        "|---|---|---|---|---|---|",
    ]
    for (place, kind), faults in sorted(by_kind.items()):
        steps = [cost["steps"] for cost in costs[place, kind]]
        again = f"{statistics.median(steps):.0f}, {max(steps)}" if steps else "-"
        same = sum(fault["same"] for fault in faults)
        lines.append(f"| {place} | {kind} | {len(faults)} | {len(steps)} | {again} | {same} of {len(faults)} |")
    broken = len(everything) - len(sweeps)
    more = [f"{broken} sweeps could not be judged."] if broken else []
    return "\n".join([*lines, "", _sum(sweeps), *more]) + "\n"


def _sum(sweeps: Sequence[dict[str, Any]]) -> str:
    faults = sum(len(sweep["faults"]) for sweep in sweeps)
    lost, doubled, different = (sum(len(sweep[name]) for sweep in sweeps) for name in ("lost", "doubled", "different"))
    costs = [cost for sweep in sweeps for cost in sweep["work lost"]]
    kills = [cost for cost in costs if not cost["excused"]]
    within, most = sum(cost["within"] for cost in kills), max((cost["seconds"] for cost in kills), default=0.0)
    others = Counter(cost["excused"] for cost in costs if cost["excused"])
    same = sum(sweep["same answer"] for sweep in sweeps)
    told = [f"{count} more {_EXCUSES[why]}" for why, count in sorted(others.items())]
    return (
        f"{faults} faults in {len(sweeps)} sweeps: {lost} records lost, {doubled} written twice, {different} "
        f"different; the answer was that of the undisturbed run in {same} of {len(sweeps)} sweeps. {len(kills)} trials "
        f"went on after a kill from their newest checkpoint, {within} of them with at most one checkpoint interval "
        f"trained again, at most {most:.1f} s{'; ' if told else ''}{', '.join(told)}."
    )


_EXCUSES = {
    "first steps": "had not taken their proof yet and began again",
    "no writing": "could not write one at that time",
    "older checkpoint": "went on from the one before, because the newest was truncated",
}
